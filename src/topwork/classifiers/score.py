"""Score a classifier on labelled images with extracted features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from topwork.data.dataset import Dataset, Problem
from topwork.errors import InputError
from topwork.evaluation.evaluate import Evaluation, evaluate
from topwork.features.extract import Features, Matrix
from topwork.heads.design import in_blocks


class Scorable(Protocol):
    """What is needed of a classifier to score it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names."""

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks of features that it uses."""

    def probabilities(self, features: Matrix, /) -> Matrix:
        """float32 (N, K), of these features, float32 (N, D)."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """An evaluation with the images' features and the classifier's probabilities (N, K)."""

    evaluation: Evaluation
    features: Features
    probabilities: Matrix
    problems: tuple[Problem, ...]


def score(
    classifier: Scorable,
    features: Features,
    *,
    majority: str | None = None,
    probabilities: Matrix | None = None,
) -> Scored:
    """Evaluate a classifier on labelled images; each is scored exactly once.

    Args:
        classifier: the classifier.
        features: of the images.
        majority: the class that a classifier without features would always predict.
        probabilities: those of `probabilities_of`, where they are known.

    Raises:
        InputError: an image has no label, or one that is not among the classifier's classes.
    """
    targets = targets_for(classifier, features.dataset)
    if probabilities is None:
        probabilities = probabilities_of(classifier, features)
    evaluation = evaluate(
        targets,
        probabilities,
        classes=classifier.classes,
        weights=features.dataset.weights(),
        majority=majority,
    )
    return Scored(evaluation, features, probabilities, features.problems)


def probabilities_of(
    classifier: Scorable, features: Features, progress: Callable[[int], None] = lambda done: None
) -> Matrix:
    """The classifier's probabilities for images with features, float32 (N, K), read in blocks."""
    found = np.empty((len(features.keys), len(classifier.classes)), np.float32)
    for block, part in in_blocks(lambda x, _: classifier.probabilities(x), features.rows(classifier.blocks)):
        found[block] = part
        progress(len(part))
    return found


def targets_for(classifier: Scorable, dataset: Dataset) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Each image's class as an index into the classifier's classes, int64 (N,)."""
    place = {name: i for i, name in enumerate(classifier.classes)}
    for example in dataset:
        if example.label not in place:
            what = f"the class {example.label!r}" if example.label is not None else "no label"
            raise InputError(
                f"{dataset.name}: expected the classifier's classes ({', '.join(classifier.classes)}); "
                f"{example.id} has {what}; rename the folder or column, or train with it"
            )
    return np.array([place[example.label] for example in dataset if example.label is not None], np.int64)
