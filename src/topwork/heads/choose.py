"""Choosing the strength of a penalty: a path along the images' strongest directions, then the best on all features.

Held-out images decide: a validation set, or folds that are each left out in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from topwork.heads import design
from topwork.heads.design import Array, Images, Rows, Spectrum, in_blocks
from topwork.heads.head import fit_temperature
from topwork.heads.logistic import Path

STRENGTHS = tuple(float(f"{10 ** (1 - i / 2):.3g}") for i in range(13))  # 10, 3.16, 1, … 1e-5
PATIENCE = 2  # strengths in a row without a lower held-out loss before the path ends
WORTHWHILE = 0.005  # a smaller relative reduction does not count as lower
ENOUGH_HELD_OUT = 3000  # images; the path is computed for as many folds as have these, the others at its end;
ENOUGH_TO_REFINE = 1200  # and on all features, where a step costs more, for as many as have these
MOST_NUMBERS = 1 << 20  # weights of the problems that are solved at once: L-BFGS keeps 20 vectors of them
STEPS = 10  # most steps on all features at a strength
STEP_COST = 20_000_000  # operations for each image that the steps at a strength may take
# Relative decrease of the objective in a step at which solutions end that need not be exact, and that nearly are.
ROUGHLY, CLOSELY = 1e-4, 1e-5
LEAST_STEPS = 4  # they bring most of what there is to gain
COSTLY = 100_000_000  # operations for each image from which on not all folds are refined, as with 100 classes


@dataclass(frozen=True, slots=True)
class Step:
    """One strength of a path: its objective on all training images, and its held-out scores.

    With many images, these are those of the first folds alone (see `ENOUGH_HELD_OUT`).
    """

    strength: float
    objective: float
    held_out_loss: float
    held_out_accuracy: float


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """Scores of features or coordinates: u (K, R), b (K,)."""

    u: Array
    b: Array

    def logits(self, z: Rows) -> Array:
        """float32 (N, K) of `z`, float32 (N, R), read in blocks."""
        weight, bias = self.u.T.astype(np.float32), self.b.astype(np.float32)
        parts = [part for _, part in in_blocks(lambda rows, _: rows @ weight + bias, z)]
        return np.concatenate(parts) if parts else np.zeros((0, len(bias)), np.float32)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The best solution of a path."""

    whole: Affine  # of all training images: for standardised features, or coordinates that lose nothing
    strength: float
    steps: tuple[Step, ...]  # all
    held_out_logits: Array
    held_out_loss: float
    held_out_accuracy: float
    temperature: float  # at which the held-out logits fit best


