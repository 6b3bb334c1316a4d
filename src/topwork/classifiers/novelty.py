"""Out-of-distribution detection: the rule that says "none of these".

A head divides all of feature space among its classes and is overconfident far from the training pictures. So a
picture's distance is measured in feature space: the Mahalanobis distance to the nearest class centre in the
directions in which the training pictures vary most (Lee et al. 2018, "A simple unified framework for detecting
out-of-distribution samples", https://arxiv.org/abs/1807.03888), plus the part outside these directions (as in Wang
et al. 2022, "ViM: Out-of-distribution with virtual-logit matching", https://arxiv.org/abs/2203.10807).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

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
    x: Array, targets: Array, folds: Array, *, class_count: int, rate: float = REJECTED
) -> Novelty | None:
    """Fit the rule to the training images' features; None if there are too few.

    The threshold is the distance that a share `rate` of new in-distribution images will exceed: the
    ⌈(1 − rate)(n + 1)⌉-th of n out-of-fold distances, as in conformal prediction.

    Args:
        x: last-layer features, float32 (N, D).
        targets: int64 (N,) in 0..K-1.
        folds: int64 (N,), each image's fold, with copies and groups in one fold.
        class_count: K.
        rate: the share of in-distribution pictures that may be rejected, above 0 and below 1.
    """
    if len(x) < LEAST:
        return None
    measured = np.empty(len(x), np.float32)
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        if held.all():
            return None
        rule = _fitted(x[~held], targets[~held], class_count)
        measured[held] = rule.distance(x[held])
    rank = min(len(x), math.ceil((1 - rate) * (len(x) + 1)))
    threshold = float(np.sort(measured)[rank - 1])
    rule = _fitted(x, targets, class_count)
    return Novelty(rule.mean, rule.axes, rule.whiten, rule.centres, rule.outside, threshold, rate)


def novelty_beyond(
    x: Array, targets: Array, beyond: Array, *, class_count: int, rate: float = REJECTED
) -> Novelty | None:
    """The same rule with its threshold from held-out images, `beyond` float32 (M, D); None with too few images.

    For a network that was itself tuned on the training images.
    """
    if len(x) < LEAST or len(beyond) < LEAST or not rate > 0:
        return None
    rule = _fitted(x, targets, class_count)
    measured = np.sort(rule.distance(beyond))
    threshold = float(measured[min(len(measured), math.ceil((1 - rate) * (len(measured) + 1))) - 1])
    return Novelty(rule.mean, rule.axes, rule.whiten, rule.centres, rule.outside, threshold, rate)


def prepared(x: Array) -> Array:
    """Signed square roots of features, scaled to unit length, which dampens strong channels."""
    rooted = np.sign(x) * np.sqrt(np.abs(x))
    return np.asarray(rooted / np.maximum(np.linalg.norm(rooted, axis=1, keepdims=True), 1e-12), np.float32)


def _fitted(x: Array, targets: Array, class_count: int) -> Novelty:
    rows = prepared(x)
    mean = rows.mean(axis=0)
    centred = rows - mean
    count = max(1, min(AXES, len(rows) // IMAGES_AN_AXIS, rows.shape[1] // 2))
    axes = _directions(centred, count)
    inside = centred @ axes
    counts = np.bincount(targets, minlength=class_count)
    sums = np.zeros((class_count, inside.shape[1]))
    np.add.at(sums, targets, inside)
    centres = (sums / np.maximum(counts, 1)[:, None])[counts > 0]
    place = np.cumsum(counts > 0) - 1
    within = inside - centres[place[targets]]
    covariance = within.T @ within / len(within)
    size = float(np.trace(covariance)) / len(covariance)
    covariance += (SHRINKAGE * size + 1e-12) * np.eye(len(covariance))
    whiten = np.linalg.cholesky(np.linalg.inv(covariance))
    outside = float((centred**2).sum() - (inside**2).sum()) / len(rows)
    return Novelty(
        mean,
        axes,
        np.asarray(whiten, np.float32),
        np.asarray(centres @ whiten, np.float32),
        max(outside, 1e-9),
        1.0,
        0.0,
    )


def _directions(centred: Array, count: int) -> Array:
    """The directions of largest variance, float32 (D, count), from the smaller of the two Gram matrices."""
    n, d = centred.shape
    if n <= d:
        _, vectors = np.linalg.eigh(centred @ centred.T)
        directions = centred.T @ vectors[:, -count:]
        return np.asarray(directions / np.maximum(np.linalg.norm(directions, axis=0), 1e-12), np.float32)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return np.asarray(vectors[:, -count:], np.float32)
