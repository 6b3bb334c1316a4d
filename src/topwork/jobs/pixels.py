"""Which pixel values a network wants, where nothing states it: the user's own labels tell.

A network that gets other values than it was trained with still gives features, only worse ones. So some training
photos are tried with every range, by cross-validated heads on the last layer, and the assumed range gives way to
another that is clearly better on the same photos.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from topwork.backbones.backbone import LAST, Backbone, backbone_from
from topwork.data.dataset import Dataset
from topwork.data.split import splits_of
from topwork.evaluation.significance import mcnemar
from topwork.features.extract import extract, open_store
from topwork.heads.linear import fit_linear
from topwork.progress import Watch
from topwork.recipe import PixelRange, Recipe

Bools = np.ndarray[Any, np.dtype[np.bool_]]

PHOTOS, FEWEST = 240, 40  # at most and at least; fewer tell nothing
CLEARLY = 0.01  # the p-value from which on one range is better than another
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Tried:
    """One range, and which of the photos its head got right when they were held out."""

    backbone: Backbone
    right: Bools

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())


def with_fitting_pixels(backbone: Backbone, dataset: Dataset, recipe: Recipe, watch: Watch) -> Backbone:
    """The backbone with the range of pixels that fits these photos; itself where its range is not merely assumed.

    The photos are of the training part, as far as it is known before copies are looked for.
    """
    if not backbone.pixels_assumed:
        return backbone
    photos = _some_of(dataset, recipe)
    if len(photos) < FEWEST or len({example.label for example in photos}) < 2:
        return backbone
    ranges: tuple[PixelRange, ...] = get_args(PixelRange)
    with watch.bar("pixel ranges", len(ranges) * len(photos)) as progress:
        tried = [_tried(backbone, name, photos, recipe, progress) for name in ranges]
    assumed = next(one for one in tried if one.backbone.facts.pixels == backbone.facts.pixels)
    best = max(tried, key=lambda one: one.accuracy)
    told = ", ".join(f"{one.backbone.facts.pixels} {100 * one.accuracy:.1f} %" for one in tried)
    if best is not assumed and mcnemar(best.right, assumed.right).p_value < CLEARLY:
        watch.say(
            f"pixels {best.backbone.facts.pixels} are taken: they fit better than the usual "
            f"{backbone.facts.pixels} (cross-validated on {len(photos)} photos: {told})"
        )
        return best.backbone
    watch.say(f"no other pixels fit it clearly better (cross-validated on {len(photos)} photos: {told})")
    return backbone


def _some_of(dataset: Dataset, recipe: Recipe) -> Dataset:
    """Up to `PHOTOS` of the training photos, as many of each class as there are; always the same ones."""
    wanted = recipe.split
    train = splits_of(dataset, test=wanted.test, validation=wanted.validation, seed=wanted.seed).train
    by_class: dict[str, list[str]] = defaultdict(list)
    for example in sorted(train, key=lambda example: example.id):
        by_class[str(example.label)].append(example.id)
    share = max(2, PHOTOS // max(1, len(by_class)))
    chosen: set[str] = set()
    for label in sorted(by_class):
        chosen.update(random.Random(label).sample(by_class[label], min(share, len(by_class[label]))))
    return train.filter(lambda example: example.id in chosen)


def _tried(backbone: Backbone, name: PixelRange, photos: Dataset, recipe: Recipe, progress: Any) -> Tried:
    if name != backbone.facts.pixels:
        backbone = backbone_from(replace(recipe.backbone, pixels=name))
    with open_store(backbone.facts) as store:
        features = extract(photos, backbone, store=store, progress=progress)
        x = np.asarray(features.rows((LAST,))[:], np.float32)
    labels = [str(example.label) for example in features.dataset]
    targets = np.searchsorted(sorted(set(labels)), labels)
    folds = np.empty(len(targets), np.int64)
    for label in range(targets.max() + 1):
        folds[targets == label] = np.arange((targets == label).sum()) % FOLDS
    fit = fit_linear(x, targets, class_count=int(targets.max()) + 1, folds=folds)
    return Tried(backbone, fit.held_out_logits.argmax(1) == targets)
