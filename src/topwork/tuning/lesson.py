"""What a tuning learns from, and apart from it what it chooses by."""

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
FOLDS = 5  # of the images to learn from, for the head that a tuning begins with


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What is learnt from: rows of `source` to learn from and, apart, to choose by.

    `targets` int64 (N,) and `weights` float (N,) are of all rows; weights of those to learn from are 1 on average.
    `folds` int64 (N,): of the rows to learn from, which of the head's folds they are in: what belongs together is in
    one. `images`: SHA-256 (hex) of all rows' images.
    """

    source: Source
    learn: Array
    held: Array
    targets: Array
    weights: Array
    folds: Array
    class_count: int
    images: str

    def one_hot(self, rows: Array) -> Array:
        return np.eye(self.class_count, dtype=np.float32)[self.targets[rows]]


def lesson_of(
    source: Source, learn: Dataset, held: Dataset, *, features: Features, frozen: Classifier, recipe: Recipe
) -> Lesson:
    """The lesson of two data sets, whose images are the rows of `source`, one after the other.

    Raises:
        InputError: an image's class is none of the classifier's.
    """
    both = learn.concatenate(held)
    rows, count = np.arange(len(both)), len(learn)
    weights = np.concatenate([_weights(part, frozen, recipe) for part in (learn, held)])
    units = max(group_numbers(learn)) + 1
    fold = np.zeros(len(both), np.int64)
    if units > 1:
        fold[:count] = folds(learn, min(FOLDS, units), seed=recipe.split.seed)
    return Lesson(
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
    """The images to learn from and those to choose by: the validation part, or some of the training images.

    Raises:
        InputError: the training images leave none to choose by.
    """
    train = splits.train.with_split(None)
    if len(splits.validation):
        return train, splits.validation.with_split(None)
    parts = split(train, test=recipe.finetune.validation, seed=recipe.split.seed)
    if not len(parts.test):
        raise InputError(
            f"{train.name}: expected some images of each class to choose by while tuning; {len(train)} training "
            "images leave none: add photos, or keep the frozen network (--finetune head)"
        )
    return parts.train, parts.test


def digest_of(graph: ov.Model, lesson: Lesson, recipe: Recipe) -> str:
    """SHA-256 (hex) of all that the outcome depends on: the graph, the images, their labels and weights, settings."""
    total = hashlib.sha256(graphs.digest(graph).encode())
    settings = dataclasses.asdict(
        Recipe.from_toml(recipe.to_toml())
    )  # 100 minutes are 100.0, as a file has it
    total.update(json.dumps(settings, sort_keys=True).encode())
    total.update(lesson.images.encode())
    for array in (lesson.learn, lesson.held, lesson.targets, lesson.weights, lesson.folds):
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _weights(part: Dataset, frozen: Classifier, recipe: Recipe) -> Array:
    """How much each image counts, as in fitting a head: by its own weight, and by its class's if so asked."""
    balanced = recipe.head.class_weight == "balanced"
    return sample_weights(targets_for(frozen, part), part.weights(), len(frozen.classes), balanced=balanced)
