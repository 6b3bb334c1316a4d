"""Intervals against published values, exact coverage and SciPy's; the paired test against SciPy's binomial."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, bootstrap

from topwork.errors import InputError
from topwork.evaluation.significance import effective_size, mcnemar, paired_bootstrap, wilson


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
        ((3, 2), r"`successes` must be in 0\.\.2 \(`n`\); got 3"),
        ((-1, 2), r"`successes` must be in 0\.\.2 \(`n`\); got -1"),
        ((math.nan, 2), r"`successes` must be in 0\.\.2 \(`n`\); got nan"),
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


def shuffled(before: np.ndarray, after: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(before))
    return before[order], after[order]


@pytest.mark.parametrize("n", [12, 50, 400])  # by drawing each image, and by drawing how many of a kind
@pytest.mark.parametrize("won", [1, 5, 11])
def test_bootstrap_of_wins_alone_is_binomial(n, won):
    """Closed form: with no image lost, the gain drawn is Binomial(n, won / n) / n."""
    after, before = shuffled(*outcomes(0, won, 0, n - won))
    low, high = np.array(paired_bootstrap(before, after, samples=40_000)) * n
    k = np.arange(n + 1)
    below, up_to = binom.cdf(k - 1, n, won / n), binom.cdf(k, n, won / n)
    assert below[int(low)] - 0.004 < 0.025 < up_to[math.ceil(low)] + 0.004
    assert below[int(high)] - 0.004 < 0.975 < up_to[math.ceil(high)] + 0.004
    swapped = paired_bootstrap(after, before, samples=40_000)
    assert swapped == pytest.approx((-high / n, -low / n), abs=1.01 / n)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_bootstrap_of_many_images_is_normal(confidence):
    """Closed form: the gain's variance is (won + lost)/n² − (won − lost)²/n³."""
    after, before = outcomes(14_000, 2_600, 1_900, 1_500)
    n, z = 20_000, {0.8: 1.2816, 0.95: 1.96, 0.99: 2.5758}[confidence]
    deviation = math.sqrt(4_500 / n**2 - 700**2 / n**3)
    interval = paired_bootstrap(before, after, confidence=confidence, samples=100_000)
    expected = (0.035 - z * deviation, 0.035 + z * deviation)
    assert interval == pytest.approx(expected, abs=0.03 * deviation)


@pytest.mark.parametrize("kind", ["none", "three", "all different"])
@pytest.mark.parametrize("n", [40, 400])
def test_bootstrap_is_scipys(n, kind):
    random = np.random.default_rng(7)
    before, after = random.random(n) < 0.6, random.random(n) < 0.75
    weights = {
        "none": None,
        "three": random.choice([1.0, 1 / 3, 2 / 3], n),
        "all different": random.uniform(0.1, 3, n),
    }[kind]

    def gain(before, after, w, axis=-1):
        return ((after - before) * w).sum(axis) / w.sum(axis)

    data = (before.astype(float), after.astype(float), np.ones(n) if weights is None else weights)
    options = {"paired": True, "method": "percentile", "n_resamples": 20_000, "batch": 2000}
    expected = bootstrap(data, gain, vectorized=True, rng=np.random.default_rng(1), **options)
    low, high = expected.confidence_interval
    interval = paired_bootstrap(before, after, weights=weights, samples=20_000)
    # Without weights gains are multiples of 1/n: an end may fall on the next one.
    tolerance = 0.05 * (high - low) + (1.01 / n if weights is None else 0)
    assert interval == pytest.approx((low, high), abs=tolerance)


@pytest.mark.parametrize(("n", "weighted"), [(100, False), (400, False), (400, True)])
def test_bootstrap_covers_95_percent(n, weighted):
    """Of 600 samples from tables whose gain is known, so many intervals hold it; doubtful images weigh less."""
    random, held = np.random.default_rng(3), 0
    for seed in range(600):
        doubtful = random.random(n) < (0.3 if weighted else 0)
        weights = np.where(doubtful, 1 / 3, 1.0)
        draw = random.random(n)
        # won, lost: 15 % and 8 % of the sure images, 30 % and 25 % of the doubtful ones
        won = draw < np.where(doubtful, 0.30, 0.15)
        lost = (draw > 0.5) & (draw < np.where(doubtful, 0.75, 0.58))
        truth = (0.3 / 3 * 0.05 + 0.7 * 0.07) / (0.3 / 3 + 0.7) if weighted else 0.07
        interval = paired_bootstrap(lost, won, weights=weights, samples=600, seed=seed)
        held += interval.low <= truth <= interval.high
    assert 0.925 < held / 600 < 0.975


