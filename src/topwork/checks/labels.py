"""Which labels are probably wrong: confident learning on probabilities of a head that had not seen the image.

Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021
(https://arxiv.org/abs/1911.00068).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Doubt:
    """The label of one row is doubted: `instead` is the class that it seems to be, `margin` by how much, 0 to 1."""

    row: int
    instead: int
    margin: float


def doubted_labels(targets: Array, probabilities: Array) -> tuple[Doubt, ...]:
    """The images whose label is probably wrong, the surest first.

    A class's threshold is the mean probability that its own images give it. An image is doubted where another class
    reaches its threshold, is the most probable of those that do, and is more probable than the label: the
    off-diagonal of the paper's confident joint. `margin` is that class's probability less the label's (the paper's
    normalised margin).

    Args:
        targets: int64 (N,), the labels as given, in 0..K-1.
        probabilities: float (N, K), of a head that did not learn from the image (nor from a copy of it).
    """
    n, k = probabilities.shape
    own = probabilities[np.arange(n), targets]
    counts = np.bincount(targets, minlength=k)
    thresholds = np.bincount(targets, own, minlength=k) / np.maximum(counts, 1)
    thresholds[counts == 0] = np.inf  # a class without images claims none
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    instead = reached.argmax(axis=1)
    margin = probabilities[np.arange(n), instead] - own
    rows = np.flatnonzero((reached.max(axis=1) >= 0) & (instead != targets) & (margin > 0))
    ordered = rows[np.argsort(-margin[rows], kind="stable")]
    return tuple(Doubt(int(row), int(instead[row]), float(margin[row])) for row in ordered)
