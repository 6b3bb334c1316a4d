"""Labels and probabilities → `Evaluation`: how good a classifier is, and how sure that number is.

NumPy only. No model, image or file is seen here, so every classifier is judged by the same code.
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

SUM_TOLERANCE = 1e-3  # how far from 1 a row of probabilities may sum: half-precision softmax stays within


@dataclass(frozen=True, slots=True)
class Baseline:
    """The accuracy of always answering one class: what a classifier has to beat."""

    name: str
    accuracy: float


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """How a classifier did on `n` labelled images. Shares are in 0..1, intervals 95 %.

    `weighted_accuracy` is None unless the images' weights differ; its interval is Wilson's for
    `effective_n` images (Kish). `top_k` maps k to the share of images whose class is among the k most
    probable. `confusion` is int64 (K, K), read-only: rows are true classes, columns predicted ones.
    `log_loss` is in nats. `calibration_error` is the expected calibration error over `calibration`.
    `auroc` takes the second class as positive; None unless there are two classes, both present.
    """

    n: int
    accuracy: float
    interval: Interval
    weighted_accuracy: float | None
    weighted_interval: Interval | None
    effective_n: float | None
    baseline: Baseline
    balanced_accuracy: float
    macro_f1: float
    top_k: Mapping[int, float]
    per_class: tuple[ClassScore, ...]
    confusion: Ints
    log_loss: float
    brier: float
    calibration_error: float
    calibration: tuple[CalibrationBin, ...]
    auroc: float | None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of `confusion`."""
        return tuple(score.name for score in self.per_class)

    def __eq__(self, other: object) -> bool:
        # The generated one would ask an array for its truth.
        return self.to_dict() == other.to_dict() if isinstance(other, Evaluation) else NotImplemented

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers, for JSON; what is undefined is None, never NaN."""
        out: dict[str, Any] = _plain(self)
        return out

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """The inverse of `to_dict`, also after a trip through JSON; unknown keys are ignored.

        Raises:
            InputError: a key is missing, or a value is not of its kind.
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
    """Scores probabilities against labels.

    The predicted class is the most probable one; of equally probable ones, the first in `classes`.
    Balanced accuracy is the mean recall of the classes that are present. Precision of a class that is
    never predicted is 0; macro F1 is the mean over the classes present or predicted. All three are
    scikit-learn's rules, with `zero_division=0`.

    Args:
        targets: int (N,), each image's class as a number in 0..K-1.
        probabilities: float (N, K), rows sum to 1.
        classes: the K class names; with two, the second is the positive one for `auroc`.
        weights: float (N,), positive: how much each image counts in `weighted_accuracy`.
        majority: the class that the baseline always answers, best the training set's most frequent;
            without it, the most frequent one in `targets`.
        top_k: gives `Evaluation.top_k` for 3, 5 and this k, as far as they are below K and at most this.

    Raises:
        InputError: there is nothing to evaluate, or an argument is not as described.

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
    predicted = p.argmax(axis=1)  # (N,); the first of equals
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
    if (w != w[0]).any():  # equal weights would only repeat the plain accuracy
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
        raise InputError(f"`classes` must be distinct; {twice[0]!r} is there twice")
    return names


def _checked(y: npt.NDArray[Any], p: npt.NDArray[Any], names: tuple[str, ...]) -> tuple[Ints, Floats]:
    K = len(names)
    if y.size == 0:
        raise InputError("nothing to evaluate: there are no images")
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise InputError(f"`targets` must be class numbers, int (N,); got {y.dtype} {y.shape}")
    if p.dtype.kind not in "fiu" or p.shape != (len(y), K):
        raise InputError(
            f"`probabilities` must be float {(len(y), K)}: a row for each of {len(y)} targets, a column for "
            f"each of {K} classes; got {p.dtype} {p.shape}"
        )
    unlabelled = np.flatnonzero(y == -1)
    if len(unlabelled):
        raise InputError(
            f"evaluating needs labelled images; {len(unlabelled)} of {len(y)} have no label "
            f"(target -1), the first at position {unlabelled[0]}: leave them out"
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
            "give the softmax's output, not the logits"
        )
    return y.astype(np.int64), p


def _checked_weights(w: npt.NDArray[Any], n: int) -> Floats:
    if w.dtype.kind not in "fiu" or w.shape != (n,):
        raise InputError(f"`weights` must be float {(n,)}, one for each target; got {w.dtype} {w.shape}")
    w = w.astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(w) & (w > 0)))
    if len(bad):
        raise InputError(f"`weights` must be positive and finite; got {w[bad[0]]:.6g} at position {bad[0]}")
    w /= w.max()  # only ratios matter, and so neither sums nor squares overflow
    return w
