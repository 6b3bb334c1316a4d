from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from photos import SHAPES, shape, write_noise, write_shapes
from topwork.classifiers.classifier import HEAD, Classifier
from topwork.data.dataset import Dataset
from topwork.data.sources import load
from topwork.errors import InputError
from topwork.features.store import Store
from topwork.jobs.train import Run, train
from topwork.recipe import HeadRecipe, Recipe, SplitRecipe
from topwork.runs.folder import FILES, REPORT, SPLITS
from topwork.runs.images import trained_on


def with_head(recipe: Recipe, kind: str, **settings: str) -> Recipe:
    return dataclasses.replace(recipe, head=HeadRecipe(kind=kind, **settings))


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / SPLITS).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def head_bytes(run: Run) -> bytes:
    return (run.path / HEAD).read_bytes()


class Listener:
    """Keeps the lines that are told while one waits."""

    def __init__(self) -> None:
        from topwork.progress import Silent

        self.lines: list[str] = []
        self.bar = Silent().bar
        self.download = Silent().download

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_run_is_whole(run: Run, recipe: Recipe) -> None:
    assert {p.name for p in run.path.iterdir()} == set(FILES)
    assert Recipe.load(run.path / "recipe.toml") == recipe
    assert run.splits == {"train": 48, "validation": 0, "test": 12}
    assert run.test is not None
    assert run.test.accuracy > 0.8  # three plain shapes; a guess gives 0.33
    assert run.test.n == 12
    assert run.problems == ()
    assert run.seconds["total"] >= max(v for name, v in run.seconds.items() if name != "total")


def test_every_image_stands_in_the_list_once(run: Run, shapes: Path) -> None:
    listed = rows_of(run.path)
    assert list(listed[0]) == ["id", "split", "label", "prediction", "probability", "sha256", "group"]
    assert [row["id"] for row in listed] == [e.id for e in load(shapes)]
    for row in listed:
        assert row["label"] == row["id"].split("/")[0]
        assert row["prediction"] in SHAPES
        assert 1 / 3 <= float(row["probability"]) <= 1
        assert row["sha256"] == hashlib.sha256((shapes / row["id"]).read_bytes()).hexdigest()
    test = [row for row in listed if row["split"] == "test"]
    assert [sum(row["label"] == label for row in test) for label in SHAPES] == [4, 4, 4]
    right = sum(row["label"] == row["prediction"] for row in test)
    assert right / len(test) == run.test.accuracy
    learned = {bytes.fromhex(row["sha256"]) for row in listed if row["split"] == "train"}
    assert trained_on(run.path) == learned
    assert len(learned) == 48


def test_the_list_agrees_with_what_the_classifier_predicts(run: Run, shapes: Path) -> None:
    predictions = list(Classifier.load(run.path).predict(shapes))
    for row, prediction in zip(rows_of(run.path), predictions, strict=True):
        ((name, probability),) = prediction.top()
        assert row["prediction"] == name
        assert float(row["probability"]) == pytest.approx(probability, abs=1e-5)


def test_a_loaded_classifier_scores_itself_as_the_run_was_scored(run: Run, shapes: Path) -> None:
    tested = {row["id"] for row in rows_of(run.path) if row["split"] == "test"}
    found = Classifier.load(run.path).evaluate(load(shapes).filter(lambda e: e.id in tested))
    assert found.accuracy == run.test.accuracy
    assert found.log_loss == pytest.approx(run.test.log_loss, rel=1e-4)
    others = Dataset((dataclasses.replace(load(shapes)[0], label="other"),), ("other",), "others")
    with pytest.raises(InputError, match="expected the classifier's classes"):
        Classifier.load(run.path).evaluate(others)


def test_the_report(run: Run, shapes: Path) -> None:
    report = json.loads((run.path / REPORT).read_text(encoding="utf-8"))
    assert report["data"] == str(shapes)
    assert report["splits"] == run.splits
    assert report["test"] == run.test.to_dict()
    assert report["held_out"] == "5-fold cross-validation"
    assert {c["features"] for c in report["candidates"]} == {"last", "stages"}
    assert report["left_out"] == []


