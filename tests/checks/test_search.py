"""The approximate index of near-duplicates, against all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from topwork.checks import search
from topwork.checks.registration import unit
from topwork.checks.search import compact, neighbours


def near_pairs(n: int, width: int) -> tuple[np.ndarray, set[tuple[int, int]]]:
    """Pictures of twenty kinds; each tenth has a near-duplicate."""
    random = np.random.default_rng(0)
    kinds = random.normal(size=(20, width))
    rows = kinds[random.integers(0, 20, n)] + random.normal(0, 0.6, (n, width))
    copied = np.arange(0, n, 10)
    rows = np.concatenate([rows, rows[copied] + random.normal(0, 0.1, (len(copied), width))])
    return rows.astype(np.float32), {(int(a), n + i) for i, a in enumerate(copied)}


def test_near_duplicates_are_found_in_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, planted = near_pairs(3000, 40)
    rows = unit(rows)
    exact = {(a, b) for part in neighbours(rows, rows, 0.9, 4) for a, b in part.tolist()}
    assert {pair for pair in planted if pair in exact} == planted
    monkeypatch.setattr(search, "ALL_PAIRS", 100)
    found = {(a, b) for part in neighbours(rows, rows, 0.9, 4) for a, b in part.tolist()}
    assert len(planted & found) >= 0.99 * len(planted)
    likeness = rows @ rows.T
    assert all(likeness[a, b] >= 0.9 for a, b in found)
    counts = np.bincount([a for a, _ in found], minlength=len(rows))
    assert counts.max() <= 5  # itself, and four others
    assert counts.min() >= 1
    assert len(found & exact) >= 0.9 * len(found)


def test_of_many_pictures_the_strongest_directions_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, planted = near_pairs(1500, 300)
    whole = compact(rows)
    monkeypatch.setattr(search, "ALL_PAIRS", 100)
    monkeypatch.setattr(search, "AXES", 64)
    few = compact(rows)
    assert few.shape == (len(rows), 64)
    np.testing.assert_allclose(np.linalg.norm(few, axis=1), 1, atol=1e-5)
    a, b = np.array(sorted(planted)).T
    for vectors in (whole, few):
        assert ((vectors[a] * vectors[b]).sum(axis=1) > 0.9).all()


def test_a_cell_without_rows_and_equal_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "ALL_PAIRS", 10)
    rows = np.zeros((60, 8), np.float32)
    rows[:, 0] = 1
    found = np.concatenate(list(neighbours(rows, rows, 0.5, 3)))
    assert np.bincount(found[:, 0], minlength=60).tolist() == [4] * 60
