"""The linear head: L2-regularised multinomial logistic regression on standardised features.

The strength of the penalty is chosen along a path by the held-out log-loss; `topwork.heads.logistic` describes the
problem and its solution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from topwork.heads.head import Head, Layer, fit_temperature
from topwork.heads.logistic import Array, Basis, walk

STRENGTHS = tuple(float(f"{10 ** (1 - i / 2):.3g}") for i in range(13))  # 10, 3.16, 1, … 1e-5
PATIENCE = 2  # strengths in a row without a lower held-out loss before the path ends
WORTHWHILE = 0.005  # a smaller relative reduction does not count as lower
SMALLEST_DEVIATION = 1e-6  # relative to the largest deviation; a feature that varies less is constant


@dataclass(frozen=True, slots=True)
class Step:
    """One strength of a path: its objective on all training images, and its held-out scores."""

    strength: float
    objective: float
    held_out_loss: float
    held_out_accuracy: float


@dataclass(frozen=True, slots=True)
class LinearFit:
    """The head at the best strength, and the path."""

    head: Head
    strength: float
    steps: tuple[Step, ...]
    held_out_logits: Array  # float32 (M, K): of the validation images or, with folds, out-of-fold


@dataclass(frozen=True, slots=True)
class Chosen:
    """The best solution of a path."""

    weight: Array  # float32 (D, K)
    bias: Array  # float (K,)
    best: Step
    steps: tuple[Step, ...]  # all
    held_out_logits: Array
    temperature: float  # at which the held-out logits fit best


def fit_linear(
    x: Array,
    targets: Array,
    *,
    class_count: int,
    weights: Array | None = None,
    folds: Array | None = None,
    validation: tuple[Array, Array, Array] | None = None,
    strengths: tuple[float, ...] = STRENGTHS,
) -> LinearFit:
    """Fit along `strengths` and keep the one with the lowest held-out log-loss.

    Args:
        x: features, float32 (N, D).
        targets: int64 (N,) in [0, class_count).
        weights: float (N,), positive; None for 1.
        folds: int64 (N,) from 0, each image's fold, when there is no validation set; two or more.
        validation: features, targets and weights of images kept out of training.
        strengths: the values of λ, descending.
    """
    weights = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    mean, deviation = moments(x, weights)
    if validation is not None:
        validation = (standardise(validation[0], mean, deviation), *validation[1:])
    basis = Basis.of(standardise(x, mean, deviation), weights)
    chosen = choose(
        basis,
        targets,
        class_count=class_count,
        weights=weights,
        folds=folds,
        validation=validation,
        strengths=strengths,
    )
    layer = fold_affine(chosen.weight, chosen.bias, mean, deviation)
    return LinearFit(
        Head("linear", (layer,), chosen.temperature),
        chosen.best.strength,
        chosen.steps,
        chosen.held_out_logits,
    )


def choose(
    basis: Basis,
    targets: Array,
    *,
    class_count: int,
    weights: Array,
    folds: Array | None,
    validation: tuple[Array, Array, Array] | None,
    strengths: tuple[float, ...],
) -> Chosen:
    """Compute the path over features in their basis; stop when the held-out loss no longer falls.

    `validation`: features (scaled as those of the basis), targets and weights; if None, `folds` is used.
    """
    problems = weights[None]
    if validation is not None:
        held_y, held_w = validation[1:]
    elif folds is not None:
        inside = folds[None] == np.arange(folds.max() + 1)[:, None]
        if folds.min() < 0 or len(inside) < 2 or not (weights * ~inside).any(axis=1).all():
            raise ValueError("expected two or more folds, numbered from 0, that leave images to learn from")
        problems = np.concatenate([problems, weights * ~inside])
        held_y, held_w = targets, weights
    else:
        raise ValueError("expected `folds` or `validation` to choose a strength by")
    best: tuple[Step, Array, Array, Array] | None = None
    steps: list[Step] = []
    since = 0
    for strength, objective, u, b in walk(
        basis.coordinates, basis.variances, targets, class_count, problems, strengths
    ):
        if validation is not None:
            logits = validation[0] @ basis.lift(u[:, 0]) + b[:, 0].astype(np.float32)
        else:
            assert folds is not None
            logits = _out_of_fold(basis.coordinates, u, b, folds)
        step = Step(strength, objective, *_score(logits, held_y, held_w))
        steps.append(step)
        since = 0 if best is None or _lower(step, best[0], by=WORTHWHILE) else since + 1
        if best is None or _lower(step, best[0]):
            best = (step, basis.lift(u[:, 0]), b[:, 0].copy(), logits)
        if since >= PATIENCE:
            break
    assert best is not None
    # Laplace's rule of smoothing: a few correct images don't prove certainty.
    temperature = fit_temperature(best[3], held_y, held_w, smoothing=1 / (len(held_y) + 2))
    return Chosen(best[1], best[2], best[0], tuple(steps), best[3], temperature)


def solve_path(
    x: Array,
    targets: Array,
    *,
    class_count: int,
    weights: Array | None = None,
    strengths: tuple[float, ...] = STRENGTHS,
) -> Iterator[tuple[Array, Array]]:
    """The solution for each of `strengths`, W (D, K) and b (K,), on the given features.

    Without standardisation or held-out images, for callers that choose by a criterion of their own.
    """
    weights = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    basis = Basis.of(x, weights)
    for _, _, u, b in walk(
        basis.coordinates, basis.variances, targets, class_count, weights[None], strengths
    ):
        yield basis.lift(u[:, 0]), b[:, 0].astype(np.float32)


def _lower(step: Step, than: Step, *, by: float = 0.0) -> bool:
    return step.held_out_loss < (1 - by) * than.held_out_loss


def _out_of_fold(coordinates: Array, u: Array, b: Array, folds: Array) -> Array:
    """Out-of-fold logits, float32 (N, K)."""
    logits = np.empty((coordinates.shape[1], len(u)), np.float32)
    for fold in range(int(folds.max()) + 1):
        inside = folds == fold
        problem = u[:, 1 + fold].astype(np.float32)
        logits[inside] = (problem @ coordinates[:, inside] + b[:, 1 + fold, None].astype(np.float32)).T
    return logits


def _score(logits: Array, targets: Array, weights: Array) -> tuple[float, float]:
    """Weighted mean log-loss and accuracy."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(targets)), targets]
    right = logits.argmax(axis=1) == targets
    return float(np.average(losses, weights=weights)), float(np.average(right, weights=weights))


def moments(x: Array, weights: Array) -> tuple[Array, Array]:
    """Each feature's weighted mean and standard deviation; infinity if it is constant, so that it is ignored."""
    shares = (weights / weights.sum()).astype(np.float32)
    mean = shares @ x
    deviation = np.sqrt(shares @ np.square(x - mean))
    # A large constant appears to vary, by float32 rounding.
    constant = deviation <= SMALLEST_DEVIATION * np.maximum(deviation.max(), 10 * np.abs(mean))
    return mean, np.where(constant, np.float32(np.inf), deviation)


def standardise(x: Array, mean: Array, deviation: Array) -> Array:
    z = x - mean
    z /= deviation
    return z


def fold_affine(weight: Array, bias: Array, mean: Array, deviation: Array) -> Layer:
    """The same function of unstandardised features: ((x − μ) / σ) W + b = x (W / σ) + (b − μ / σ · W)."""
    weight = weight.astype(np.float64) / deviation[:, None]
    return Layer(
        np.ascontiguousarray(weight, np.float32), (bias - mean.astype(np.float64) @ weight).astype(np.float32)
    )
