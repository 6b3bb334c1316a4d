"""Frozen and tuned on the same images: what tuning gained, with its doubt, and what that cost."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from topwork.significance import Interval, mcnemar, paired_bootstrap

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accuracies in [0, 1] of the frozen (`before`) and the tuned (`after`) classifier on `n` images, weighted by
    the images' weights; `gain`, their difference, with a 95 % paired bootstrap `interval`; McNemar's exact p-value,
    unweighted. `kept`: whether the tuned one is.
    """

    n: int
    before: float
    after: float
    gain: float
    interval: Interval
    p_value: float
    seconds_before: float
    seconds_after: float
    kept: bool

    @property
    def sentence(self) -> str:
        """What a person reads."""
        low, high = (100 * end for end in self.interval)
        gain = f"{100 * self.gain:+.1f} points (95 % {low:.1f} to {high:.1f}, {self.n} test images)"
        times = self.seconds_after / self.seconds_before if self.seconds_before > 0 else None
        cost = f", {times:.0f} times the time" if times and times >= 2 else ""
        if self.kept:
            doubt = "" if low > 0 else "; so few images can't tell it from none"
            return f"{gain}{cost}: kept{doubt if self.gain > 0 else '; validation images saw a gain, these do not'}"
        return f"{gain}{cost}: not kept, the frozen classifier stays: validation images saw no gain"

    def to_dict(self) -> dict[str, Any]:
        plain = dataclasses.asdict(self)
        return plain | {"interval": list(self.interval), "sentence": self.sentence}


def judge(
    targets: Array,
    before: Array,
    after: Array,
    *,
    weights: Array | None = None,
    seconds_before: float,
    seconds_after: float,
    kept: bool,
    seed: int = 0,
) -> Verdict:
    """Compare two classifiers' probabilities, float (N, K), on the same images with classes `targets`, int64 (N,).

    `kept` was decided elsewhere, on other images: so that these, looked at once, owe nothing to the choice.
    """
    weights = np.ones(len(targets)) if weights is None else np.asarray(weights, np.float64)
    right = [p.argmax(axis=1) == targets for p in (before, after)]
    scores = [float(np.average(r, weights=weights)) for r in right]
    return Verdict(
        n=len(targets),
        before=scores[0],
        after=scores[1],
        gain=scores[1] - scores[0],
        interval=paired_bootstrap(right[0], right[1], weights=weights, seed=seed),
        p_value=mcnemar(right[1], right[0]).p_value,
        seconds_before=seconds_before,
        seconds_after=seconds_after,
        kept=kept,
    )
