"""Evaluate a classifier from labels and probabilities: metrics with confidence intervals.

NumPy only. This module doesn't use models, images or files, so every classifier is evaluated by the same code.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from topwork.errors import InputError, one_of
from topwork.evaluation.metrics import (
    CalibrationBin,
    ClassScore,
    Floats,
    Ints,
    auroc,
    brier,
    calibration_bins,
    class_score,
    confusion_matrix,
    expected_calibration_error,
    log_loss,
    ranks_of_truth,
)
from topwork.evaluation.significance import Interval, PairedComparison, effective_size, mcnemar, wilson

__all__ = [
    "Baseline",
    "CalibrationBin",
    "ClassScore",
    "Evaluation",
    "Interval",
    "PairedComparison",
    "evaluate",
    "mcnemar",
    "wilson",
]

SUM_TOLERANCE = 1e-3  # allowed error of a row's sum; a softmax in half precision stays within it


@dataclass(frozen=True, slots=True)
class Baseline:
    """The accuracy of always predicting the same class, which a classifier must exceed."""

    name: str
    accuracy: float


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The results on `n` labelled images. Metrics are in 0..1 if not stated otherwise; intervals are at 95 %."""

    n: int
    accuracy: float
    interval: Interval  # of the accuracy (Wilson)
    weighted_accuracy: float | None  # None if all images have the same weight
    weighted_interval: Interval | None  # Wilson's for `effective_n` images
    effective_n: float | None  # effective sample size (Kish)
    baseline: Baseline
    balanced_accuracy: float
    macro_f1: float
    top_k: Mapping[int, float]  # k → share of images whose class is among the k most probable
    per_class: tuple[ClassScore, ...]
    confusion: Ints  # int64 (K, K), read-only; rows are true classes, columns predicted ones
    log_loss: float  # in nats
    brier: float  # 0 to 2
    calibration_error: float  # expected calibration error over `calibration`
    calibration: tuple[CalibrationBin, ...]
    auroc: float | None  # the second class is positive; None unless there are two classes, both present

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of `confusion`."""
        return tuple(score.name for score in self.per_class)

    def __eq__(self, other: object) -> bool:
        # The generated method would fail, because the truth value of an array is ambiguous.
        return self.to_dict() == other.to_dict() if isinstance(other, Evaluation) else NotImplemented

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers, for JSON. Undefined values are None, never NaN."""
        out: dict[str, Any] = _plain(self)
        return out

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """The inverse of `to_dict`, also for values loaded from JSON. Unknown keys are ignored.

        Raises:
            InputError: a key is missing, or a value has the wrong type.
        """
        try:
            parts = {field.name: values[field.name] for field in dataclasses.fields(cls)}
            confusion = np.array(parts["confusion"], dtype=np.int64)
            confusion.setflags(write=False)
            parts |= {
                "interval": Interval(*parts["interval"]),
                "weighted_interval": _interval(parts["weighted_interval"]),
                "baseline": Baseline(**parts["baseline"]),
                "top_k": {int(k): share for k, share in parts["top_k"].items()},
                "per_class": tuple(
                    ClassScore(**{**score, "interval": _interval(score["interval"])})
                    for score in parts["per_class"]
                ),
                "confusion": confusion,
                "calibration": tuple(CalibrationBin(**bin_) for bin_ in parts["calibration"]),
            }
        except KeyError as error:
            raise InputError(f"not a saved evaluation: it has no {error}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"not a saved evaluation: {error}") from error
        return cls(**parts)


def _interval(ends: Sequence[float] | None) -> Interval | None:
    return None if ends is None else Interval(*ends)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}  # JSON has no integer keys
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def evaluate(
    targets: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    classes: Sequence[str],
    weights: npt.ArrayLike | None = None,
    majority: str | None = None,
    top_k: int = 5,
) -> Evaluation:
    """Evaluate predicted probabilities against labels.

    The predicted class is the most probable one, or the first of these in `classes`. Balanced accuracy is the mean
    recall over the classes present in `targets`. The precision of a class that is never predicted is 0. Macro F1 is
    the mean over the classes that are present or predicted. These are scikit-learn's definitions with
    `zero_division=0`.

    Args:
        targets: int (N,), the index of each image's class, in 0..K-1.
        probabilities: float (N, K); rows sum to 1.
        classes: the K class names. For K = 2, the second is the positive class of `auroc`.
        weights: float (N,), positive: sample weights for `weighted_accuracy`.
        majority: the class that the baseline predicts, preferably the most frequent class of the training set.
            Default: the most frequent class in `targets`.
        top_k: the largest k in `Evaluation.top_k`, which has those of 3, 5 and `top_k` that are at most `top_k` and
            below K.

    Raises:
        InputError: there are no images, or an argument is invalid.

    >>> result = evaluate([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], classes=["cat", "dog"])
    >>> result.n, round(result.accuracy, 3), result.confusion.tolist()
    (3, 0.667, [[1, 0], [1, 1]])
    """
    names = _checked_classes(classes)
    y, p = _checked(np.asarray(targets), np.asarray(probabilities), names)
    w = _checked_weights(np.asarray(weights), len(y)) if weights is not None else np.ones(len(y))
    if not isinstance(top_k, int) or top_k < 1:
        raise InputError(f"`top_k` must be a positive int; got {top_k!r}")
    if majority is not None and majority not in names:
        raise InputError(one_of(majority, names, what="majority class"))

    n = len(y)
    predicted = p.argmax(axis=1)  # (N,); the first in case of ties
    correct = predicted == y
    confusion = confusion_matrix(y, predicted, len(names))
    confusion.setflags(write=False)
    per_class = tuple(class_score(name, i, confusion) for i, name in enumerate(names))
    counts = confusion.sum(axis=1)
    most = names.index(majority) if majority is not None else int(counts.argmax())
    ranks = ranks_of_truth(y, p)
    ks = [k for k in sorted({3, 5, top_k}) if 1 < k <= top_k and k < len(names)]
    bins = calibration_bins(correct, p.max(axis=1))

    weighted_accuracy, weighted_interval, effective_n = None, None, None
    if (w != w[0]).any():  # with equal weights, it would equal the accuracy
        effective_n = effective_size(w)
        weighted_accuracy = min(1.0, float(np.average(correct, weights=w)))
        weighted_interval = wilson(weighted_accuracy * effective_n, effective_n)

    return Evaluation(
        n=n,
        accuracy=int(correct.sum()) / n,
        interval=wilson(int(correct.sum()), n),
        weighted_accuracy=weighted_accuracy,
        weighted_interval=weighted_interval,
        effective_n=effective_n,
        baseline=Baseline(names[most], int(counts[most]) / n),
        balanced_accuracy=_mean([s.recall for s in per_class]),
        macro_f1=_mean([s.f1 for s in per_class]),
        top_k={k: int((ranks < k).sum()) / n for k in ks},
        per_class=per_class,
        confusion=confusion,
        log_loss=log_loss(y, p),
        brier=brier(y, p),
        calibration_error=expected_calibration_error(bins),
        calibration=bins,
        auroc=auroc(y == 1, p[:, 1]) if len(names) == 2 else None,
    )


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def _checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    names = tuple(classes)
    if len(names) < 2:
        raise InputError(f"`classes` must name at least two classes; got {list(names)}")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"`classes` must be distinct; got {twice[0]!r} twice")
    return names


