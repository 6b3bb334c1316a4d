from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight

from topwork.backbones.backbone import LAST, BackboneFacts
from topwork.data.dataset import Dataset, Example, FileImage
from topwork.data.split import Splits
from topwork.errors import InputError
from topwork.features.extract import Features
from topwork.features.store import Store
from topwork.graphs.features import Block
from topwork.heads.fit import Fitted, fit_head, sample_weights
from topwork.images.framing import Framing
from topwork.progress import Silent
from topwork.recipe import HeadRecipe, Recipe, SplitRecipe

WIDTHS = {"last_rooted": 40, LAST: 6}
WIDTH = sum(WIDTHS.values())


@given(st.data())
def test_balanced_weights_sum_alike_and_keep_their_mean(data: st.DataObject) -> None:
    class_count = data.draw(st.integers(2, 5))
    targets = np.array(data.draw(st.lists(st.integers(0, class_count - 1), min_size=1, max_size=40)))
    weights = np.array(
        data.draw(st.lists(st.floats(0.01, 100), min_size=len(targets), max_size=len(targets)))
    )
    balanced = sample_weights(targets, weights, class_count, balanced=True)
    sums = np.bincount(targets, balanced, class_count)[np.unique(targets)]
    np.testing.assert_allclose(sums, sums[0])
    np.testing.assert_allclose(balanced.sum(), weights.sum())
    for label in np.unique(targets):  # within a class, the images' own weights decide
        mine = targets == label
        np.testing.assert_allclose(balanced[mine] / balanced[mine][0], weights[mine] / weights[mine][0])
    assert sample_weights(targets, weights, class_count, balanced=False) is weights