def choose(
    images: Images,
    targets: Array,
    *,
    class_count: int,
    weights: Array,
    folds: Array | None,
    validation: tuple[Rows, Array, Array] | None,
    strengths: tuple[float, ...],
    tolerance: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Chosen:
    """Compute the path along the images' coordinates; stop when the held-out loss no longer falls; refine the best.

    `validation`: features as the problem has them, targets and weights; if None, `folds` is used. `tolerance`: the
    relative decrease of the objective in a step at which the solution of a strength ends.
    """
    problems, held = _problems(targets, weights, folds, validation)
    many = len(targets) > design.EXACT
    tried = held.enough(ENOUGH_HELD_OUT)  # the problems that the path is computed for
    solver = _Solver(images.coordinates, images.spectrum, targets, class_count)
    # With many images, what follows does the rest.
    steps, u, b = _path(
        images, solver, problems, held, tried, strengths, tolerance or (ROUGHLY if many else None), progress
    )
    strength = min(steps, key=lambda step: step.held_out_loss).strength
    if many and images.features is None:
        _, u, b = solver.solved(solver.paths(problems[tried], (u, b)), strength, tolerance=CLOSELY)
    if len(tried) < len(problems):
        rest = np.setdiff1d(np.arange(len(problems)), tried)
        start = u.mean(axis=1, keepdims=True), b.mean(axis=1, keepdims=True)
        # Solved to the end, where it started makes no difference: nothing is learnt of what is held out.
        paths = solver.paths(problems[rest], start)
        _, more_u, more_b = solver.solved(paths, strength, tolerance=CLOSELY if many else None)
        order = np.argsort(np.concatenate([tried, rest]))
        u = np.concatenate([u, more_u], axis=1)[:, order]
        b = np.concatenate([b, more_b], axis=1)[:, order]
    if images.features is None:
        logits, telling = held.logits(images.coordinates, u, b), np.ones(len(held.targets), bool)
    else:
        strength, u, b, logits, telling = _refined(images, solver, problems, held, strengths, strength, u, b)
    if progress is not None:
        progress(len(strengths) - len(steps))
    loss, accuracy = score(logits[telling], held.targets[telling], held.weights[telling])
    temperature = _temperature(logits, held, telling)
    if not telling.all():
        logits[~telling] *= temperature / _temperature(logits, held, ~telling)  # so that one does for all
    return Chosen(Affine(u[:, 0], b[:, 0]), strength, tuple(steps), logits, loss, accuracy, temperature)


def _temperature(logits: Array, held: _Held, rows: Array) -> float:
    # Laplace's rule of smoothing: a few correct images don't prove certainty.
    smoothing = 1 / (int(rows.sum()) + 2)
    return fit_temperature(logits[rows], held.targets[rows], held.weights[rows], smoothing=smoothing)


def probe(
    images: Images,
    targets: Array,
    *,
    class_count: int,
    weights: Array,
    folds: Array | None,
    validation: tuple[Rows, Array, Array] | None,
    strengths: tuple[float, ...],
    progress: Callable[[int], None] | None = None,
) -> Step:
    """The best strength, roughly, and its held-out scores: the path of `choose` alone, to compare features by."""
    problems, held = _problems(targets, weights, folds, validation)
    tried = held.enough(ENOUGH_HELD_OUT)
    tried = tried[tried > 0] if len(tried) > 1 else tried  # the problem of all images tells nothing
    solver = _Solver(images.coordinates, images.spectrum, targets, class_count)
    steps, _, _ = _path(images, solver, problems, held, tried, strengths, ROUGHLY, progress)
    if progress is not None:
        progress(len(strengths) - len(steps))
    return min(steps, key=lambda step: step.held_out_loss)


def _problems(
    targets: Array, weights: Array, folds: Array | None, validation: tuple[Rows, Array, Array] | None
) -> tuple[Array, _Held]:
    """The weights of each problem, (B, N), and what they are held out for."""
    if validation is not None:
        return weights[None], _Validation(*validation)
    if folds is None:
        raise ValueError("expected `folds` or `validation` to choose a strength by")
    inside = folds[None] == np.arange(folds.max() + 1)[:, None]
    if folds.min() < 0 or len(inside) < 2 or not (weights * ~inside).any(axis=1).all():
        raise ValueError("expected two or more folds, numbered from 0, that leave images to learn from")
    return np.concatenate([weights[None], weights * ~inside]), _Folds(folds, targets, weights)


def _path(
    images: Images,
    solver: _Solver,
    problems: Array,
    held: _Held,
    tried: Array,
    strengths: tuple[float, ...],
    tolerance: float | None,
    progress: Callable[[int], None] | None,
) -> tuple[list[Step], Array, Array]:
    """All steps of the path of the problems `tried`, and weights and biases at the best."""
    along = None if images.features is None else images.directions.vectors
    best: tuple[Step, Array, Array] | None = None
    steps: list[Step] = []
    since = 0
    paths = solver.paths(problems[tried])
    for strength in strengths:
        objective, u, b = solver.solved(paths, strength, tolerance=tolerance)
        step = Step(strength, objective, *held.score(images.coordinates, u, b, tried, along))
        steps.append(step)
        since = 0 if best is None or _lower(step, best[0], by=WORTHWHILE) else since + 1
        if best is None or _lower(step, best[0]):
            best = (step, u, b)
        if progress is not None:
            progress(1)
        if since >= PATIENCE:
            break
    assert best is not None
    return steps, best[1], best[2]


def _refined(
    images: Images,
    along: _Solver,
    problems: Array,
    held: _Held,
    strengths: tuple[float, ...],
    strength: float,
    u: Array,
    b: Array,
) -> tuple[float, Array, Array, Array, Array]:
    """Go on from solutions along the coordinates, on all features.

    Returns a strength, u (K, B, D), b (K, B), the held-out logits, and which of these are by all features, bool (M,).

    All features bear a weaker penalty than few coordinates do, so weaker ones are tried as long as they do better.
    The number of steps is limited by what they cost. An early end is no harm: each fold's solution has still seen
    nothing of what it is held out for. Where even the fewest steps cost more, as with hundreds of classes, only the
    folds that suffice to choose by are refined.
    """
    assert images.features is not None
    assert images.features_spectrum is not None
    features, spectrum = images.features, images.features_spectrum
    solver = _Solver(features, spectrum, along.targets, along.class_count)
    u = np.stack([images.directions.lift(u[:, i]) for i in range(u.shape[1])], axis=1)
    each = 4 * along.class_count * spectrum.width * len(problems)  # operations of a step, an image
    steps = max(min(STEPS, STEP_COST // each), LEAST_STEPS)
    tried = held.enough(ENOUGH_TO_REFINE)
    some: Sequence[Array] = (u[:, tried], b[:, tried])
    best: tuple[float, float, Array, Array] | None = None
    for weaker in strengths[strengths.index(strength) :]:
        paths = solver.paths(problems[tried], (some[0], some[1]))
        _, *some = solver.solved(paths, weaker, most_steps=steps, tolerance=ROUGHLY)
        loss, _ = held.score(features, some[0], some[1], tried, None)
        before = None if best is None else best[0]
        if before is None or loss < before:
            best = (loss, weaker, some[0], some[1])
        if before is not None and loss > (1 - WORTHWHILE) * before:
            break
    assert best is not None
    _, strength, u[:, tried], b[:, tried] = best
    told = np.arange(len(problems))
    if len(tried) < len(problems):
        # All images' problem may start from what a fold has learnt; another fold may not, for it would have seen
        # through it what it is held out for.
        u[:, :1], b[:, :1] = u[:, tried].mean(axis=1, keepdims=True), b[:, tried].mean(axis=1, keepdims=True)
        rest, most = np.setdiff1d(told, tried), 2 * steps
        if LEAST_STEPS * each > COSTLY:
            rest, most, told = np.array([0]), steps, tried
        paths = solver.paths(problems[rest], (u[:, rest], b[:, rest]))
        _, u[:, rest], b[:, rest] = solver.solved(paths, strength, most_steps=most, tolerance=ROUGHLY)
    return strength, u, b, held.logits(features, u, b), held.told_by(told)


@dataclass(frozen=True, slots=True, eq=False)
class _Solver:
    """Makes paths of problems over the same images, a few problems at a time."""

    z: Rows
    spectrum: Spectrum
    targets: Array
    class_count: int

    def paths(self, problems: Array, start: tuple[Array, Array] | None = None) -> list[Path]:
        count = max(1, MOST_NUMBERS // (self.class_count * max(1, self.spectrum.width)))
        made = []
        for i in range(0, len(problems), count):
            group, first = problems[i : i + count], None
            if start is not None:
                one = start[0].shape[1] == 1
                first = (
                    np.repeat(start[0], len(group), axis=1) if one else start[0][:, i : i + count],
                    np.repeat(start[1], len(group), axis=1) if one else start[1][:, i : i + count],
                )
            made.append(Path(self.z, self.spectrum, self.targets, self.class_count, group, first))
        return made

    @staticmethod
    def solved(
        paths: list[Path], strength: float, *, most_steps: int = 1000, tolerance: float | None = None
    ) -> tuple[float, Array, Array]:
        """The first problem's objective, all weights (K, B, R) and biases (K, B)."""
        objectives = [path.solve(strength, most_steps=most_steps, tolerance=tolerance) for path in paths]
        u = np.concatenate([path.u for path in paths], axis=1)
        return objectives[0], u, np.concatenate([path.b for path in paths], axis=1)


class _Held(Protocol):
    """Images that are held out, with the problems that have not learnt from them."""

    targets: Array
    weights: Array

    def enough(self, images: int) -> Array:
        """The problems that hold out this many images, or all."""

    def score(
        self, coordinates: Rows, u: Array, b: Array, problems: Array, along: Array | None
    ) -> tuple[float, float]:
        """Loss and accuracy by these problems' solutions in the coordinates, which lie `along` these directions."""

    def told_by(self, problems: Array) -> Array:
        """The images that one of these problems is held out for, bool (M,)."""

    def logits(self, z: Rows, u: Array, b: Array) -> Array:
        """float32 (M, K) by the solutions of all problems, on training images as the problems have them."""


class _Validation:
    """A set of its own; there is one problem."""

    def __init__(self, z: Rows, targets: Array, weights: Array) -> None:
        self._z, self.targets, self.weights = z, targets, weights

    def enough(self, images: int) -> Array:
        return np.arange(1)

    def score(
        self, coordinates: Rows, u: Array, b: Array, problems: Array, along: Array | None
    ) -> tuple[float, float]:
        weight = u[:, 0].astype(np.float32)
        weight = weight if along is None else weight @ along.T
        return score(Affine(weight, b[:, 0]).logits(self._z), self.targets, self.weights)

    def told_by(self, problems: Array) -> Array:
        return np.ones(len(self.targets), bool)

    def logits(self, z: Rows, u: Array, b: Array) -> Array:
        return Affine(u[:, 0], b[:, 0]).logits(self._z)


class _Folds:
    """The training images; problem 0 has learnt from all, problem 1 + f not from fold f."""

    def __init__(self, folds: Array, targets: Array, weights: Array) -> None:
        self._folds, self.targets, self.weights = folds, targets, weights

    def enough(self, images: int) -> Array:
        sizes = np.cumsum(np.bincount(self._folds))
        count = min(len(sizes), int(np.searchsorted(sizes, images)) + 1)
        return np.arange(0 if count == len(sizes) else 1, count + 1)

    def score(
        self, coordinates: Rows, u: Array, b: Array, problems: Array, along: Array | None
    ) -> tuple[float, float]:
        rows = self.told_by(problems)
        said = self._said(coordinates, u, b, problems)
        return score(said[rows], self.targets[rows], self.weights[rows])

    def told_by(self, problems: Array) -> Array:
        return np.asarray(np.isin(self._folds, problems - 1))

    def logits(self, z: Rows, u: Array, b: Array) -> Array:
        return self._said(z, u, b, np.arange(u.shape[1]))

    def _said(self, z: Rows, u: Array, b: Array, problems: Array) -> Array:
        """float32 (N, K); the rows of folds that no problem is held out for are left as they are."""
        solutions = {
            int(p) - 1: (u[:, i].T.astype(np.float32), b[:, i].astype(np.float32))
            for i, p in enumerate(problems)
        }
        every = np.empty((len(self._folds), len(u)), np.float32)

        def fill(rows: Array, block: slice) -> None:
            folds = self._folds[block]
            for fold in np.unique(folds).tolist():
                if fold in solutions:
                    inside, (weight, bias) = folds == fold, solutions[fold]
                    every[block][inside] = rows[inside] @ weight + bias

        for _ in in_blocks(fill, z):
            pass
        return every


def _lower(step: Step, than: Step, *, by: float = 0.0) -> bool:
    return step.held_out_loss < (1 - by) * than.held_out_loss


def score(logits: Array, targets: Array, weights: Array) -> tuple[float, float]:
    """Weighted mean log-loss and accuracy."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(targets)), targets]
    right = logits.argmax(axis=1) == targets
    return float(np.average(losses, weights=weights)), float(np.average(right, weights=weights))