def _checked(y: npt.NDArray[Any], p: npt.NDArray[Any], names: tuple[str, ...]) -> tuple[Ints, Floats]:
    K = len(names)
    if y.size == 0:
        raise InputError("nothing to evaluate: there are no images")
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise InputError(f"`targets` must be class numbers, int (N,); got {y.dtype} {y.shape}")
    if p.dtype.kind not in "fiu" or p.shape != (len(y), K):
        raise InputError(
            f"`probabilities` must be float {(len(y), K)}, a row for each of {len(y)} targets and a column for each "
            f"of {K} classes; got {p.dtype} {p.shape}"
        )
    unlabelled = np.flatnonzero(y == -1)
    if len(unlabelled):
        raise InputError(
            f"evaluation needs labelled images; {len(unlabelled)} of {len(y)} have no label (target -1), first at "
            f"position {unlabelled[0]}: leave them out"
        )
    outside = np.flatnonzero((y < 0) | (y >= K))
    if len(outside):
        i = outside[0]
        raise InputError(f"`targets` must lie in 0..{K - 1} ({K} classes); got {y[i]} at position {i}")
    p = p.astype(np.float64)
    bad = np.argwhere(~np.isfinite(p) | (p < 0))
    if len(bad):
        i, k = bad[0]
        raise InputError(
            f"`probabilities` must be finite and not negative; got {p[i, k]:.6g} at row {i}, "
            f"class {names[k]!r}"
        )
    sums = p.sum(axis=1)
    off = np.flatnonzero(abs(sums - 1) > SUM_TOLERANCE)
    if len(off):
        i = off[0]
        raise InputError(
            f"each row of `probabilities` must sum to 1; row {i} sums to {sums[i]:.6g}: "
            "pass the output of the softmax, not logits"
        )
    return y.astype(np.int64), p


def _checked_weights(w: npt.NDArray[Any], n: int) -> Floats:
    if w.dtype.kind not in "fiu" or w.shape != (n,):
        raise InputError(f"`weights` must be float {(n,)}, one for each target; got {w.dtype} {w.shape}")
    w = w.astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(w) & (w > 0)))
    if len(bad):
        raise InputError(f"`weights` must be positive and finite; got {w[bad[0]]:.6g} at position {bad[0]}")
    w /= w.max()  # only ratios matter; this keeps sums and squares from overflowing
    return w
