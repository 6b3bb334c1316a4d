"""What the linear head says of images held out, and the strength that it chooses by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special

from linear_problems import problem, sklearns_optimum, standardised
from topwork.heads import logistic
from topwork.heads.linear import fit_linear


@pytest.mark.parametrize("k", [2, 4])
def test_out_of_fold_logits_are_those_of_problems_fitted_apart(
    k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic, "TOLERANCE", 1e-8)
    x, y, w = problem(100, 10, k, weighted=True)
    folds = np.random.default_rng(3).integers(0, 4, 100)
    fit = fit_linear(x, y, class_count=k, weights=w, folds=folds, strengths=(0.05,))
    z = standardised(x, w)  # all folds share it
    wanted = np.empty((100, k))
    for fold in range(4):
        kept = folds != fold
        weight, bias = sklearns_optimum(z[kept], y[kept], w[kept], k, 0.05)
        wanted[~kept] = z[~kept] @ weight + bias
    found = fit.held_out_logits
    assert (found.shape, found.dtype) == ((100, k), np.float32)
    wanted -= wanted.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found - found.mean(axis=1, keepdims=True), wanted, atol=0.02)
    loss = -scipy.special.log_softmax(wanted, axis=1)[np.arange(100), y]
    assert fit.steps[0].held_out_loss == pytest.approx(np.average(loss, weights=w), rel=1e-3)
    right = np.average(found.argmax(axis=1) == y, weights=w)
    assert fit.steps[0].held_out_accuracy == pytest.approx(right)


def test_validation_logits_are_the_heads_own() -> None:
    x, y, w = problem(120, 10, 3, weighted=True)
    fit = fit_linear(x[:80], y[:80], class_count=3, weights=w[:80], validation=(x[80:], y[80:], w[80:]))
    np.testing.assert_allclose(fit.held_out_logits, fit.head.logits(x[80:]), atol=1e-3)
    best = min(fit.steps, key=lambda step: step.held_out_loss)
    assert fit.strength == best.strength
    assert best.held_out_accuracy == pytest.approx(
        np.average(fit.head.logits(x[80:]).argmax(axis=1) == y[80:], weights=w[80:])
    )


@pytest.mark.parametrize("how", ["folds", "validation"])
def test_noise_asks_for_a_stronger_penalty(how: str) -> None:
    chosen = []
    for noise in (0.3, 3.0, 30.0):
        x, y, w = problem(200, 20, 3, noise=noise)
        held: Any = (
            {"folds": np.arange(200) % 5} if how == "folds" else {"validation": (x[100:], y[100:], w[100:])}
        )
        n = 200 if how == "folds" else 100
        chosen.append(fit_linear(x[:n], y[:n], class_count=3, **held).strength)
    assert chosen[0] < chosen[1] < chosen[2]
    assert chosen[0] <= 0.01
    assert chosen[2] >= 1


def test_a_class_that_a_fold_leaves_no_image_of() -> None:
    x, y, _ = problem(60, 8, 2)
    y = np.where(np.arange(60) % 5 == 0, 2, y)  # class 2 is all of fold 0
    fit = fit_linear(x, y, class_count=3, folds=np.arange(60) % 5)
    assert np.isfinite(fit.held_out_logits).all()
    assert np.isfinite([step.held_out_loss for step in fit.steps]).all()
    # From the fold that never saw it, class 2 is the least likely.
    assert (fit.held_out_logits[::5].argmin(axis=1) == 2).all()
    # The head itself saw it.
    x[y == 2] += 5 * x.std(axis=0)
    fit = fit_linear(x, y, class_count=3, folds=np.arange(60) % 5, strengths=(0.01,))
    assert (fit.head.logits(x).argmax(axis=1)[::5] == 2).all()


def test_a_class_without_any_image_is_never_likely() -> None:
    x, y, _ = problem(60, 8, 2)
    fit = fit_linear(x, y, class_count=3, folds=np.arange(60) % 5)
    assert fit.head.class_count == 3
    assert fit.head.probabilities(x)[:, 2].max() < 0.05


def test_nothing_held_out_is_an_error() -> None:
    x, y, _ = problem(20, 3, 2)
    with pytest.raises(ValueError, match="expected `folds` or `validation` to choose a strength by"):
        fit_linear(x, y, class_count=2)
