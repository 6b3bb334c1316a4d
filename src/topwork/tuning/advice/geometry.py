"""The geometry of classes in feature space: separation, and the classes of nearest neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def class_separation(x: Array, targets: Array) -> float:
    """The distance from a class's mean to the nearest other mean over the class's spread, averaged over classes.

    `x` float32 (N, D), `targets` int64 (N,). The spread is the root mean square distance of a class's images from
    their mean. The distance expected by chance is subtracted. Classes with a single image are ignored.
    """
    labels, counts = np.unique(targets, return_counts=True)
    labels, counts = labels[counts > 1], counts[counts > 1]
    if len(labels) < 2:
        return 0.0
    x = x - x.mean(axis=0)  # centred, so that the squares below lose fewer digits
    means = np.stack([x[targets == k].mean(axis=0) for k in labels]).astype(np.float64)
    squares = [
        float(((x[targets == k] - m) ** 2).sum()) / (c - 1)
        for k, m, c in zip(labels, means, counts, strict=True)
    ]
    spread = np.array(squares)  # unbiased variances, summed over the features
    chance = spread / counts
    norms = (means**2).sum(axis=1) - chance
    apart = np.maximum(norms[:, None] + norms[None] - 2 * means @ means.T, 0.0)
    np.fill_diagonal(apart, np.inf)
    known = spread > 0
    ratios = np.sqrt(apart.min(axis=1)[known] / spread[known])
    return float(ratios.mean()) if known.any() else 0.0


def neighbour_share(x: Array, targets: Array, groups: Array) -> float:
    """The share of images whose nearest neighbour by cosine has the same class, 0 to 1.

    `groups` int64 (N,): images of the same group are not neighbours: they may show the same object.
    """
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    right = 0
    for start in range(0, len(x), 512):
        likeness = unit[start : start + 512] @ unit.T
        likeness[groups[start : start + 512, None] == groups[None]] = -np.inf
        right += int((targets[likeness.argmax(axis=1)] == targets[start : start + 512]).sum())
    return right / len(x)
