"""Confidence intervals for proportions, and paired tests of two classifiers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from topwork.errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]

DRAWN_AT_ONCE = 1_000_000  # random numbers in memory at a time
KIND_COST = 20  # a multinomial draw takes about this many times as long per kind as an integer draw per image


class Interval(NamedTuple):
    """A closed confidence interval."""

    low: float
    high: float


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion, within 0..1; also suitable for 0 of n and n of n.

    Counts may be fractional, for instance the effective size of a weighted sample.
    Follows Wilson, "Probable inference, the law of succession, and statistical inference", 1927.

    Raises:
        InputError: `n` is not positive, `successes` is not in 0..n, or `confidence` is not between 0 and 1.

    >>> low, high = wilson(8, 10)
    >>> round(low, 4), round(high, 4)
    (0.4902, 0.9433)
    """
    if not (n > 0 and math.isfinite(n)):
        raise InputError(f"`n` must be a positive number; got {n}")
    if not 0 <= successes <= n:
        raise InputError(f"`successes` must be in 0..{n} (`n`); got {successes}")
    z = _normal_quantile(confidence)
    p = successes / n
    shrink = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2) / shrink
    # At p = 0 and p = 1 one end is exactly p; with rounding errors it could be outside 0..1.
    return Interval(0.0 if p == 0 else max(0.0, centre - half), 1.0 if p == 1 else min(1.0, centre + half))


