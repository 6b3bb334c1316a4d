"""Nearest class mean: a head for a handful of images per class.

A class is the mean of its images' features; an image is assigned to the class with the nearest mean (Mensink
et al. 2013, "Distance-based image classification"; with a softmax over the distances, Snell et al. 2017,
"Prototypical networks", https://arxiv.org/abs/1703.05175). Only the scales could overfit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topwork.errors import InputError
from topwork.heads.head import Head, Layer, check_samples, fit_temperature

# Weight, in images, of the prior that all features have the same variance: with a handful of images, a feature's
# own variance is mostly noise. (Smyth 2004, "moderated" variances.)
PRIOR_IMAGES = 10.0

# With one image per class, no image can be left out for calibration. Then the scale is set such that an image at its
# own class's mean, with the others at the average distance between classes, gets this probability.
SURE = 0.9


def fit_centroid(
    x: ArrayLike, targets: ArrayLike, *, class_count: int, weights: ArrayLike | None = None
) -> Head:
    """Fit class means to features `x` float (N, D) and `targets` int (N,); one image per class is enough.

    Features are divided by their standard deviation within classes, shrunk towards the mean over all features
    (with one image per class, they are not scaled). `weights` (N,), at least 0, are the images' weights. The logits
    are negative squared distances times a scale, which is calibrated by leaving each image out of its own class's
    mean; the temperature stays 1.

    Raises:
        InputError: inputs that do not fit together, or a class without an image.

    >>> head = fit_centroid([[0.0, 1.0], [1.0, 0.0]], [0, 1], class_count=2)
    >>> head.probabilities([[0.0, 1.0], [0.5, 0.5]])[:, 0].round(2).tolist()
    [0.8999999761581421, 0.5]
    """
    rows = np.asarray(x, dtype=np.float64)
    truth, sample = check_samples(rows, targets, weights, class_count=class_count)
    mass = np.bincount(truth, sample, class_count).astype(np.float64)  # (K,)
    if not mass.all():
        missing = ", ".join(map(str, np.flatnonzero(mass == 0)[:8]))
        raise InputError(
            f"expected at least one image of every class; no image has index {missing} "
            f"(of 0..{class_count - 1}): add images or leave the class out"
        )
    centre = sample @ rows / sample.sum()  # (D,)
    rows = rows - centre
    means = np.zeros((class_count, rows.shape[1]))
    np.add.at(means, truth, rows * sample[:, None])
    means /= mass[:, None]

    variance = _shrunk_variance(rows - means[truth], sample, class_count)  # (D,)
    deviation = np.sqrt(variance)
    scale = _scale(rows / deviation, means / deviation, truth, sample, mass)
    # -s |(x - m) - d|² / v, with d a class's mean from the centre m, is by expansion
    # 2 s (x - m)·d / v - s d·d / v - s |x - m|² / v. The last term is the same for all classes, so the
    # softmax does not see it, and the rest is affine in x: one layer.
    weight = 2 * scale * (means / variance).T  # (D, K)
    bias = -scale * (means**2 / variance).sum(axis=1) - centre @ weight  # (K,)
    return Head("centroid", (Layer(weight.astype(np.float32), bias.astype(np.float32)),))


def _shrunk_variance(
    residuals: NDArray[np.float64], sample: NDArray[np.float64], class_count: int
) -> NDArray[np.float64]:
    """Each feature's variance within classes, (D,), shrunk to the mean over features; ones if unknown."""
    freedom = np.count_nonzero(sample) - class_count
    if freedom <= 0:
        return np.ones(residuals.shape[1])
    # Weighted, but with as many degrees of freedom as there are images: weights are relative here.
    own = (sample / sample[sample > 0].mean()) @ residuals**2 / freedom
    common = float(own.mean())
    if not common > 0:  # only copies of the same image in each class
        return np.ones(residuals.shape[1])
    return np.asarray((freedom * own + PRIOR_IMAGES * common) / (freedom + PRIOR_IMAGES))


def _scale(
    rows: NDArray[np.float64],
    means: NDArray[np.float64],
    truth: NDArray[np.int64],
    sample: NDArray[np.float64],
    mass: NDArray[np.float64],
) -> float:
    """The factor of the squared distances, by leave-one-out on the class means."""
    squared = _squared_distances(rows, means)  # (N, K)
    # Without image i, of weight w, its class's mean is (S mean - w x) / (S - w), S being the class's
    # weight: x - that = (x - mean) S / (S - w). So leaving one out stretches the distance to its own class.
    rest = mass[truth] - sample
    held = np.flatnonzero((rest > 1e-9 * mass[truth]) & (sample > 0))
    between = _squared_distances(means, means)
    if len(held) == 0 or len(means) < 2:
        typical = between.sum() / max(between.size - len(means), 1)
        return math.log(SURE / (1 - SURE) * max(len(means) - 1, 1)) / typical if typical > 0 else 1.0
    own = truth[held]
    squared = squared[held]
    squared[np.arange(len(held)), own] *= (mass[own] / rest[held]) ** 2
    # In units of the typical gap between two classes' distances, so that the optimum is within the search range.
    gaps = np.abs(squared - squared[np.arange(len(held)), own][:, None])
    unit = gaps.sum() / (gaps.size - len(held))
    if not unit > 0:
        return 1.0
    # Smoothed by Laplace's rule: five correct images don't make the sixth certain.
    temperature = fit_temperature(-squared / unit, own, sample[held], smoothing=1 / (len(held) + 2))
    return float(1 / (unit * temperature))


def _squared_distances(rows: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """|row - mean|² for every pair, (N, K), by one matrix product."""
    squared = (rows**2).sum(axis=1)[:, None] - 2 * rows @ means.T + (means**2).sum(axis=1)
    return np.asarray(np.maximum(squared, 0))
