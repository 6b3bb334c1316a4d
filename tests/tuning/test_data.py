"""What a tuning learns from and is judged by: weights, folds, its digest; and how sure a difference must be."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from topwork import load
from topwork.backbones.backbone import Backbone
from topwork.classifiers.classifier import Classifier
from topwork.data.dataset import Dataset
from topwork.data.split import Splits
from topwork.features.extract import Features, extract, open_store
from topwork.heads.head import Head, Layer
from topwork.images.framing import Framing
from topwork.recipe import FinetuneRecipe, Recipe
from topwork.tuning.data import FOLDS, TuningData, digest_of, held_apart, tuning_data
from topwork.tuning.inputs import Pictures
from topwork.tuning.start import LossReduction, temperature_of

LABELS = ("circle", "square", "stripes")


@pytest.fixture(scope="module")
def features(shapes: Path, backbone: Backbone) -> Features:
    """Three neighbours in the list are a group, and weigh the same."""
    examples = [
        dataclasses.replace(e, group=f"g{i // 3}", weight=1e-3 * (1 + i // 3 % 4), split="train")
        for i, e in enumerate(load(shapes))
    ]
    with open_store(backbone.facts) as store:
        return extract(Dataset(tuple(examples), LABELS, "shapes"), backbone, store=store)


@pytest.fixture(scope="module")
def data(features: Features, backbone: Backbone) -> TuningData:
    return made(features, backbone, Recipe())


def made(features: Features, backbone: Backbone, recipe: Recipe) -> TuningData:
    none = features.dataset.select([])
    learn, held = held_apart(Splits(features.dataset, none, none), recipe)
    source = Pictures(learn.concatenate(held), 32, Framing("stretch"), FinetuneRecipe().augment, 0)
    layer = Layer(np.zeros((4, 3), np.float32), np.zeros(3, np.float32))
    frozen = Classifier(LABELS, backbone, ("last",), Head("linear", (layer,), 1.0))
    return tuning_data(source, learn, held, features=features, frozen=frozen, recipe=recipe)


def test_weights_to_learn_by_are_1_on_average(data: TuningData) -> None:
    weights = data.weights[data.learn]
    assert weights.mean() == pytest.approx(1)
    assert len(set(np.round(weights / weights.min(), 6))) == 4


def test_what_belongs_together_is_in_one_fold_and_on_one_side(data: TuningData, features: Features) -> None:
    assert isinstance(data.source, Pictures)
    groups = np.array([e.group for e in data.source.dataset])
    assert not set(groups[data.learn]) & set(groups[data.held])
    for group in set(groups[data.learn]):
        assert len(set(data.folds[data.learn][groups[data.learn] == group])) == 1
    assert len(set(data.folds[data.learn])) == FOLDS
    assert len(data.learn) + len(data.held) == len(features.dataset)


def test_the_digest_knows_images_and_settings(
    data: TuningData, features: Features, backbone: Backbone
) -> None:
    whole, half = (Recipe(finetune=FinetuneRecipe(minutes=m)) for m in (100, 100.5))
    as_text = Recipe.from_toml(whole.to_toml())
    assert digest_of(backbone.graph, data, whole) == digest_of(backbone.graph, data, as_text)
    assert digest_of(backbone.graph, data, whole) != digest_of(backbone.graph, data, half)
    swapped = dataclasses.replace(
        features, keys=(features.keys[3], *features.keys[1:3], features.keys[0], *features.keys[4:])
    )
    others = made(swapped, backbone, whole)
    np.testing.assert_array_equal(others.targets, data.targets)
    assert digest_of(backbone.graph, data, whole) != digest_of(backbone.graph, others, whole)


def test_one_image_that_differs_is_no_proof() -> None:
    logits = np.tile([[4.0, 0.0]], (200, 1))
    better = logits.copy()
    better[0, 0] += 2
    zeros, ones = np.zeros(200, np.int64), np.ones(200)
    saved = LossReduction.of(logits, better, zeros, ones)
    assert saved.loss > 0
    assert saved.error == pytest.approx(saved.loss)
    alone = LossReduction.of(logits[:1], better[:1], zeros[:1], ones[:1])
    assert (alone.error, alone.clear) == (math.inf, False)
    better[:] += [2, 0]
    assert LossReduction.of(logits, better, zeros, ones).clear


def test_the_error_is_the_standard_error_of_a_mean() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 50, 3))
    targets = random.integers(0, 3, 50)
    each = [np.log(np.exp(z).sum(1)) - z[np.arange(50), targets] for z in (a, b)]
    differences = each[0] - each[1]
    saved = LossReduction.of(a, b, targets, np.full(50, 0.3))
    assert saved.loss == pytest.approx(differences.mean())
    assert saved.error == pytest.approx(differences.std(ddof=1) / np.sqrt(50))


def test_copies_of_an_image_in_one_group_are_no_more_sure_than_it_is() -> None:
    random = np.random.default_rng(1)
    a, b = random.normal(size=(2, 40, 3))
    targets, weights = random.integers(0, 3, 40), random.random(40) + 0.1
    once = LossReduction.of(a, b, targets, weights)
    often = [np.repeat(values, 4, axis=0) for values in (a, b, targets, weights)]
    grouped = LossReduction.of(*often, np.repeat(np.arange(40), 4))
    assert (grouped.loss, grouped.error) == (pytest.approx(once.loss), pytest.approx(once.error))
    assert LossReduction.of(*often).error < 0.55 * once.error
    assert LossReduction.of(a, b, targets, weights, np.zeros(40, int)).error == math.inf


def test_a_few_that_are_all_right_do_not_make_it_certain() -> None:
    logits = np.tile([[2.0, 0.0]], (60, 1))
    assert temperature_of(logits, np.zeros(60, np.int64), np.ones(60)) > 0.3
