"""The training and validation images of a tuning."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.classifiers.classifier import Classifier
from topwork.classifiers.score import targets_for
from topwork.data.dataset import Dataset
from topwork.data.groups import group_numbers
from topwork.data.split import Splits, folds, split
from topwork.errors import InputError
from topwork.graphs import features as graphs
from topwork.heads.fit import sample_weights
from topwork.recipe import Recipe
from topwork.tuning.inputs import Source

if TYPE_CHECKING:
    import openvino as ov

    from topwork.features.extract import Features

Array = np.ndarray[Any, Any]
FOLDS = 5  # of the training images, for solving the initial head


@dataclass(frozen=True, slots=True, eq=False)
class TuningData:
    """The training and validation rows of a source, with their targets and weights."""

    source: Source
    learn: Array  # rows to train on
    held: Array  # validation rows
    targets: Array  # of all rows, int64 (N,)
    weights: Array  # of all rows, float (N,); 1 on average over the training rows
    folds: Array  # int64 (N,): the head's fold of each training row; a group lies in one fold
    class_count: int
    images: str  # SHA-256 (hex) of all rows' images

    def one_hot(self, rows: Array) -> Array:
        return np.eye(self.class_count, dtype=np.float32)[self.targets[rows]]


def tuning_data(
    source: Source, learn: Dataset, held: Dataset, *, features: Features, frozen: Classifier, recipe: Recipe
) -> TuningData:
    """The `TuningData` of two datasets, whose concatenated images are the rows of `source`.

    Raises:
        InputError: the classifier doesn't have an image's class.
    """
    both = learn.concatenate(held)
    rows, count = np.arange(len(both)), len(learn)
    weights = np.concatenate([_weights(part, frozen, recipe) for part in (learn, held)])
    units = max(group_numbers(learn)) + 1
    fold = np.zeros(len(both), np.int64)
    if units > 1:
        fold[:count] = folds(learn, min(FOLDS, units), seed=recipe.split.seed)
    return TuningData(
        source=source,
        learn=rows[:count],
        held=rows[count:],
        targets=targets_for(frozen, both),
        weights=weights / weights[:count].mean(),
        folds=fold,
        class_count=len(frozen.classes),
        images=hashlib.sha256(b"".join(features.part(both).keys)).hexdigest(),
    )


def held_apart(splits: Splits, recipe: Recipe) -> tuple[Dataset, Dataset]:
    """The training and validation images; without a validation part, some training images are held out.

    Raises:
        InputError: there are too few training images to hold any out.
    """
    train = splits.train.with_split(None)
    if len(splits.validation):
        return train, splits.validation.with_split(None)
    parts = split(train, test=recipe.finetune.validation, seed=recipe.split.seed)
    if not len(parts.test):
        raise InputError(
            f"{train.name}: expected some images of each class to hold out for validation; {len(train)} training "
            "images leave none: add photos, or keep the frozen network (--finetune head)"
        )
    return parts.train, parts.test


def digest_of(graph: ov.Model, data: TuningData, recipe: Recipe) -> str:
    """SHA-256 (hex) of everything the outcome depends on: graph, images, labels, weights, settings."""
    total = hashlib.sha256(graphs.digest(graph).encode())
    settings = dataclasses.asdict(
        Recipe.from_toml(recipe.to_toml())
    )  # through TOML, so that 100 minutes equal 100.0
    total.update(json.dumps(settings, sort_keys=True).encode())
    total.update(data.images.encode())
    for array in (data.learn, data.held, data.targets, data.weights, data.folds):
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _weights(part: Dataset, frozen: Classifier, recipe: Recipe) -> Array:
    """The weight of each image, as when fitting a head: its own and, if balanced, its class's."""
    balanced = recipe.head.class_weight == "balanced"
    return sample_weights(targets_for(frozen, part), part.weights(), len(frozen.classes), balanced=balanced)
