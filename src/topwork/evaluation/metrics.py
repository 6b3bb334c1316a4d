"""The measures behind an evaluation: pure functions of NumPy arrays, one for each number.

They trust their arrays: `topwork.evaluation.evaluate.evaluate` checks what a user gives.
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
    """int64 (K, K): how many images of class (row) were called class (column)."""
    flat = np.bincount(targets * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class. `n` is its images; `recall` and its 95 % Wilson `interval` are None if there are none.

    `precision` is 0 for a class that is never predicted; `f1` is None for one neither present nor predicted.
    """

    name: str
    n: int
    precision: float
    recall: float | None
    f1: float | None
    interval: Interval | None


def class_score(name: str, i: int, confusion: Ints) -> ClassScore:
    """The scores of class number `i`, from the confusion matrix."""
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
    """int64 (N,): the place of the true class, 0 the most probable; ties go to the lower class number."""
    truth = probabilities[np.arange(len(targets)), targets][:, None]  # (N, 1)
    tied_before = (probabilities == truth) & (np.arange(probabilities.shape[1]) < targets[:, None])
    ranks: Ints = ((probabilities > truth) | tied_before).sum(axis=1)
    return ranks


def log_loss(targets: Ints, probabilities: Floats) -> float:
    """Mean -ln(probability of the true class), in nats; a probability counts as at least 2.2e-16.

    That floor is the float64 epsilon, as in scikit-learn's `log_loss`.
    """
    eps = np.finfo(np.float64).eps
    truth = probabilities[np.arange(len(targets)), targets]
    return float(-np.log(np.clip(truth, eps, 1 - eps)).mean())


def brier(targets: Ints, probabilities: Floats) -> float:
    """Mean squared distance between probabilities and truth, summed over classes: 0 best, 2 worst.

    As defined by Brier, "Verification of forecasts expressed in terms of probability", 1950; for two
    classes it is twice the value of the one-class definition.
    """
    truth = probabilities[np.arange(len(targets)), targets]
    # Σ(p - y)² = Σp² - 2 p_true + 1, without building the one-hot (N, K) of y
    return float(((probabilities**2).sum(axis=1) - 2 * truth + 1).mean())


def auroc(positive: Bools, scores: Floats) -> float | None:
    """The chance that a positive image scores above a negative one, ties counting half.

    None unless both kinds are there. Computed from mid-ranks (the Mann-Whitney statistic).
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
    """The images whose top probability lies in (low, high]: a point of the reliability diagram.

    `confidence` is their mean top probability and `accuracy` the share that was right; None if `n` is 0.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


def calibration_bins(correct: Bools, confidence: Floats, count: int = 15) -> tuple[CalibrationBin, ...]:
    """`count` equal-width bins (low, high] over 0..1, empty ones included."""
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
    """Mean |accuracy - confidence| over bins, weighted by their images, in 0..1.

    Follows Guo et al., "On calibration of modern neural networks", 2017.
    """
    gaps = [
        b.n * abs(b.accuracy - b.confidence)
        for b in bins
        if b.accuracy is not None and b.confidence is not None
    ]
    return math.fsum(gaps) / sum(b.n for b in bins)