def test_balanced_weights_are_scikit_learns() -> None:
    targets = np.array([0, 0, 0, 1, 2, 2])
    expected = compute_sample_weight("balanced", targets)
    np.testing.assert_allclose(sample_weights(targets, np.ones(6), 3, balanced=True), expected)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[object]:
    """A function that puts given features, of two blocks, into a store, as if from images of two classes."""
    facts = BackboneFacts(
        handle="made up",
        size_px=32,
        fit=Framing("stretch"),
        views="one",
        precision="f32",
        pixels="0..255",
        blocks=(Block("last_rooted", 0, 40), Block(LAST, 40, WIDTH)),
        license="",
        source="",
        fingerprint="ab" * 8,
    )
    with Store.open(facts.fingerprint, facts.width, root=tmp_path / "made") as store:

        def make(x: np.ndarray) -> tuple[Features, Splits]:
            labels = ["a", "b"] * (len(x) // 2)
            examples = tuple(Example(f"{i:03}", FileImage(f"{i}"), labels[i]) for i in range(len(x)))
            dataset = Dataset(examples, ("a", "b"), "made up")
            keys = tuple(hashlib.sha256(e.id.encode()).digest() for e in dataset)
            store.put(zip(keys, x.astype(np.float32), strict=True))
            features = Features(dataset, keys, (), facts, store, len(x))
            none = dataset.take(0)
            return features, Splits(dataset.skip(20), none, dataset.take(20))

        yield make


def signal(informative: str, count: int = 120) -> np.ndarray:
    """Features (N, 46) of which one block tells the two alternating classes apart, somewhat; the other is chance."""
    x = np.random.default_rng(0).standard_normal((count, WIDTH))
    columns = slice(0, 40) if informative == "last_rooted" else slice(40, WIDTH)
    x[1::2, columns] += 0.8
    return x


def fit(features: Features, splits: Splits, tmp_path: Path, /, **head: str) -> Fitted:
    recipe = Recipe(head=HeadRecipe(**head), split=SplitRecipe())
    return fit_head(features, splits, recipe, tensorboard=tmp_path / "tensorboard", watch=Silent())


def test_auto_takes_the_features_with_the_smaller_held_out_loss(made: object, tmp_path: Path) -> None:
    for informative, wanted in (("last_rooted", "stages"), (LAST, "last")):
        features, splits = made(signal(informative))
        fitted = fit(features, splits, tmp_path)
        losses = [candidate.held_out_loss for candidate in fitted.candidates]
        assert losses == sorted(losses)
        assert len(losses) == 2
        assert fitted.candidates[0].features == wanted
        expected = ("last_rooted",) if wanted == "stages" else (LAST,)
        assert fitted.blocks == expected
        assert fitted.held_out == "5-fold cross-validation"
        assert fitted.head.width == fitted.candidates[0].width == sum(WIDTHS[name] for name in expected)


def test_held_out_loss_is_that_of_images_not_learnt_from(made: object, tmp_path: Path) -> None:
    """Labels by chance: who looks at what it learnt finds an accuracy far above a half; held out, there is none."""
    x = np.random.default_rng(3).standard_normal((400, WIDTH))
    features, splits = made(x)
    fitted = fit(features, splits, tmp_path)
    for candidate in fitted.candidates:
        assert candidate.held_out_loss > 0.66  # nats; ln 2 = 0.693 is what one who knows nothing has
        assert abs(candidate.held_out_accuracy - 0.5) < 0.1


@pytest.mark.parametrize("kind", ["linear", "mlp", "centroid"])
def test_the_features_of_test_images_are_not_even_read(kind: str, made: object, tmp_path: Path) -> None:
    """A head is fitted though the test images have no features at all."""
    features, splits = made(signal("last_rooted"))
    there = dataclasses.replace(
        features, keys=tuple(bytes(32) if i < 20 else key for i, key in enumerate(features.keys))
    )
    fitted = fit(there, splits, tmp_path, kind=kind)
    assert fitted.head.kind == kind


@pytest.mark.parametrize("kind", ["linear", "mlp", "centroid"])
def test_named_features_are_taken(kind: str, made: object, tmp_path: Path) -> None:
    features, splits = made(signal("last_rooted"))
    assert fit(features, splits, tmp_path, kind=kind, features="last").blocks == (LAST,)
    assert fit(features, splits, tmp_path, kind=kind, features="stages").blocks == ("last_rooted",)
    assert len(fit(features, splits, tmp_path, features="last").candidates) == 1


def test_validation_images_are_used_where_there_are_some(made: object, tmp_path: Path) -> None:
    features, splits = made(signal("last_rooted"))
    held = Splits(splits.train.skip(20), splits.train.take(20), splits.test)
    fitted = fit(features, held, tmp_path)
    assert fitted.held_out == "the validation images"
    x, targets = features.part(held.validation).matrix(fitted.blocks), held.validation.targets()
    accuracy = (fitted.head.logits(x).argmax(axis=1) == targets).mean()
    assert fitted.candidates[0].held_out_accuracy == accuracy


def test_folds_are_never_more_than_the_images_allow(made: object, tmp_path: Path) -> None:
    features, splits = made(signal("last_rooted"))
    few = Splits(splits.train.take(6), splits.validation, splits.test)
    assert fit(features, few, tmp_path).held_out == "3-fold cross-validation"
    with pytest.raises(InputError, match=r"expected at least 4 training images to choose settings by cross-"):
        fit(features, Splits(splits.train.take(3), splits.validation, splits.test), tmp_path)


def test_with_many_images_features_are_chosen_on_some_of_them(
    made: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from topwork.heads import fit as module

    features, splits = made(signal("last_rooted", 600))
    known = fit(features, splits, tmp_path)
    assert {c.images for c in known.candidates} == {len(splits.train)}
    monkeypatch.setattr(module, "PROBED", 200)
    monkeypatch.setattr(module, "EXACT", 500)
    found = fit(features, splits, tmp_path)
    assert found.candidates[0].features == known.candidates[0].features == "stages"
    assert found.candidates[0].images == len(splits.train)
    assert 150 < found.candidates[1].images < 250
    np.testing.assert_array_equal(found.head.layers[0].weight, known.head.layers[0].weight)
