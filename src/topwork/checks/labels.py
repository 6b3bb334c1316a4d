"""Mislabelled images, by confident learning on out-of-fold probabilities.

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
    """A label that is probably wrong."""

    row: int
    instead: int  # the class that the image seems to have
    margin: float  # by how much more probable that class is, 0 to 1


def doubted_labels(targets: Array, probabilities: Array) -> tuple[Doubt, ...]:
    """The images that are probably mislabelled, by falling `margin`.

    A class's threshold is the mean probability that its own images give it. Each image is counted for the most
    probable class whose threshold it reaches, which gives the paper's confident joint of given label and likely
    class. Scaled to the number of images of each label, its off-diagonal entries estimate how many labels are wrong
    for each pair of classes. That many images of each pair, with the largest `margin` (the other class's probability
    minus the label's), are reported: the paper's pruning by noise rate.

    Args:
        targets: int64 (N,), the given labels, in 0..K-1.
        probabilities: float (N, K), of a head not trained on the image or a copy of it.
    """
    n, k = probabilities.shape
    own = probabilities[np.arange(n), targets]
    counts = np.bincount(targets, minlength=k)
    thresholds = np.bincount(targets, own, minlength=k) / np.maximum(counts, 1)
    thresholds[counts == 0] = np.inf  # no image counts for a class without images
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
