"""The linear head's path, against scikit-learn and SciPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from linear_problems import objective_at, problem, sklearns_optimum, standardised
from topwork.heads import choose, logistic
from topwork.heads.choose import STRENGTHS
from topwork.heads.linear import LinearFit, fit_linear, solve_path

Array = np.ndarray[Any, Any]


@pytest.fixture
def whole_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "PATIENCE", len(STRENGTHS))


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solved until float32 ends it, so that the optimum is what is compared."""
    monkeypatch.setattr(logistic, "TOLERANCE", 1e-8)


# --- the objective ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("whole_path")
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(("n", "d"), [(120, 20), (40, 100)], ids=["N>D", "N<D"])
@pytest.mark.parametrize("k", [2, 3, 10])
@pytest.mark.parametrize(
    ("tolerance", "near"), [(logistic.TOLERANCE, 3e-3), (1e-8, 1e-4)], ids=["as it is", "tight"]
)
def test_the_objective_along_the_path_is_scikit_learns(
    k: int, n: int, d: int, weighted: bool, tolerance: float, near: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic, "TOLERANCE", tolerance)
    x, y, w = problem(n, d, k, weighted=weighted)
    fit = fit_linear(x, y, class_count=k, weights=w, folds=np.arange(n) % 5)
    assert [step.strength for step in fit.steps] == list(STRENGTHS)
    z = standardised(x, w)
    for step in fit.steps:
        optimum = objective_at(z, y, w, step.strength, *sklearns_optimum(z, y, w, k, step.strength))
        # Near 0 float32 is what limits: the objective at 1e-5 is itself about 1e-4.
        assert step.objective == pytest.approx(optimum, rel=near if step.strength >= 1e-4 else 5e-3)


@pytest.mark.usefixtures("tight")
@pytest.mark.parametrize("k", [2, 3, 10])
@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_the_head_is_scikit_learns_on_the_features_as_they_are(k: int, strength: float) -> None:
    x, y, w = problem(150, 12, k, weighted=True)
    fit = fit_linear(x, y, class_count=k, weights=w, folds=np.arange(150) % 5, strengths=(strength,))
    z = standardised(x, w)
    weight, bias = sklearns_optimum(z, y, w, k, strength)
    logits = z @ weight + bias
    found = fit.head.logits(x)
    # A constant on all classes is free in a softmax.
    np.testing.assert_allclose(
        found - found.mean(axis=1, keepdims=True), logits - logits.mean(axis=1, keepdims=True), atol=0.02
    )
    (layer,) = fit.head.layers
    assert layer.weight.dtype == layer.bias.dtype == np.float32
    assert layer.weight.flags.c_contiguous
    assert objective_at(
        z, y, w, strength, layer.weight * _deviation(x, w)[:, None], _shifted(layer, x, w)
    ) == pytest.approx(objective_at(z, y, w, strength, weight, bias), rel=1e-4)


def _deviation(x: Array, w: Array) -> Array:
    mean = np.average(x.astype(np.float64), axis=0, weights=w)
    return np.sqrt(np.average((x - mean) ** 2, axis=0, weights=w))


def _shifted(layer: Any, x: Array, w: Array) -> Array:
    """The bias on standardised features."""
    return layer.bias + np.average(x.astype(np.float64), axis=0, weights=w) @ layer.weight.astype(np.float64)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(8, 40),
    d=st.integers(1, 30),
    k=st.integers(2, 5),
    seed=st.integers(0, 10**6),
    strength=st.sampled_from(STRENGTHS[:9]),
    weighted=st.booleans(),
    doubled=st.booleans(),
    constant=st.booleans(),
)
def test_no_worse_than_scipys_optimum(
    n: int, d: int, k: int, seed: int, strength: float, weighted: bool, doubled: bool, constant: bool
) -> None:
    x, y, w = problem(n, d, k, seed=seed, weighted=weighted)
    if doubled:
        x = np.concatenate([x, x[:, :1]], axis=1)
    if constant:
        x[:, 0] = 7.7
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logistic, "TOLERANCE", 1e-8)
        fit = fit_linear(x, y, class_count=k, weights=w, folds=np.arange(n) % 4, strengths=(10.0, strength))
    z = standardised(x, w)
    one_hot = np.eye(k)[y] * (w / w.sum())[:, None]

    def objective(v: Array) -> tuple[float, Array]:
        weight, bias = v[:-k].reshape(-1, k), v[-k:]
        residual = scipy.special.softmax(z @ weight + bias, axis=1) * (w / w.sum())[:, None] - one_hot
        gradient = np.concatenate([(z.T @ residual + strength * weight).ravel(), residual.sum(axis=0)])
        return objective_at(z, y, w, strength, weight, bias), gradient

    best = scipy.optimize.minimize(
        objective,
        np.zeros((z.shape[1] + 1) * k),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 5000},
    )
    assert fit.steps[-1].strength == strength
    assert fit.steps[-1].objective <= best.fun * (1 + 1e-4)
    assert fit.steps[-1].objective >= best.fun * (1 - 1e-4)