def _normal_quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"`confidence` must lie between 0 and 1, such as 0.95; got {confidence}")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Two classifiers A and B compared on the same images.

    The p-value is exact and the interval approximate, so they may disagree close to the threshold of significance.
    """

    n: int  # number of images
    only_a: int  # images that only A classifies correctly
    only_b: int  # images that only B classifies correctly
    p_value: float
    difference: float  # A's accuracy minus B's
    interval: Interval  # of the difference


def mcnemar(
    correct_a: Bools, correct_b: Bools, confidence: float = 0.95, *, groups: Ints | None = None
) -> PairedComparison:
    """Compare two classifiers on the same images: McNemar's exact test and an interval for the difference.

    The p-value is that of a two-sided binomial test: if both classifiers were equally good, each image that only one
    of them classifies correctly would be A's or B's with equal probability (McNemar, "Note on the sampling error of
    the difference between correlated proportions or percentages", 1947). The interval is method 10 of Newcombe,
    "Improved confidence intervals for the difference between binomial proportions based on paired data", 1998, which
    combines the Wilson intervals of both accuracies with their correlation. If groups have several images, the test
    counts groups instead of images, and the interval is extended to include that of `paired_bootstrap`.

    Args:
        correct_a: bool (N,), whether A is correct on each image.
        correct_b: bool (N,), the same for B, on the same images in the same order.
        confidence: of the interval, between 0 and 1.
        groups: int (N,), each image's group; a group counts as one. None if each image is independent.

    Raises:
        InputError: the results are not boolean vectors of the same length, or are empty, or `groups` is invalid.

    >>> result = mcnemar(np.array([True, True, True, False]), np.array([True, False, False, False]))
    >>> result.only_a, result.only_b, result.p_value, result.difference
    (2, 0, 0.5, 0.5)
    """
    a, b = _checked_pair(correct_a=correct_a, correct_b=correct_b)
    n, both = len(a), int((a & b).sum())
    only_a, only_b = int(a.sum()) - both, int(b.sum()) - both
    gains, _ = gains_of_groups(a.astype(np.int64) - b, np.ones(n), groups)
    interval = _newcombe(both, only_a, only_b, n - both - only_a - only_b, confidence)
    if len(gains) < n:
        drawn = paired_bootstrap(b, a, groups=groups, confidence=confidence)
        interval = Interval(min(interval.low, drawn.low), max(interval.high, drawn.high))
    return PairedComparison(
        n=n,
        only_a=only_a,
        only_b=only_b,
        p_value=sign_test(gains),
        difference=(only_a - only_b) / n,
        interval=interval,
    )


def _checked_pair(**pair: Bools) -> tuple[Bools, Bools]:
    for name, values in pair.items():
        values = np.asarray(values)
        if values.dtype != np.bool_ or values.ndim != 1:
            raise InputError(f"`{name}` must be bool (N,); got {values.dtype} {values.shape}")
    a, b = map(np.asarray, pair.values())
    if len(a) != len(b):
        raise InputError(
            f"a paired comparison needs the same images for both; got {len(a)} and {len(b)} results"
        )
    if len(a) == 0:
        raise InputError("nothing to compare: there are no images")
    return a, b


def sign_test(gains: Floats) -> float:
    """Two-sided p-value of the sign test on `gains`, float (G,); zeros are ignored."""
    better, worse = int((gains > 0).sum()), int((gains < 0).sum())
    return _binomial(min(better, worse), better + worse)


def _binomial(fewer: int, n: int) -> float:
    """min(1, 2 P(X <= fewer)) for X ~ Binomial(n, 1/2)."""
    # Starting with the largest term, P(X = fewer), each term is the previous one times i / (n - i + 1). This avoids
    # powers and factorials, which would overflow for many images.
    i = np.arange(fewer, 0, -1)
    terms = 1 + float(np.cumprod(i / (n - i + 1)).sum())
    log_largest = math.lgamma(n + 1) - math.lgamma(fewer + 1) - math.lgamma(n - fewer + 1) - n * math.log(2)
    return min(1.0, 2 * math.exp(log_largest) * terms)


def _newcombe(both: int, only_a: int, only_b: int, neither: int, confidence: float) -> Interval:
    n = both + only_a + only_b + neither
    right_a, right_b = both + only_a, both + only_b
    p_a, p_b = right_a / n, right_b / n
    interval_a, interval_b = wilson(right_a, n, confidence), wilson(right_b, n, confidence)
    # The correlation phi of the two outcomes. A positive numerator is reduced by n / 2, at most to 0 (Newcombe's
    # correction); phi is 0 if one of the two is always right or always wrong.
    numerator = float(both * neither - only_a * only_b)
    if numerator > 0:
        numerator = max(numerator - n / 2, 0.0)
    product = right_a * (n - right_a) * right_b * (n - right_b)
    phi = numerator / math.sqrt(product) if product else 0.0

    def joined(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    difference = (only_a - only_b) / n
    below = joined(p_a - interval_a.low, interval_b.high - p_b)
    above = joined(interval_a.high - p_a, p_b - interval_b.low)
    return Interval(max(-1.0, difference - below), min(1.0, difference + above))


def effective_size(weights: Floats) -> float:
    """The effective sample size (Kish 1965): (Σw)² / Σw², in 1..N."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def paired_bootstrap(
    before_correct: Bools,
    after_correct: Bools,
    *,
    weights: Floats | None = None,
    groups: Ints | None = None,
    confidence: float = 0.95,
    samples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Paired bootstrap interval for a gain: the (weighted) accuracy after minus before.

    Each image is resampled with its weight, both outcomes and its whole group, because pictures of the same object
    tend to be right or wrong together (Field and Welsh 2007, "Bootstrapping clustered data"). The ends of the
    interval are percentiles: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13. For few
    images the interval is too narrow (if no outcome differs, both ends are 0); use `mcnemar` for them.

    Args:
        before_correct: bool (N,), whether the first classifier is correct on each image.
        after_correct: bool (N,), the same for the second, on the same images in the same order.
        weights: float (N,), positive: sample weights; None for equal weights.
        groups: int (N,), each image's group; None if each image is independent.
        confidence: of the interval, between 0 and 1.
        samples: the number of bootstrap samples.
        seed: of the random numbers.

    Raises:
        InputError: the outcomes are not boolean vectors of the same length, or are empty, or another argument is
            invalid.

    >>> before, after = np.arange(100) < 70, np.arange(100) < 78
    >>> low, high = paired_bootstrap(before, after)
    >>> 0 < low < 0.08 < high
    True
    """
    before, after = _checked_pair(before_correct=before_correct, after_correct=after_correct)
    if not 0 < confidence < 1:
        raise InputError(f"`confidence` must lie between 0 and 1, such as 0.95; got {confidence}")
    if samples < 1:
        raise InputError(f"`samples` must be a positive int; got {samples}")
    n = len(before)
    w = np.ones(n) if weights is None else _checked_weights(np.asarray(weights), n)
    gain, total = gains_of_groups(after.astype(np.int64) - before, w, groups)
    # Groups with the same weight and gain are equivalent, and the number of each such kind in a sample is
    # multinomial. If there are few kinds, that is faster to draw than each group.
    kinds, counts = np.unique(np.stack([total, gain], axis=1), axis=0, return_counts=True)
    n = len(gain)
    few = len(kinds) * KIND_COST <= n
    if few:
        total, gain = kinds.T
    random = np.random.default_rng(seed)
    found = np.empty(samples)
    at_once = max(1, DRAWN_AT_ONCE // len(gain))
    for start in range(0, samples, at_once):
        count = min(at_once, samples - start)
        if few:
            drawn = random.multinomial(n, counts / n, size=count)  # (count, kinds)
            gains, totals = drawn @ gain, drawn @ total
        else:
            rows = random.integers(0, n, (count, n))
            gains, totals = gain[rows].sum(axis=1), total[rows].sum(axis=1)
        found[start : start + count] = gains / totals
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return Interval(low, high)


def gains_of_groups(won: npt.NDArray[Any], weights: Floats, groups: Ints | None) -> tuple[Floats, Floats]:
    """The gain and the weight of each group, float (G,) each; without groups, of each image.

    Raises:
        InputError: `groups` is not an int vector with one element per image.
    """
    if groups is None:
        return weights * won, weights
    known = np.asarray(groups)
    if known.dtype.kind not in "iu" or known.shape != won.shape:
        raise InputError(
            f"`groups` must be int {won.shape}, one for each image; got {known.dtype} {known.shape}"
        )
    place = np.unique(known, return_inverse=True)[1]
    gain, weight = np.bincount(place, weights * won), np.bincount(place, weights)
    return gain.astype(np.float64), weight.astype(np.float64)


def _checked_weights(w: npt.NDArray[Any], n: int) -> Floats:
    if w.dtype.kind not in "fiu" or w.shape != (n,):
        raise InputError(f"`weights` must be float {(n,)}, one for each image; got {w.dtype} {w.shape}")
    w = w.astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(w) & (w > 0)))
    if len(bad):
        raise InputError(f"`weights` must be positive and finite; got {w[bad[0]]:.6g} at position {bad[0]}")
    w /= w.max()  # only ratios matter; this keeps sums from overflowing
    return w
