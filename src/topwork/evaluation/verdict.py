"""Compare a frozen and a fine-tuned classifier on the same images: the gain with its interval, and the cost."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from topwork.errors import InputError
from topwork.evaluation.significance import (
    Interval,
    effective_size,
    gains_of_groups,
    paired_bootstrap,
    sign_test,
)

Array = np.ndarray[Any, Any]

SIGNIFICANT = 0.05
FEWEST = 6  # least images gained, with none lost, for p < 0.05 in McNemar's exact test: 2 · 0.5⁶ = 0.03


@dataclass(frozen=True, slots=True)
class Verdict:
    """The effect of fine-tuning, measured on images that neither classifier was trained on."""

    n: int  # number of images
    before: float  # (weighted) accuracy of the frozen classifier, 0 to 1
    after: float  # (weighted) accuracy of the fine-tuned classifier, 0 to 1
    gain: float  # after - before
    interval: Interval  # 95 % interval of the gain: paired bootstrap over groups
    p_value: float  # of McNemar's exact test on groups, unweighted
    smallest: float  # about the smallest gain that would be significant; above 1: none would be
    seconds_before: float  # training time of the frozen classifier
    seconds_after: float  # training time of the fine-tuned classifier
    kept: bool  # whether the fine-tuned classifier is kept
    chosen_on: Literal[
        "test", "validation"
    ]  # the images that decided this: these ("test") or others ("validation")

    @property
    def clear(self) -> bool:
        """Whether the gain is significant: its interval is above 0, or it is positive and McNemar's p below 0.05."""
        return self.interval.low > 0 or (self.gain > 0 and self.p_value < SIGNIFICANT)

    @property
    def sentence(self) -> str:
        """The verdict as a sentence."""
        reason = self._by_these() if self.chosen_on == "test" else self._by_others()
        low, high = map(_points, self.interval)
        gain = f"{_points(self.gain):+.1f} points (95 % {low:.1f} to {high:.1f}, {self._images})"
        return f"{gain}{self._cost}: {reason}"

    def _by_these(self) -> str:
        if self.kept:
            return "kept" if self.interval.low > 0 else f"kept (McNemar's test: p = {self.p_value:.2g})"
        if self.interval.high < 0:
            return "worse, so the frozen classifier is kept"
        reason = "not significant" if _points(self.gain) > 0 else "no gain"
        return f"{reason}, so the frozen classifier is kept ({self._power})"

    def _by_others(self) -> str:
        if self.kept:
            if self.gain <= 0:
                return "kept; the validation images show a gain, the test images do not"
            return "kept" if self.clear else f"kept; not significant on the test images ({self._power})"
        these = ", but the test images do" if self.clear else ""
        return f"not kept: the validation images show no clear gain{these}"

    @property
    def _images(self) -> str:
        kind = "test image" if self.chosen_on == "validation" else "image"
        return f"{self.n} {kind}{'' if self.n == 1 else 's'}"

    @property
    def _power(self) -> str:
        if self.smallest > 1:
            return "with so few images, no gain would be significant"
        return f"gains above about {_points(self.smallest):.1f} points would be significant"

    @property
    def _cost(self) -> str:
        if self.seconds_before <= 0:
            return ""
        times = self.seconds_after / self.seconds_before
        shown = f"{times:.0f}" if times >= 9.95 else f"{round(times, 1):g}"
        return f", {shown} times the time" if times >= 1.05 else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, including the sentence."""
        plain = dataclasses.asdict(self)
        return plain | {"interval": list(self.interval), "sentence": self.sentence}


def _points(share: float) -> float:
    return round(100 * share, 1) + 0.0  # never "-0.0"


def judge(
    targets: Array,
    before: Array,
    after: Array,
    *,
    weights: Array | None = None,
    groups: Array | None = None,
    seconds_before: float,
    seconds_after: float,
    kept: bool | None = None,
    seed: int = 0,
) -> Verdict:
    """Compare a frozen and a fine-tuned classifier on the same images.

    If several classes are equally probable, the first is the prediction, as in `evaluation.evaluate`.

    Args:
        targets: int (N,), the index of each image's class, in 0..K-1.
        before: float (N, K), the frozen classifier's probabilities.
        after: float (N, K), the fine-tuned classifier's probabilities.
        weights: float (N,), positive: sample weights; None for equal weights.
        groups: int (N,), each image's group; a group counts as one. None if each image is independent.
        seconds_before: training time of the frozen classifier.
        seconds_after: training time of the fine-tuned classifier.
        kept: whether the fine-tuned classifier is kept, if that was decided on other images. None: keep it if these
            images show a significant gain (`Verdict.clear`).
        seed: of the bootstrap.

    Raises:
        InputError: there are no images, or an argument is invalid.

    >>> targets, wrong, right = np.zeros(40, int), np.array([[0.4, 0.6]] * 40), np.array([[0.9, 0.1]] * 40)
    >>> print(judge(targets, wrong, right, seconds_before=10, seconds_after=140).sentence)
    +100.0 points (95 % 100.0 to 100.0, 40 images), 14 times the time: kept
    """
    y = np.asarray(targets)
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise InputError(f"`targets` must be class numbers, int (N,); got {y.dtype} {y.shape}")
    tables = {"before": np.asarray(before), "after": np.asarray(after)}
    for name, p in tables.items():
        if p.dtype.kind != "f" or p.ndim != 2 or p.shape != (len(y), tables["before"].shape[1]):
            raise InputError(
                f"`{name}` must be float (N, K), a row for each of {len(y)} targets, the same K in both; "
                f"got {p.dtype} {p.shape}"
            )
    was, now = (p.argmax(axis=1) == y for p in tables.values())
    interval = paired_bootstrap(was, now, weights=weights, groups=groups, seed=seed)  # checks both
    w = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    w = w / w.max()  # only ratios matter; this keeps sums from overflowing
    won = now.astype(np.int64) - was
    _, weighed = gains_of_groups(won, w, groups)
    gains, _ = gains_of_groups(won, np.ones(len(y)), groups)  # exact integers, for their signs
    accuracy = [float(np.average(right, weights=w)) for right in (was, now)]
    gain = float(np.average(won, weights=w))
    verdict = Verdict(
        n=len(y),
        before=accuracy[0],
        after=accuracy[1],
        gain=gain,
        interval=interval,
        p_value=sign_test(gains),
        smallest=max(gain - interval.low, FEWEST / effective_size(weighed)),
        seconds_before=seconds_before,
        seconds_after=seconds_after,
        kept=bool(kept),
        chosen_on="test" if kept is None else "validation",
    )
    return dataclasses.replace(verdict, kept=verdict.clear) if kept is None else verdict