@pytest.mark.usefixtures("tight")
def test_the_path_alone_is_scikit_learns_on_features_that_nothing_was_done_to() -> None:
    x, y, w = problem(100, 8, 3, weighted=True)
    z = standardised(x, w).astype(np.float32)
    for strength, (weight, bias) in zip(
        (1.0, 0.01), solve_path(z, y, class_count=3, weights=w, strengths=(1.0, 0.01)), strict=True
    ):
        optimum = objective_at(z, y, w, strength, *sklearns_optimum(z.astype(np.float64), y, w, 3, strength))
        assert objective_at(z, y, w, strength, weight, bias) == pytest.approx(optimum, rel=1e-4)


# --- what must make no difference -------------------------------------------------------------------------


def _assert_same(found: LinearFit, known: LinearFit, *, atol: float = 1e-5) -> None:
    assert found.strength == known.strength
    assert [step.strength for step in found.steps] == [step.strength for step in known.steps]
    np.testing.assert_allclose(
        [(s.objective, s.held_out_loss) for s in found.steps],
        [(s.objective, s.held_out_loss) for s in known.steps],
        rtol=1e-3,
    )
    np.testing.assert_allclose(found.held_out_logits, known.held_out_logits, atol=atol)
    assert found.head.temperature == pytest.approx(known.head.temperature, rel=1e-3)


def test_weights_times_a_constant() -> None:
    x, y, w = problem(80, 10, 3, weighted=True)
    folds = np.arange(80) % 4
    known = fit_linear(x, y, class_count=3, weights=w, folds=folds)
    # Powers of two change no rounding.
    for factor in (1024.0, 2.0**-20):
        _assert_same(fit_linear(x, y, class_count=3, weights=w * factor, folds=folds), known)


def test_equal_weights_and_none() -> None:
    x, y, w = problem(80, 10, 3)
    folds = np.arange(80) % 4
    known = fit_linear(x, y, class_count=3, folds=folds)
    _assert_same(fit_linear(x, y, class_count=3, weights=w * 8, folds=folds), known)


@pytest.mark.usefixtures("tight")
def test_a_weight_of_two_and_an_image_twice() -> None:
    x, y, w = problem(60, 8, 3)
    folds = np.arange(60) % 3
    twice = np.concatenate([np.arange(60), np.arange(10)])
    w[:10] = 2
    known = fit_linear(x, y, class_count=3, weights=w, folds=folds)
    found = fit_linear(x[twice], y[twice], class_count=3, folds=folds[twice])
    assert found.strength == known.strength
    np.testing.assert_allclose(found.head.logits(x), known.head.logits(x), atol=0.02)
    np.testing.assert_allclose(found.held_out_logits[:60], known.held_out_logits, atol=0.02)


@pytest.mark.usefixtures("tight")
def test_how_many_problems_are_solved_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, w = problem(90, 12, 3, weighted=True)
    folds = np.arange(90) % 5
    known = fit_linear(x, y, class_count=3, weights=w, folds=folds)
    for at_once in (1, 2, 4):
        monkeypatch.setattr(choose, "MOST_NUMBERS", at_once * 3 * 12)
        _assert_same(fit_linear(x, y, class_count=3, weights=w, folds=folds), known, atol=0.05)


@pytest.mark.parametrize("value", [0.0, 5.1, 123.456, 1e6])
@pytest.mark.parametrize("jitter", [0.0, 1e-7], ids=["exact", "rounded"])
def test_a_constant_feature(value: float, jitter: float) -> None:
    x, y, _ = problem(80, 10, 3)
    folds = np.arange(80) % 4
    known = fit_linear(x, y, class_count=3, folds=folds)
    column = value * (1 + jitter * np.random.default_rng(0).integers(-1, 2, (80, 1)))
    found = fit_linear(np.hstack([x, column.astype(np.float32)]), y, class_count=3, folds=folds)
    _assert_same(found, known)
    assert not found.head.layers[0].weight[-1].any()  # were it to change later, the logits would not
    # As for a validation set where it does change.
    held = np.hstack([x, column.astype(np.float32) + 9])
    validated = fit_linear(
        np.hstack([x, column.astype(np.float32)]), y, class_count=3, validation=(held, y, np.ones(80))
    )
    assert np.abs(validated.held_out_logits).max() < 100


@pytest.mark.usefixtures("tight")
def test_a_duplicated_feature_shares_the_weight_of_the_one() -> None:
    x, y, _ = problem(80, 6, 3)
    fit = fit_linear(np.hstack([x, x[:, 2:3]]), y, class_count=3, folds=np.arange(80) % 4, strengths=(0.1,))
    weight = fit.head.layers[0].weight
    np.testing.assert_allclose(weight[6], weight[2], rtol=1e-3)


@pytest.mark.usefixtures("tight")
def test_features_that_are_all_constant_give_the_classes_frequencies() -> None:
    y = np.array([0, 0, 0, 1] * 10)
    for value in (0.0, 3.3):
        x = np.full((40, 4), value, np.float32)
        fit = fit_linear(x, y, class_count=2, folds=np.arange(40) // 4 % 5)
        p = np.exp(fit.head.logits(x[:1])[0])
        np.testing.assert_allclose(p / p.sum(), [0.75, 0.25], atol=1e-4)
