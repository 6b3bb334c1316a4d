"""Out-of-distribution detection: the rule that says "none of these".

A head divides all of feature space among its classes and is overconfident far from the training pictures. So a
picture's distance is measured in feature space: the Mahalanobis distance to the nearest class centre in the
directions in which the training pictures vary most (Lee et al. 2018, "A simple unified framework for detecting
out-of-distribution samples", https://arxiv.org/abs/1807.03888), plus the part outside these directions (as in Wang
et al. 2022, "ViM: Out-of-distribution with virtual-logit matching", https://arxiv.org/abs/2203.10807).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from topwork.heads.design import Rows, in_blocks, strongest

AXES = 64  # directions in which distances are measured
IMAGES_AN_AXIS = 4  # fewest images for each
SHRINKAGE = 0.05  # of the covariance towards a multiple of the identity: Ledoit and Wolf 2004
LEAST = 20  # fewest images for a rule
REJECTED = 0.01  # share of in-distribution pictures that the rule wrongly rejects

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Novelty:
    """The rule: a picture with a `score` above 1 is "none of these"."""

    mean: Array  # float32 (D,)
    axes: Array  # (D, R), orthonormal
    whiten: Array  # (R, R)
    centres: Array  # of the classes, whitened, (K, R)
    outside: float  # the training images' mean square outside the axes
    threshold: float  # of the distance
    rate: float  # share of in-distribution pictures beyond the threshold, 0..1

    def distance(self, x: Array) -> Array:
        """The distance, float32 (N,), at least 0, of last-layer features, float32 (N, D)."""
        centred = prepared(x) - self.mean
        inside = centred @ self.axes  # (N, R)
        z = inside @ self.whiten
        near = (
            (z**2).sum(axis=1, keepdims=True) - 2 * z @ self.centres.T + (self.centres**2).sum(axis=1)
        ).min(axis=1)
        rest = np.maximum((centred**2).sum(axis=1) - (inside**2).sum(axis=1), 0)
        return np.asarray(np.maximum(near, 0) + rest / self.outside * self.axes.shape[1], np.float32)

    def score(self, x: Array) -> Array:
        """Distance / threshold, float32 (N,)."""
        return self.distance(x) / np.float32(self.threshold)


def fit_novelty(
    x: Rows, targets: Array, folds: Array, *, class_count: int, rate: float = REJECTED
) -> Novelty | None:
    """Fit the rule to the training images' features; None if there are too few.

    The threshold is the distance that a share `rate` of new in-distribution images will exceed: the
    ⌈(1 − rate)(n + 1)⌉-th of n out-of-fold distances, as in conformal prediction.

    Args:
        x: last-layer features, float32 (N, D), an array or stored rows; read twice, in blocks.
        targets: int64 (N,) in 0..K-1.
        folds: int64 (N,), each image's fold, with copies and groups in one fold.
        class_count: K.
        rate: the share of in-distribution pictures that may be rejected, above 0 and below 1.
    """
    if len(x) < LEAST:
        return None
    count = int(folds.max()) + 1
    sums = [_Sums.nothing(x[:1].shape[1], class_count) for _ in range(count)]
    for block, rows in in_blocks(lambda rows, _: prepared(rows), x):
        for fold in np.unique(folds[block]).tolist():
            inside = folds[block] == fold
            sums[fold].add(rows[inside], targets[block][inside])
    whole = _Sums.of(sums)
    if any(part.images == whole.images for part in sums):
        return None
    rule = _fitted(whole)
    without = [_fitted(whole.less(part), near=rule.axes) for part in sums]

    measured = np.empty(len(x), np.float32)

    def measure(rows: Array, block: slice) -> None:
        for fold in np.unique(folds[block]).tolist():
            inside = folds[block] == fold
            measured[block][inside] = without[fold].distance(rows[inside])

    for _ in in_blocks(measure, x):
        pass
    rank = min(len(x), math.ceil((1 - rate) * (len(x) + 1)))
    return replace(rule, threshold=float(np.sort(measured)[rank - 1]), rate=rate)


def novelty_beyond(
    x: Array, targets: Array, beyond: Array, *, class_count: int, rate: float = REJECTED
) -> Novelty | None:
    """The same rule with its threshold from held-out images, `beyond` float32 (M, D); None with too few images.

    For a network that was itself tuned on the training images.
    """
    if len(x) < LEAST or len(beyond) < LEAST or not rate > 0:
        return None
    sums = _Sums.nothing(x.shape[1], class_count)
    sums.add(prepared(x), targets)
    rule = _fitted(sums)
    measured = np.sort(rule.distance(beyond))
    threshold = float(measured[min(len(measured), math.ceil((1 - rate) * (len(measured) + 1))) - 1])
    return replace(rule, threshold=threshold, rate=rate)


def prepared(x: Array) -> Array:
    """Signed square roots of features, scaled to unit length, which dampens strong channels."""
    rooted = np.sign(x) * np.sqrt(np.abs(x))
    return np.asarray(rooted / np.maximum(np.linalg.norm(rooted, axis=1, keepdims=True), 1e-12), np.float32)


@dataclass(slots=True, eq=False)
class _Sums:
    """What the rule needs of some images' prepared features: it can be added up and taken away."""

    products: Array  # float64 (D, D)
    of_class: Array  # float64 (K, D)
    counts: Array  # int64 (K,)

    @property
    def images(self) -> int:
        return int(self.counts.sum())

    @classmethod
    def nothing(cls, width: int, class_count: int) -> _Sums:
        return cls(np.zeros((width, width)), np.zeros((class_count, width)), np.zeros(class_count, np.int64))

    @classmethod
    def of(cls, parts: Sequence[_Sums]) -> _Sums:
        return cls(
            np.add.reduce([part.products for part in parts]),
            np.add.reduce([part.of_class for part in parts]),
            np.add.reduce([part.counts for part in parts]),
        )

    def add(self, rows: Array, targets: Array) -> None:
        self.products += rows.T @ rows
        one_hot = np.zeros((len(self.counts), len(rows)), np.float32)
        one_hot[targets, np.arange(len(rows))] = 1
        self.of_class += one_hot @ rows
        self.counts += np.bincount(targets, minlength=len(self.counts))

    def less(self, part: _Sums) -> _Sums:
        return _Sums(self.products - part.products, self.of_class - part.of_class, self.counts - part.counts)


def _fitted(sums: _Sums, near: Array | None = None) -> Novelty:
    """The rule without a threshold; `near`: axes that its own are close to."""
    n, width = sums.images, sums.products.shape[0]
    mean = sums.of_class.sum(axis=0) / n
    covariance = sums.products / n - np.outer(mean, mean)
    count = max(1, min(AXES, n // IMAGES_AN_AXIS, width // 2))
    axes = strongest(covariance, count, near=near)
    inside = axes.T @ covariance @ axes
    some = sums.counts > 0
    centres = (sums.of_class[some] / sums.counts[some, None] - mean) @ axes
    within = inside - (centres * (sums.counts[some, None] / n)).T @ centres
    size = float(np.trace(within)) / len(within)
    within += (SHRINKAGE * size + 1e-12) * np.eye(len(within))
    whiten = np.linalg.cholesky(np.linalg.inv(within))
    outside = float(np.trace(covariance) - np.trace(inside))
    return Novelty(
        np.asarray(mean, np.float32),
        np.asarray(axes, np.float32),
        np.asarray(whiten, np.float32),
        np.asarray(centres @ whiten, np.float32),
        max(outside, 1e-9),
        1.0,
        0.0,
    )