def test_the_same_again_is_the_same_bit_for_bit(
    run: Run, shapes: Path, recipe: Recipe, tmp_path: Path
) -> None:
    again = train(str(shapes), tmp_path / "again", recipe=recipe)
    assert again.computed == 0
    assert head_bytes(again) == head_bytes(run)
    for name in (SPLITS, "model.bin", "recipe.toml"):
        assert (again.path / name).read_bytes() == (run.path / name).read_bytes()
    assert again.test == run.test


@pytest.mark.parametrize("kind", ["linear", "mlp", "centroid"])
def test_the_test_images_are_not_looked_at(kind: str, shapes: Path, recipe: Recipe, tmp_path: Path) -> None:
    """With every test label wrong, the head is the same, and only its score is another."""
    recipe = with_head(recipe, kind)
    first = train(shapes, tmp_path / "first", recipe=recipe)
    part = {row["id"]: row["split"] for row in rows_of(first.path)}
    following = dict(zip(SHAPES, (*SHAPES[1:], SHAPES[0]), strict=True))
    given = [dataclasses.replace(e, split=part[e.id]) for e in load(shapes)]
    wrong = [dataclasses.replace(e, label=following[e.label]) if e.split == "test" else e for e in given]
    heads, accuracies = [], []
    for name, examples in (("given", given), ("wrong", wrong)):
        run = train(Dataset(tuple(examples), SHAPES, name), tmp_path / name, recipe=recipe)
        heads.append(head_bytes(run))
        accuracies.append(run.test.accuracy)
    assert heads[0] == heads[1] == head_bytes(first)
    assert accuracies[0] == first.test.accuracy > 0.6
    assert accuracies[1] < 0.4


def test_given_splits_are_honoured(recipe: Recipe, tmp_path: Path) -> None:
    for number, (name, count) in enumerate({"train": 10, "val": 4, "test": 3}.items()):
        write_shapes(tmp_path / "photos" / name, count, first=100 * number)
    run = train(tmp_path / "photos", tmp_path / "run", recipe=recipe)
    assert run.splits == {"train": 30, "validation": 12, "test": 9}
    for row in rows_of(run.path):
        assert row["id"].split("/")[0] == {"validation": "val"}.get(row["split"], row["split"])
    assert run.fitted.held_out == "the validation images"
    assert len(trained_on(run.path)) == 42


def test_a_share_for_validation(shapes: Path, recipe: Recipe, tmp_path: Path) -> None:
    recipe = dataclasses.replace(recipe, split=SplitRecipe(test=0.2, validation=0.25))
    run = train(shapes, tmp_path / "run", recipe=recipe)
    assert run.splits == {"train": 33, "validation": 15, "test": 12}
    assert run.fitted.held_out == "the validation images"


def test_without_a_test_there_is_no_score(shapes: Path, recipe: Recipe, tmp_path: Path) -> None:
    recipe = dataclasses.replace(recipe, split=SplitRecipe(test=0.0))
    run = train(shapes, tmp_path / "run", recipe=recipe)
    assert run.test is None
    assert json.loads((run.path / REPORT).read_text(encoding="utf-8"))["test"] is None