@pytest.mark.parametrize("n", [30, 400])
def test_copies_of_an_image_in_one_group_prove_no_more_than_it_does(n):
    random = np.random.default_rng(n)
    before, after = random.random((2, n)) < [[0.6], [0.75]]
    weights = random.choice([0.33, 0.67, 1.0], n)
    copied, groups = (np.repeat(values, 5) for values in (weights, np.arange(n)))
    five = paired_bootstrap(np.repeat(before, 5), np.repeat(after, 5), weights=copied, groups=groups)
    assert five == pytest.approx(paired_bootstrap(before, after, weights=weights), abs=1e-12)
    alone = paired_bootstrap(np.repeat(before, 5), np.repeat(after, 5), weights=copied)
    assert alone.high - alone.low < 0.6 * (five.high - five.low)


def test_bootstrap_of_groups_covers_95_percent():
    """Images of a group gain or lose together: the interval of groups holds the truth, that of images doesn't."""
    groups = np.repeat(np.arange(60), 8)
    held = np.zeros(2)
    for seed in range(300):
        random = np.random.default_rng(seed)
        after = np.repeat(random.random(60) < 0.6, 8) ^ (random.random(480) < 0.05)
        for i, known in enumerate((groups, None)):
            low, high = paired_bootstrap(np.zeros(480, bool), after, groups=known, samples=400, seed=seed)
            held[i] += low <= 0.6 * 0.95 + 0.4 * 0.05 <= high
    assert 0.91 <= held[0] / 300 <= 0.98
    assert held[1] / 300 < 0.6


def test_groups_that_are_none():
    both = np.ones(3, bool)
    for groups in (np.ones(3), np.arange(4)):
        with pytest.raises(InputError, match=r"`groups` must be int \(3,\), one for each image; got"):
            paired_bootstrap(both, both, groups=groups)


def test_bootstrap_where_nothing_differs_says_0():
    both, neither = np.ones(30, bool), np.zeros(30, bool)
    assert paired_bootstrap(both, both) == (0, 0)
    assert paired_bootstrap(neither, both) == (1, 1)
    assert paired_bootstrap(both, neither, weights=np.arange(1.0, 31)) == (-1, -1)
    assert paired_bootstrap(neither[:1], both[:1]) == (1, 1)


@pytest.mark.parametrize("n", [30, 300])
def test_bootstrap_goes_by_seed_and_by_ratios_of_weights(n):
    random = np.random.default_rng(5)
    before, after, weights = random.random(n) < 0.5, random.random(n) < 0.5, random.choice([0.5, 1, 2], n)
    interval = paired_bootstrap(before, after, weights=weights)
    assert paired_bootstrap(before, after, weights=weights) == interval
    assert paired_bootstrap(before, after, weights=weights * 1e307) == pytest.approx(interval, abs=1e-12)
    assert paired_bootstrap(before, after, weights=weights, seed=1) != interval
    assert all(type(end) is float for end in interval)
    plain = paired_bootstrap(before, after)
    assert paired_bootstrap(before, after, weights=np.full(n, 3)) == plain != interval


def test_bootstrap_of_more_than_it_holds_at_once():
    """120 000 images of as many weights: drawn eight times for each step."""
    n = 120_000
    random = np.random.default_rng(2)
    before, after = random.random(n) < 0.5, random.random(n) < 0.6
    low, high = paired_bootstrap(before, after, weights=random.uniform(1, 2, n), samples=60)
    assert 0.09 < low < high < 0.11


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"before_correct": [1.0, 0.0]}, r"`before_correct` must be bool \(N,\); got float64 \(2,\)"),
        ({"after_correct": [[True, False]]}, r"`after_correct` must be bool \(N,\); got bool \(1, 2\)"),
        ({"after_correct": [True]}, r"needs the same images for both; got 2 and 1 results"),
        (
            {"before_correct": np.zeros(0, bool), "after_correct": np.zeros(0, bool)},
            r"nothing to compare: there are no images",
        ),
        (
            {"weights": np.ones(3)},
            r"`weights` must be float \(2,\), one for each image; got float64 \(3,\)",
        ),
        ({"weights": np.array([1.0, 0.0])}, r"`weights` must be positive and finite; got 0 at position 1"),
        ({"weights": np.array([np.nan, 1])}, r"`weights` must be positive and finite; got nan at position 0"),
        ({"confidence": 95}, r"`confidence` must lie between 0 and 1, such as 0\.95; got 95"),
        ({"samples": 0}, r"`samples` must be a positive int; got 0"),
    ],
)
def test_bootstrap_refuses(changes, message):
    arguments = {"before_correct": [True, False], "after_correct": [True, True], **changes}
    with pytest.raises(InputError, match=message):
        paired_bootstrap(**arguments)
