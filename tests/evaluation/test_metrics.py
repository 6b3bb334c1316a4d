"""Each measure worked by hand where ties or edges matter; scikit-learn judges the rest in test_evaluate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from topwork.evaluation.metrics import (
    auroc,
    brier,
    calibration_bins,
    class_score,
    confusion_matrix,
    expected_calibration_error,
    log_loss,
    ranks_of_truth,
)


def test_confusion_rows_are_truth():
    matrix = confusion_matrix(np.array([0, 0, 2]), np.array([1, 0, 1]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]
    assert matrix.dtype == np.int64


def test_class_scores_where_something_is_zero():
    #  a: seen, never predicted;  b: predicted, never seen;  c: neither
    confusion = np.array([[0, 2, 0], [0, 0, 0], [0, 0, 0]])
    a, b, c = (class_score(name, i, confusion) for i, name in enumerate("abc"))
    assert (a.n, a.precision, a.recall, a.f1) == (2, 0.0, 0.0, 0.0)
    assert a.interval is not None
    assert (b.n, b.precision, b.recall, b.f1, b.interval) == (0, 0.0, None, 0.0, None)
    assert (c.n, c.precision, c.recall, c.f1, c.interval) == (0, 0.0, None, None, None)


def test_ranks_give_ties_to_the_lower_class():
    p = np.array([[0.4, 0.2, 0.4]] * 3)
    assert ranks_of_truth(np.array([0, 1, 2]), p).tolist() == [0, 2, 1]


def test_log_loss_by_hand_and_at_zero():
    p = np.array([[0.25, 0.75], [0.5, 0.5]])
    assert log_loss(np.array([1, 0]), p) == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert log_loss(np.array([1]), np.array([[1.0, 0.0]])) == pytest.approx(52 * math.log(2))  # 2^-52


def test_brier_by_hand():
    p = np.array([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0]])
    assert brier(np.array([0, 2]), p) == pytest.approx((0.25 + 0.09 + 0.04 + 2) / 2)


def test_auroc_counts_ties_half():
    positive = np.array([True, True, False, False])
    # pairs: 0.9 > 0.5, 0.9 > 0.1, 0.5 = 0.5 (half), 0.5 > 0.1
    assert auroc(positive, np.array([0.9, 0.5, 0.5, 0.1])) == 3.5 / 4
    assert auroc(positive, np.full(4, 0.5)) == 0.5
    assert auroc(np.ones(4, bool), np.arange(4.0)) is None


def test_calibration_by_hand():
    confidence = np.array([0.55, 0.6, 0.95, 1.0])
    correct = np.array([True, False, True, True])
    bins = calibration_bins(correct, confidence, count=5)
    assert [(b.low, b.high) for b in bins] == [(0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1)]
    assert [b.n for b in bins] == [0, 0, 2, 0, 2]  # 0.6 is in (0.4, 0.6]
    assert (bins[0].confidence, bins[0].accuracy) == (None, None)
    assert (bins[2].confidence, bins[2].accuracy) == (pytest.approx(0.575), 0.5)
    # (2 |0.5 - 0.575| + 2 |1 - 0.975|) / 4
    assert expected_calibration_error(bins) == pytest.approx(0.05)


def test_calibration_edges_belong_to_the_bin_below():
    edges = np.arange(1, 16) / 15
    assert [b.n for b in calibration_bins(np.ones(15, bool), edges)] == [1] * 15
