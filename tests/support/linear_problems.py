"""Classification problems, and what scikit-learn makes of them in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special
from sklearn.linear_model import LogisticRegression

Array = np.ndarray[Any, Any]


def problem(
    n: int, d: int, k: int, *, seed: int = 0, noise: float = 2.0, weighted: bool = False
) -> tuple[Array, Array, Array]:
    """Features float32 (N, D) about one centre a class, on scales from 0.01 to 100; targets; weights."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    x = rng.normal(size=(k, d))[y] + noise * rng.normal(size=(n, d))
    x = (x + rng.normal(size=d)) * 10 ** rng.uniform(-2, 2, d)
    return x.astype(np.float32), y, rng.uniform(0.2, 3, n) if weighted else np.ones(n)


def standardised(x: Array, w: Array) -> Array:
    """In float64; a constant becomes 0."""
    mean = np.average(x.astype(np.float64), axis=0, weights=w)
    deviation = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=w))
    return np.where(deviation > 1e-5, (x - mean) / np.maximum(deviation, 1e-5), 0)


def objective_at(z: Array, y: Array, w: Array, strength: float, weight: Array, bias: Array) -> float:
    losses = -scipy.special.log_softmax(z @ weight + bias, axis=1)[np.arange(len(y)), y]
    return float(np.average(losses, weights=w) + strength / 2 * (weight**2).sum())


def sklearns_optimum(z: Array, y: Array, w: Array, k: int, strength: float) -> tuple[Array, Array]:
    """Its optimum: it minimises C·Σ w·loss + ½‖W‖², so that C = 1 / (λ Σ w).

    With two classes it has one vector v, where ours has two columns. At the optimum these are ∓v/2, whose
    penalty λ/2·‖W‖² is λ/4·‖v‖²: half its strength.
    """
    halved = strength / 2 if k == 2 else strength
    model = LogisticRegression(C=1 / (halved * w.sum()), tol=1e-10, max_iter=20_000).fit(z, y, w)
    weight, bias = model.coef_.T, model.intercept_
    if k == 2:
        weight, bias = np.concatenate([-weight, weight], axis=1) / 2, np.array([-bias[0], bias[0]]) / 2
    return weight, bias