def test_mlp_tells_every_ten_steps_and_writes_curves(shapes: Path, recipe: Recipe, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    listener = Listener()
    run = train(shapes, tmp_path / "run", recipe=with_head(recipe, "mlp"), watch=listener)
    steps = [line.split() for line in listener.lines if line.startswith("step")]
    epochs = [line for line in listener.lines if line.startswith("epoch")]
    assert [int(words[1]) for words in steps] == list(range(10, 10 * len(steps) + 1, 10))
    assert steps
    assert epochs
    assert steps[0][2::2] == ["loss", "accuracy"]
    curves = {}
    for name in ("train", "validation"):
        events = EventAccumulator(str(run.path / "tensorboard" / name))
        events.Reload()
        assert sorted(events.Tags()["scalars"]) == ["accuracy", "loss"]
        curves[name] = events.Scalars("loss")
    assert [event.step for event in curves["train"]] == [int(words[1]) for words in steps]
    assert [f"{event.value:.4f}" for event in curves["train"]] == [words[3] for words in steps]
    assert len(curves["validation"]) == len(epochs)
    assert run.test.accuracy > 0.6


@pytest.mark.parametrize("count", [1, 2, 3])
def test_centroid_learns_from_a_handful(count: int, recipe: Recipe, tmp_path: Path) -> None:
    write_shapes(tmp_path / "photos", count)
    run = train(tmp_path / "photos", tmp_path / "run", recipe=with_head(recipe, "centroid"))
    assert sum(run.splits.values()) == 3 * count
    assert run.splits["train"] >= 3
    if count < 3:  # a fifth of 2 rounds to none
        assert run.test is None


def test_too_few_images_to_choose_by(recipe: Recipe, tmp_path: Path) -> None:
    write_shapes(tmp_path / "photos", 1)
    for kind in ("linear", "mlp"):
        with pytest.raises(InputError) as told:
            train(tmp_path / "photos", tmp_path / "run", recipe=with_head(recipe, kind))
        assert str(told.value) == (
            "expected at least 4 training images to choose settings by cross-validation; got 3: add photos, or "
            "use --head centroid, which has no settings"
        )


def test_weights_matter(shapes: Path, recipe: Recipe, tmp_path: Path) -> None:
    recipe = dataclasses.replace(with_head(recipe, "centroid"), split=SplitRecipe(test=0.0))
    few = load(shapes).select([0, 1, 2, 20, 21, 22, 40, 41, 42])
    heavy = [dataclasses.replace(e, weight=2.0) if i % 3 == 0 else e for i, e in enumerate(few)]
    runs = [
        train(Dataset(tuple(examples), SHAPES, name), tmp_path / name, recipe=recipe)
        for name, examples in {"plain": list(few), "heavy": heavy}.items()
    ]
    assert head_bytes(runs[0]) != head_bytes(runs[1])
    linear = dataclasses.replace(recipe, head=HeadRecipe())
    weighted = [dataclasses.replace(e, weight=0.1 if e.label == "circle" else 1.0) for e in load(shapes)]
    light = train(Dataset(tuple(weighted), SHAPES, "light"), tmp_path / "light", recipe=linear)
    plain = train(shapes, tmp_path / "even", recipe=linear)
    assert head_bytes(light) != head_bytes(plain)


def test_balanced_classes_weigh_the_same(shapes: Path, recipe: Recipe, tmp_path: Path) -> None:
    """With balanced classes, a constant factor on one class's weights changes nothing."""
    uneven = load(shapes).filter(lambda e: e.label != "circle" or e.id < "circle/008.png")
    heads = []
    for name, factor in (("one", 1.0), ("four", 4.0)):
        examples = (dataclasses.replace(e, weight=factor if e.label == "circle" else 1.0) for e in uneven)
        dataset = Dataset(tuple(examples), SHAPES, name)
        settings = with_head(recipe, "linear", class_weight="balanced", features="last")
        settings = dataclasses.replace(settings, split=SplitRecipe(test=0.0))
        heads.append(train(dataset, tmp_path / name, recipe=settings).classifier.head)
    np.testing.assert_allclose(heads[0].layers[0].weight, heads[1].layers[0].weight, atol=1e-4)


def test_wrong_splits_are_told_before_the_work(
    shapes: Path, recipe: Recipe, tmp_path: Path, cache: Path
) -> None:
    photos = load(shapes)
    only_train = Dataset(tuple(dataclasses.replace(e, split="train") for e in photos), SHAPES, "mine")
    with pytest.raises(InputError, match=r"have no test part"):
        train(only_train, tmp_path / "run", recipe=recipe)
    with pytest.raises(InputError, match=r"`test` must be a fraction from 0 to below 1; got 1.5"):
        train(photos, tmp_path / "run", recipe=dataclasses.replace(recipe, split=SplitRecipe(test=1.5)))
    assert not cache.exists()
    assert not (tmp_path / "run").exists()


def test_images_left_out_are_counted_and_listed(recipe: Recipe, tmp_path: Path) -> None:
    photos = write_shapes(tmp_path / "photos", 6)
    (photos / "circle" / "bad.jpg").write_bytes(b"no picture")
    (photos / "circle" / "notes.txt").write_bytes(b"text")
    run = train(photos, tmp_path / "run", recipe=recipe)
    assert [p.id for p in run.problems] == ["circle/notes.txt", "circle/bad.jpg"]
    report = json.loads((run.path / REPORT).read_text(encoding="utf-8"))
    assert [p["id"] for p in report["left_out"]] == ["circle/notes.txt", "circle/bad.jpg"]
    assert all(p["reason"] for p in report["left_out"])
    assert sum(run.splits.values()) == 18
    with pytest.raises(InputError, match=r"circle/bad.jpg: .*; mend or remove it, or run without --strict"):
        train(photos, tmp_path / "strict", recipe=dataclasses.replace(recipe, strict=True))


def test_a_class_of_which_nothing_can_be_read(recipe: Recipe, tmp_path: Path) -> None:
    photos = write_shapes(tmp_path / "photos", 4)
    (photos / "void").mkdir()
    (photos / "void" / "bad.jpg").write_bytes(b"no picture")
    for kind in ("linear", "mlp", "centroid"):
        with pytest.raises(InputError) as told:
            train(photos, tmp_path / "run", recipe=with_head(recipe, kind))
        assert str(told.value) == (
            f"{photos}: expected training images of every class; 'void' has none that can be read: add some, or "
            "leave the class out"
        )


def test_what_was_learned_from_needs_the_list(run: Run, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"expected a folder that `topwork train` wrote; it has no splits.csv"
    ):
        trained_on(tmp_path)
    (tmp_path / SPLITS).write_text("id,split\na,train\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"it can't be read \('label'\); copy the complete run folder"):
        trained_on(tmp_path)


def test_names_beyond_ascii(recipe: Recipe, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for label, name in zip(SHAPES, ("Käse, alt", '"猫"', "a b"), strict=True):
        (photos / name).mkdir(parents=True)
        for number in range(5):
            shape(label, number).save(photos / name / f"ü{number}, x.png")
    run = train(photos, tmp_path / "run", recipe=recipe)
    assert {row["label"] for row in rows_of(run.path)} == {"Käse, alt", '"猫"', "a b"}
    assert Classifier.load(run.path).classes == ('"猫"', "Käse, alt", "a b")


def test_one_more_photo_computes_one(recipe: Recipe, tmp_path: Path, cache: Path) -> None:
    photos = write_shapes(tmp_path / "photos", 5)
    assert train(photos, tmp_path / "one", recipe=recipe).computed == 15
    write_noise(photos / "circle", 1)
    assert train(photos, tmp_path / "two", recipe=recipe).computed == 1
    assert cache.is_dir()


def test_what_an_earlier_version_stored_is_said_once(
    shapes: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "cache"))
    with Store.open("01d0" * 16, 11_520, about="efficientnet-lite0 at 224 px, f32") as old:
        old.put([(bytes(32), np.ones(11_520))])
    kept = old.path.read_bytes()
    told = []
    for name in ("first", "second"):
        watch = Listener()
        train(shapes, tmp_path / name, recipe=recipe, watch=watch)
        told.append([line for line in watch.lines if "earlier version" in line])
    assert len(told[0]) == 1
    assert "topwork cache clear" in told[0][0]
    assert str(tmp_path / "cache" / "features") in told[0][0]
    assert told[1] == []
    assert old.path.read_bytes() == kept
    # Measurements are float32 still: they are no features of an earlier version.
    old.path.unlink()
    (
        tmp_path
        / "cache"
        / "features"
        / f"{Classifier.load(tmp_path / 'first').backbone.facts.fingerprint}.sqlite"
    ).unlink()
    alone = dataclasses.replace(recipe, split=dataclasses.replace(recipe.split, copies=False))
    watch = Listener()
    train(shapes, tmp_path / "third", recipe=alone, watch=watch)
    assert not any("earlier version" in line for line in watch.lines)
