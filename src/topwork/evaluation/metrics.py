"""The metrics of an evaluation: pure functions of NumPy arrays.

They don't check their arguments; `topwork.evaluation.evaluate.evaluate` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from topwork.evaluation.significance import Interval, wilson

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def confusion_matrix(targets: Ints, predicted: Ints, classes: int) -> Ints:
    """int64 (K, K): the number of images by true class (row) and predicted class (column)."""
    flat = np.bincount(targets * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


@dataclass(frozen=True, slots=True)
class ClassScore:
    """The metrics of one class."""

    name: str
    n: int  # number of images
    precision: float  # 0 if the class is never predicted
    recall: float | None  # None without images
    f1: float | None  # None if the class is neither present nor predicted
    interval: Interval | None  # 95 % Wilson interval of the recall


def class_score(name: str, i: int, confusion: Ints) -> ClassScore:
    """The metrics of the class with index `i`."""
    hits, n, predicted = int(confusion[i, i]), int(confusion[i].sum()), int(confusion[:, i].sum())
    return ClassScore(
        name=name,
        n=n,
        precision=hits / predicted if predicted else 0.0,
        recall=hits / n if n else None,
        f1=2 * hits / (n + predicted) if n + predicted else None,
        interval=wilson(hits, n) if n else None,
    )


def ranks_of_truth(targets: Ints, probabilities: Floats) -> Ints:
    """int64 (N,): the rank of the true class, 0 for the most probable; ties are ordered by class index."""
    truth = probabilities[np.arange(len(targets)), targets][:, None]  # (N, 1)
    tied_before = (probabilities == truth) & (np.arange(probabilities.shape[1]) < targets[:, None])
    ranks: Ints = ((probabilities > truth) | tied_before).sum(axis=1)
    return ranks


def log_loss(targets: Ints, probabilities: Floats) -> float:
    """Mean -ln(probability of the true class), in nats.

    Probabilities are clipped at the epsilon of float64, 2.2e-16, as in scikit-learn's `log_loss`.
    """
    eps = np.finfo(np.float64).eps
    truth = probabilities[np.arange(len(targets)), targets]
    return float(-np.log(np.clip(truth, eps, 1 - eps)).mean())


def brier(targets: Ints, probabilities: Floats) -> float:
    """Mean squared difference between probabilities and one-hot labels, summed over classes: 0 (best) to 2 (worst).

    As defined by Brier, "Verification of forecasts expressed in terms of probability", 1950. For two classes, this is
    twice the value of the common binary definition.
    """
    truth = probabilities[np.arange(len(targets)), targets]
    # Σ(p - y)² = Σp² - 2 p_true + 1, without building the one-hot (N, K) of y
    return float(((probabilities**2).sum(axis=1) - 2 * truth + 1).mean())


def auroc(positive: Bools, scores: Floats) -> float | None:
    """The probability that a positive image scores higher than a negative one, with ties counted as one half.

    Computed from mid-ranks (the Mann-Whitney statistic). None unless there are both positive and negative images.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mid_ranks = np.cumsum(counts) - (counts - 1) / 2  # of each distinct score, from 1
    rank_sum = float(mid_ranks[place][positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The images whose top probability is in (low, high]: a point of the reliability diagram."""

    low: float
    high: float
    n: int
    confidence: float | None  # mean top probability; None if `n` is 0
    accuracy: float | None  # None if `n` is 0


def calibration_bins(correct: Bools, confidence: Floats, count: int = 15) -> tuple[CalibrationBin, ...]:
    """`count` bins (low, high] of equal width over 0..1, including empty ones."""
    edges = np.arange(count + 1) / count
    place = np.searchsorted(edges[1:-1], confidence, side="left")  # (N,), 0..count-1
    n = np.bincount(place, minlength=count)
    mean_confidence = np.bincount(place, weights=confidence, minlength=count) / np.maximum(n, 1)
    accuracy = np.bincount(place, weights=correct, minlength=count) / np.maximum(n, 1)
    return tuple(
        CalibrationBin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            n=int(n[i]),
            confidence=float(mean_confidence[i]) if n[i] else None,
            accuracy=float(accuracy[i]) if n[i] else None,
        )
        for i in range(count)
    )


def expected_calibration_error(bins: tuple[CalibrationBin, ...]) -> float:
    """Mean |accuracy - confidence| over bins, weighted by their number of images, in 0..1.

    Follows Guo et al., "On calibration of modern neural networks", 2017.
    """
    gaps = [
        b.n * abs(b.accuracy - b.confidence)
        for b in bins
        if b.accuracy is not None and b.confidence is not None
    ]
    return math.fsum(gaps) / sum(b.n for b in bins)
