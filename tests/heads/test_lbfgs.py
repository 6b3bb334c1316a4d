"""L-BFGS on functions whose minimum is known, and beside SciPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from topwork.heads.lbfgs import Objective, minimise

Array = np.ndarray[Any, Any]


def _quadratic(size: int, condition: float, *, seed: int = 0, least: float = 1.0) -> tuple[Objective, Array]:
    """½(v − m)ᵀA(v − m) + `least`, A's eigenvalues spread evenly over the orders of 1 … `condition`; and m."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(size, size)))
    matrix = (turn * np.geomspace(1, condition, size)) @ turn.T
    target = rng.normal(size=size)

    def objective(v: Array) -> tuple[float, Array]:
        slope = matrix @ (v - target)
        return float((v - target) @ slope / 2 + least), slope

    return objective, target


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("size", [1, 2, 10, 50])
def test_an_ill_conditioned_quadratic_to_its_solution(size: int, condition: float) -> None:
    objective, target = _quadratic(size, condition, least=0.0)
    found = minimise(objective, np.zeros(size), tolerance=1e-12)
    np.testing.assert_allclose(found.point, target, atol=1e-4)
    assert found.value < 1e-8
    assert found.value == objective(found.point)[0]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.floats(0, 5), st.integers(0, 10**6), st.floats(-3, 3))
def test_any_convex_quadratic_from_anywhere(size: int, order: float, seed: int, scale: float) -> None:
    objective, _ = _quadratic(size, 10**order, seed=seed)
    start = np.random.default_rng(seed + 1).normal(size=size) * 10**scale
    # The hardest of these, of condition 1e5 and from a thousand away, take a little more than 1,000 steps.
    found = minimise(objective, start, tolerance=1e-12, most_steps=10_000)
    assert 1 - 1e-12 <= found.value < 1 + 1e-6


def test_as_near_as_scipys_and_with_as_few_evaluations() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(200, 30)) * np.geomspace(1, 30, 30), rng.choice([-1.0, 1.0], 200)

    def objective(v: Array) -> tuple[float, Array]:  # logistic regression
        margins = y * (x @ v)
        slope = -(y * scipy.special.expit(-margins)) @ x / 200 + 1e-3 * v
        return float(np.logaddexp(0, -margins).mean() + 5e-4 * v @ v), slope

    theirs = scipy.optimize.minimize(
        objective, np.zeros(30), jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-10}
    )
    ours = minimise(objective, np.zeros(30), tolerance=1e-13)
    assert ours.value == pytest.approx(theirs.fun, rel=1e-9)
    np.testing.assert_allclose(ours.point, theirs.x, atol=1e-3)
    assert ours.evaluations < 2 * theirs.nfev


def test_rosenbrocks_valley_though_it_is_not_convex() -> None:
    found = minimise(
        lambda v: (float(scipy.optimize.rosen(v)), scipy.optimize.rosen_der(v)),
        np.array([-1.2, 1.0]),
        tolerance=1e-14,
    )
    np.testing.assert_allclose(found.point, [1, 1], atol=1e-5)


def test_from_the_optimum_it_does_not_move() -> None:
    objective, target = _quadratic(8, 100.0)
    found = minimise(objective, target, tolerance=1e-9)
    np.testing.assert_array_equal(found.point, target)
    assert (found.value, found.evaluations) == (1.0, 1)


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
def test_a_constant_function(value: float) -> None:
    start = np.array([1.0, -2.0])
    found = minimise(lambda v: (value, np.zeros_like(v)), start, tolerance=1e-6)
    np.testing.assert_array_equal(found.point, start)
    assert (found.value, found.evaluations) == (value, 1)


def test_the_start_is_left_alone() -> None:
    objective, _ = _quadratic(5, 10.0)
    start = np.ones(5)
    minimise(objective, start, tolerance=1e-9)
    np.testing.assert_array_equal(start, np.ones(5))


def test_ends_after_the_most_steps() -> None:
    objective, _ = _quadratic(50, 1e6)
    few = minimise(objective, np.zeros(50), tolerance=0.0, most_steps=3)
    more = minimise(objective, np.zeros(50), tolerance=0.0, most_steps=30)
    assert few.evaluations < more.evaluations
    assert more.value < few.value < objective(np.zeros(50))[0]


def test_a_tolerance_of_nothing_ends_where_rounding_does() -> None:
    objective, target = _quadratic(10, 1e3)
    found = minimise(objective, np.zeros(10), tolerance=0.0)
    np.testing.assert_allclose(found.point, target, atol=1e-6)


def test_a_gradient_that_lies_ends_without_a_step() -> None:
    # Uphill by its own word: no step lowers the value.
    found = minimise(lambda v: (float(v @ v) + 1, -2 * v), np.ones(2), tolerance=1e-9)
    np.testing.assert_array_equal(found.point, np.ones(2))
