"""Intervals against published values and exact coverage; the paired test against SciPy's binomial."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from topwork.errors import InputError
from topwork.significance import effective_size, mcnemar, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(n, share, confidence):
    successes = round(share * n)
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    interval = wilson(successes, n, confidence)
    assert interval == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= interval.low <= successes / n <= interval.high <= 1
    mirrored = wilson(n - successes, n, confidence)
    assert interval == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-12)


def test_wilson_ends_are_exact():
    assert wilson(0, 7).low == 0.0
    assert wilson(7, 7).high == 1.0


@pytest.mark.parametrize("n", [20, 100, 656])
def test_wilson_covers_95_percent(n):
    """Exact: for each true p, the binomial probability of the counts whose interval holds p."""
    k = np.arange(n + 1)
    low, high = np.array([wilson(int(i), n) for i in k]).T
    p = np.linspace(0.02, 0.98, 400)[:, None]
    covered = (binom.pmf(k, n, p) * ((low <= p) & (p <= high))).sum(axis=1)
    assert covered.mean() == pytest.approx(0.95, abs=0.006)
    assert covered.min() > 0.83  # its known floor, for p near 0 or 1 (Brown, Cai and DasGupta, 2001)
    assert covered[(p[:, 0] > 0.2) & (p[:, 0] < 0.8)].min() > 0.92


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0), r"`n` must be a positive number; got 0"),
        ((1, math.inf), r"`n` must be a positive number; got inf"),
        ((3, 2), r"`successes` must lie in 0\.\.2 \(`n`\); got 3"),
        ((-1, 2), r"`successes` must lie in 0\.\.2 \(`n`\); got -1"),
        ((math.nan, 2), r"`successes` must lie in 0\.\.2 \(`n`\); got nan"),
        ((1, 2, 95), r"`confidence` must lie between 0 and 1, such as 0\.95; got 95"),
    ],
)
def test_wilson_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        wilson(*arguments)


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return a, b


counts = st.integers(0, 60)


@given(counts, counts, counts, counts)
def test_mcnemar_is_the_binomial_test(both, only_a, only_b, neither):
    if both + only_a + only_b + neither == 0:
        return
    a, b = outcomes(both, only_a, only_b, neither)
    result = mcnemar(a, b)
    m = only_a + only_b
    assert (result.n, result.only_a, result.only_b) == (len(a), only_a, only_b)
    assert result.p_value == pytest.approx(binomtest(only_a, m).pvalue if m else 1.0, rel=1e-9)
    assert result.difference == pytest.approx(a.mean() - b.mean(), abs=1e-12)
    assert -1 <= result.interval.low <= result.difference <= result.interval.high <= 1
    swapped = mcnemar(b, a)
    assert swapped.p_value == result.p_value
    assert swapped.interval == pytest.approx((-result.interval.high, -result.interval.low), abs=1e-12)


def test_mcnemar_of_many_images():
    a, b = outcomes(50_000, 25_300, 24_700, 0)
    assert mcnemar(a, b).p_value == pytest.approx(binomtest(24_700, 50_000).pvalue, rel=1e-8)


def test_mcnemar_published():
    """Two media for the same 50 sputum specimens (Armitage and Berry, 1994, p. 127): P = 0.0129."""
    assert mcnemar(*outcomes(20, 12, 2, 16)).p_value == pytest.approx(0.0129, abs=5e-5)


def test_newcombe_published():
    """Airway responsiveness of 21 children, as in Fagerland, Lydersen and Laake, 2014."""
    result = mcnemar(*outcomes(1, 1, 7, 12))
    assert result.difference == pytest.approx(-6 / 21)
    assert result.interval == pytest.approx((-0.507, -0.026), abs=5e-4)


def test_newcombe_without_correlation():
    """By hand: A is always right, so phi is 0 and B's Wilson interval alone gives one side."""
    result = mcnemar(*outcomes(8, 2, 0, 0))
    a, b = wilson(10, 10), wilson(8, 10)
    assert result.interval.low == pytest.approx(0.2 - math.hypot(1 - a.low, b.high - 0.8))
    assert result.interval.high == pytest.approx(0.2 + (0.8 - b.low))


def test_newcombe_covers_95_percent():
    """Exact, over all tables of 25 images: the probability of those whose interval holds the truth."""
    n = 25
    tables = [
        (both, a, b, n - both - a - b)
        for both in range(n + 1)
        for a in range(n + 1 - both)
        for b in range(n + 1 - both - a)
    ]
    low, high = np.array([mcnemar(*outcomes(*table)).interval for table in tables]).T
    log_ways = np.array([math.lgamma(n + 1) - sum(math.lgamma(x + 1) for x in table) for table in tables])
    for truth in ([0.7, 0.1, 0.1, 0.1], [0.6, 0.2, 0.05, 0.15], [0.3, 0.3, 0.1, 0.3]):
        probability = np.exp(log_ways + np.array(tables) @ np.log(truth))
        assert probability.sum() == pytest.approx(1)
        difference = truth[1] - truth[2]
        covered = probability[(low <= difference) & (difference <= high)].sum()
        assert 0.93 < covered < 0.99


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1, 0], [True, False], r"`correct_a` must be bool \(N,\); got int64 \(2,\)"),
        ([True], [[True]], r"`correct_b` must be bool \(N,\); got bool \(1, 1\)"),
        ([True], [True, False], r"needs the same images for both; got 1 and 2 results"),
        (np.zeros(0, bool), np.zeros(0, bool), r"nothing to compare: there are no images"),
    ],
)
def test_mcnemar_refuses(a, b, message):
    with pytest.raises(InputError, match=message):
        mcnemar(np.asarray(a), np.asarray(b))


def test_effective_size_by_hand():
    assert effective_size(np.array([2.0, 2.0, 2.0])) == pytest.approx(3)
    assert effective_size(np.array([3.0, 1.0])) == pytest.approx(16 / 10)
