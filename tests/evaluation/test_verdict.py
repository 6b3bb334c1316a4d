"""The verdict on a tuning: counts worked by hand, SciPy's binomial and bootstrap, and each sentence."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import accuracy_score

from topwork.errors import InputError
from topwork.evaluation.significance import Interval
from topwork.evaluation.verdict import Verdict, judge


def tables(both: int, won: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, and probabilities before and after, of three classes: so many images of each outcome, shuffled."""
    random = np.random.default_rng(11)
    order = random.permutation(both + won + lost + neither)
    targets = random.integers(0, 3, len(order))

    def probabilities(right: np.ndarray) -> np.ndarray:
        answer = np.where(right, targets, (targets + 1) % 3)
        return 0.1 + 0.7 * np.eye(3)[answer]

    before = np.repeat([True, False, True, False], [both, won, lost, neither])[order]
    after = np.repeat([True, True, False, False], [both, won, lost, neither])[order]
    return targets, probabilities(before), probabilities(after)


def judged(both: int, won: int, lost: int, neither: int, **options: object) -> Verdict:
    return judge(*tables(both, won, lost, neither), **{"seconds_before": 20, "seconds_after": 280, **options})


def test_numbers_by_hand():
    verdict = judged(520, 56, 22, 58)
    assert verdict.n == 656
    assert verdict.before == pytest.approx(542 / 656)
    assert verdict.after == pytest.approx(576 / 656)
    assert verdict.gain == pytest.approx(34 / 656)
    assert verdict.p_value == pytest.approx(binomtest(22, 78).pvalue)
    # (won + lost)/n² − (won − lost)²/n³, to the width of a normal's 95 %
    half = 1.96 * np.sqrt(78 / 656**2 - 34**2 / 656**3)
    assert verdict.interval == pytest.approx((34 / 656 - half, 34 / 656 + half), abs=0.002)
    assert verdict.smallest == pytest.approx(half, abs=0.002)
    assert (verdict.kept, verdict.chosen_on) == (True, "test")


counts = st.integers(0, 40)


@settings(deadline=None)
@given(counts, counts, counts, counts, st.booleans())
def test_numbers_are_scikit_learns_and_scipys(both, won, lost, neither, weighted):
    if both + won + lost + neither == 0:
        return
    targets, before, after = tables(both, won, lost, neither)
    weights = np.random.default_rng(1).choice([1.0, 1 / 3, 2 / 3], len(targets)) if weighted else None
    verdict = judge(targets, before, after, weights=weights, seconds_before=1, seconds_after=2)
    for accuracy, p in ((verdict.before, before), (verdict.after, after)):
        expected = accuracy_score(targets, p.argmax(axis=1), sample_weight=weights)
        assert accuracy == pytest.approx(expected, abs=1e-12)
    assert verdict.gain == pytest.approx(verdict.after - verdict.before, abs=1e-12)
    p = binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert verdict.p_value == pytest.approx(p)
    assert verdict.interval.low <= verdict.interval.high
    assert verdict.kept == (verdict.interval.low > 0 or (verdict.gain > 0 and p < 0.05))
    assert verdict.kept == (
        "kept" in verdict.sentence and "frozen classifier is kept" not in verdict.sentence
    )
    assert json.loads(json.dumps(verdict.to_dict())) == verdict.to_dict()


