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

    A class's threshold is the mean probability that its own images give it. An image is counted for the most probable
    of the classes whose threshold it reaches: the paper's confident joint, of label and seeming class. Scaled to the
    number of images of each label, its entries off the diagonal say how many labels are wrong, and in which way; so
    many images of each kind, those with the largest `margin` (the other class's probability less the label's), are
    doubted: the paper's pruning by noise rate.

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
    counted = reached.max(axis=1) >= 0
    joint = np.zeros((k, k))
    np.add.at(joint, (targets[counted], reached[counted].argmax(axis=1)), 1)
    wrong = joint * (counts / np.maximum(joint.sum(axis=1), 1))[:, None]
    found: dict[int, Doubt] = {}
    for label, instead in zip(*np.nonzero(joint), strict=True):
        if label == instead:
            continue
        rows = np.flatnonzero(targets == label)
        margins = probabilities[rows, instead] - own[rows]
        best = np.argsort(-margins, kind="stable")[: round(wrong[label, instead])]
        for row, margin in zip(rows[best].tolist(), margins[best].tolist(), strict=True):
            if margin > 0 and (row not in found or margin > found[row].margin):
                found[row] = Doubt(row, int(instead), margin)
    return tuple(sorted(found.values(), key=lambda doubt: (-doubt.margin, doubt.row)))