def test_the_weighted_interval_is_scipys():
    targets, before, after = tables(150, 40, 20, 30)
    weights = np.random.default_rng(2).choice([1.0, 1 / 3, 2 / 3], 240)
    verdict = judge(targets, before, after, weights=weights, seconds_before=1, seconds_after=1)
    won = (after.argmax(axis=1) == targets).astype(float) - (before.argmax(axis=1) == targets)

    def gain(won, w, axis=-1):
        return (won * w).sum(axis) / w.sum(axis)

    low, high = bootstrap(
        (won, weights), gain, paired=True, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    assert verdict.interval == pytest.approx((low, high), abs=0.05 * (high - low))
    assert judge(targets, before, after, weights=weights, seconds_before=1, seconds_after=1) == verdict
    assert (
        judge(targets, before, after, weights=weights, seconds_before=1, seconds_after=1, seed=1) != verdict
    )


def test_weights_decide():
    """Twenty won and twenty lost: the won ones count three times as much."""
    targets = np.zeros(100, np.int64)
    right, wrong = [0.9, 0.1], [0.1, 0.9]
    before = np.array([wrong] * 20 + [right] * 80)
    after = np.array([right] * 20 + [wrong] * 20 + [right] * 60)
    weights = np.repeat([3.0, 1.0], [20, 80])
    verdict = judge(targets, before, after, weights=weights, seconds_before=1, seconds_after=1)
    assert verdict.gain == pytest.approx((60 - 20) / 140)
    assert verdict.interval.low > 0
    assert (verdict.p_value, verdict.kept) == (1, True)
    huge = judge(targets, before, after, weights=weights * 1e307, seconds_before=1, seconds_after=1)
    # only their ratios matter
    assert (huge.before, huge.after, huge.gain, huge.smallest) == pytest.approx(
        (verdict.before, verdict.after, verdict.gain, verdict.smallest)
    )
    assert huge.interval == pytest.approx(verdict.interval)
    plain = judge(targets, before, after, seconds_before=1, seconds_after=1)
    assert (plain.gain, plain.kept) == (0, False)


def test_of_equal_probabilities_the_first_class_is_meant():
    verdict = judge(
        np.array([0, 1]),
        np.array([[0.5, 0.5]] * 2),
        np.array([[0.5, 0.5]] * 2),
        seconds_before=1,
        seconds_after=1,
    )
    assert (verdict.before, verdict.after) == (0.5, 0.5)


def test_six_images_won_are_the_fewest():
    """2 · 0.5⁶ = 0.031 is below 0.05, 2 · 0.5⁵ = 0.063 is not: so even certain images can't show less."""
    assert judged(94, 6, 0, 0).p_value == pytest.approx(0.03125)
    assert judged(94, 6, 0, 0).kept
    assert judged(95, 5, 0, 0).p_value == pytest.approx(0.0625)
    assert judged(100, 0, 0, 0).smallest == pytest.approx(0.06)
    weights = np.repeat([1.0, 3.0], [50, 50])  # as good as 200²/500 = 80 images
    assert judged(100, 0, 0, 0, weights=weights).smallest == pytest.approx(6 / 80)
    assert judged(4, 0, 0, 1).smallest == pytest.approx(6 / 5)


CLEAR = Verdict(
    n=656,
    before=0.824,
    after=0.876,
    gain=0.0521,
    interval=Interval(0.0312, 0.0734),
    p_value=0.0001,
    smallest=0.0209,
    seconds_before=20.0,
    seconds_after=281.0,
    kept=True,
    chosen_on="test",
)
SMALL = replace(
    CLEAR, gain=0.006, interval=Interval(-0.0151, 0.0272), p_value=0.6, smallest=0.0211, kept=False
)
NONE = replace(SMALL, gain=-0.003, interval=Interval(-0.0241, 0.0182), p_value=0.9)
WORSE = replace(NONE, gain=-0.0521, interval=Interval(-0.0734, -0.0312))


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (CLEAR, "+5.2 points (95 % 3.1 to 7.3, 656 images), 14 times the time: kept"),
        (
            replace(CLEAR, interval=Interval(0.0, 0.07), p_value=0.0412),
            "+5.2 points (95 % 0.0 to 7.0, 656 images), 14 times the time: kept (McNemar's test: p = 0.041)",
        ),
        (
            SMALL,
            "+0.6 points (95 % -1.5 to 2.7, 656 images), 14 times the time: not significant, so "
            "the frozen classifier is kept (gains above about 2.1 points would be significant)",
        ),
        (
            NONE,
            "-0.3 points (95 % -2.4 to 1.8, 656 images), 14 times the time: no gain, so the frozen classifier is "
            "kept (gains above about 2.1 points would be significant)",
        ),
        (
            WORSE,
            "-5.2 points (95 % -7.3 to -3.1, 656 images), 14 times the time: worse, so the frozen classifier is kept",
        ),
        (
            replace(NONE, n=5, gain=0.0, interval=Interval(0.0, 0.0), smallest=1.2),
            "+0.0 points (95 % 0.0 to 0.0, 5 images), 14 times the time: no gain, so the frozen classifier is kept "
            "(with so few images, no gain would be significant)",
        ),
        (
            replace(CLEAR, chosen_on="validation"),
            "+5.2 points (95 % 3.1 to 7.3, 656 test images), 14 times the time: kept",
        ),
        (
            replace(SMALL, kept=True, chosen_on="validation"),
            "+0.6 points (95 % -1.5 to 2.7, 656 test images), 14 times the time: kept; not significant on the "
            "test images (gains above about 2.1 points would be significant)",
        ),
        (
            replace(NONE, kept=True, chosen_on="validation"),
            "-0.3 points (95 % -2.4 to 1.8, 656 test images), 14 times the time: kept; the validation images "
            "show a gain, the test images do not",
        ),
        (
            replace(SMALL, chosen_on="validation"),
            "+0.6 points (95 % -1.5 to 2.7, 656 test images), 14 times the time: not kept: "
            "the validation images show no clear gain",
        ),
        (
            replace(CLEAR, kept=False, chosen_on="validation"),
            "+5.2 points (95 % 3.1 to 7.3, 656 test images), 14 times the time: not kept: "
            "the validation images show no clear gain, but the test images do",
        ),
    ],
)
def test_sentences(verdict, sentence):
    assert verdict.sentence == sentence
    assert verdict.to_dict()["sentence"] == sentence


@pytest.mark.parametrize(
    ("before", "after", "cost"),
    [
        (20, 281, ", 14 times the time"),
        (20, 2000, ", 100 times the time"),
        (20, 46, ", 2.3 times the time"),
        (20, 40, ", 2 times the time"),
        (20, 199.9, ", 10 times the time"),
        (20, 20.5, ""),  # as long
        (20, 5, ""),
        (0, 5, ""),  # not known
    ],
)
def test_the_cost(before, after, cost):
    verdict = replace(CLEAR, seconds_before=before, seconds_after=after)
    assert verdict.sentence == f"+5.2 points (95 % 3.1 to 7.3, 656 images){cost}: kept"


def test_one_image_and_nearly_nothing():
    one = replace(CLEAR, n=1)
    assert "to 7.3, 1 image)" in one.sentence
    assert "to 7.3, 1 test image)" in replace(one, chosen_on="validation").sentence
    tiny = replace(NONE, gain=-0.0001, interval=Interval(-0.0002, 0.0001))
    assert tiny.sentence.startswith("+0.0 points (95 % 0.0 to 0.0, 656 images)")


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("counts", [(520, 56, 22, 58), (500, 40, 40, 76), (500, 20, 60, 76)])
def test_a_choice_made_elsewhere_is_not_made_again(kept, counts):
    verdict = judged(*counts, kept=kept)
    assert (verdict.kept, verdict.chosen_on) == (kept, "validation")
    assert verdict.clear == (counts[1] == 56)
    assert replace(verdict, kept=verdict.clear, chosen_on="test") == judged(*counts)


def test_to_dict():
    assert CLEAR.to_dict() == {
        "n": 656,
        "before": 0.824,
        "after": 0.876,
        "gain": 0.0521,
        "interval": [0.0312, 0.0734],
        "p_value": 0.0001,
        "smallest": 0.0209,
        "seconds_before": 20.0,
        "seconds_after": 281.0,
        "kept": True,
        "chosen_on": "test",
        "sentence": "+5.2 points (95 % 3.1 to 7.3, 656 images), 14 times the time: kept",
    }


P = np.full((2, 3), 1 / 3)


@pytest.mark.parametrize(
    ("targets", "before", "after", "weights", "message"),
    [
        ([0.0, 1.0], P, P, None, r"`targets` must be class numbers, int \(N,\); got float64 \(2,\)"),
        ([[0, 1]], P, P, None, r"`targets` must be class numbers, int \(N,\); got int64 \(1, 2\)"),
        (
            [0, 1, 2],
            P,
            P,
            None,
            r"`before` must be float \(N, K\), a row for each of 3 targets, the same K in both; got float64 \(2, 3\)",
        ),
        ([0, 1], P[:, 0], P, None, r"`before` must be float \(N, K\), .*; got float64 \(2,\)"),
        ([0, 1], P, P[:, 0], None, r"`after` must be float \(N, K\), .*; got float64 \(2,\)"),
        ([0, 1], P, P[:, :2], None, r"`after` must be float \(N, K\), .*; got float64 \(2, 2\)"),
        ([0, 1], P, P > 0, None, r"`after` must be float \(N, K\), .*; got bool \(2, 3\)"),
        ([0, 1], P, P, [1.0], r"`weights` must be float \(2,\), one for each image; got float64 \(1,\)"),
        ([0, 1], P, P, [1.0, -1.0], r"`weights` must be positive and finite; got -1 at position 1"),
        (np.zeros(0, int), P[:0], P[:0], None, r"nothing to compare: there are no images"),
    ],
)
def test_refuses(targets, before, after, weights, message):
    weights = None if weights is None else np.array(weights)
    with pytest.raises(InputError, match=message):
        judge(np.array(targets), before, after, weights=weights, seconds_before=1, seconds_after=1)


def test_images_of_a_group_count_as_one():
    targets, wrong, right = np.zeros(40, int), np.array([[0.4, 0.6]] * 40), np.array([[0.9, 0.1]] * 40)
    options = {"seconds_before": 1, "seconds_after": 2}
    alone = judge(targets, wrong, right, **options)
    assert alone.p_value < 1e-9
    together = judge(targets, wrong, right, groups=np.zeros(40, int), **options)
    assert (together.p_value, together.n, together.smallest) == (1, 40, 6)
    pairs = judge(targets, wrong, right, groups=np.arange(40) // 20, **options)
    assert pairs.p_value == 0.5
