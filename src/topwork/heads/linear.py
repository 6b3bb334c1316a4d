"""The linear head: L2-regularised multinomial logistic regression on standardised features.

The strength of the penalty is chosen along a path by the held-out log-loss; `topwork.heads.choose` does that,
`topwork.heads.logistic` describes the problem and its solution, `topwork.heads.design` what it is solved on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from topwork.heads.choose import ROUGHLY, STEPS, STRENGTHS, Affine, Chosen, Step, choose, probe
from topwork.heads.design import Array, Images, Rows, exact_images, images_of, placed, standardise
from topwork.heads.head import Head, Layer
from topwork.heads.logistic import Path


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """A linear head's problem, to be solved again for other images, at the strength that was chosen."""

    images: Images
    targets: Array  # int64 (N,)
    class_count: int
    weights: Array  # float64 (N,)
    strength: float
    whole: Affine  # the solution, for standardised features or, if nothing is lost by them, coordinates
    place: Callable[[Array], Array]  # what `whole` takes, of raw features

    def along(self, rows: Array) -> Affine:
        """The solution for some of the images, in the coordinates alone, where there are fewer than features."""
        z, spectrum = self.images.coordinates[rows], self.images.spectrum
        path = Path(z, spectrum, self.targets[rows], self.class_count, self.weights[None, rows])
        before = [strength for strength in STRENGTHS[::4] if strength > self.strength]
        for strength in (*before, self.strength):  # each starts near the one before
            path.solve(strength, tolerance=ROUGHLY)
        return Affine(path.u[:, 0], path.b[:, 0])

    def again(self, x: Rows, targets: Array, weights: Array) -> Affine:
        """The solution for other images, starting from this one; for what `place` makes of raw features `x`."""
        z = placed(self.place, x)
        spectrum = self.images.features_spectrum or self.images.spectrum
        start = self.whole.u[:, None].astype(np.float64), self.whole.b[:, None].astype(np.float64)
        path = Path(z, spectrum, targets, self.class_count, weights[None], start)
        path.solve(self.strength, most_steps=STEPS)
        return Affine(path.u[:, 0], path.b[:, 0])


@dataclass(frozen=True, slots=True)
class LinearFit:
    """The head at the best strength, and the path."""

    head: Head
    strength: float
    steps: tuple[Step, ...]
    held_out_logits: Array  # float32 (M, K): of the validation images or, with folds, out-of-fold
    held_out_loss: float  # of all of these, weighted
    held_out_accuracy: float
    solved: Solved  # the training images as the head was solved on them


def fit_linear(
    x: Rows,
    targets: Array,
    *,
    class_count: int,
    weights: Array | None = None,
    folds: Array | None = None,
    validation: tuple[Rows, Array, Array] | None = None,
    strengths: tuple[float, ...] = STRENGTHS,
    progress: Callable[[int], None] | None = None,
) -> LinearFit:
    """Fit along `strengths` and keep the one with the lowest held-out log-loss.

    Args:
        x: features, float32 (N, D).
        targets: int64 (N,) in [0, class_count).
        weights: float (N,), positive; None for 1.
        folds: int64 (N,) from 0, each image's fold, when there is no validation set; two or more.
        validation: features, targets and weights of images kept out of training.
        strengths: the values of λ, descending.
        progress: called with the number of strengths that were newly solved or passed over.
    """
    weights = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    images, place = images_and_place(x, weights)
    directions = images.directions
    chosen = choose(
        images,
        targets,
        class_count=class_count,
        weights=weights,
        folds=folds,
        validation=None if validation is None else (placed(place, validation[0]), *validation[1:]),
        strengths=strengths,
        progress=progress,
    )
    u = chosen.whole.u if images.features is not None else directions.lift(chosen.whole.u)
    layer = fold_affine(u.T, chosen.whole.b, directions.mean, directions.deviation)
    return fit_of(
        Head("linear", (layer,), chosen.temperature), chosen, images, targets, class_count, weights, place
    )


def probe_linear(
    x: Rows,
    targets: Array,
    *,
    class_count: int,
    weights: Array,
    folds: Array | None = None,
    validation: tuple[Rows, Array, Array] | None = None,
    strengths: tuple[float, ...] = STRENGTHS,
    progress: Callable[[int], None] | None = None,
) -> Step:
    """How good `fit_linear` would be, roughly, in a part of its time; arguments as there."""
    images, place = images_and_place(x, weights)
    return probe(
        images,
        targets,
        class_count=class_count,
        weights=weights,
        folds=folds,
        validation=None if validation is None else (placed(place, validation[0]), *validation[1:]),
        strengths=strengths,
        progress=progress,
    )


def images_and_place(x: Rows, weights: Array) -> tuple[Images, Callable[[Array], Array]]:
    """Training images ready for solving, and what brings raw features of others to where they are."""
    images = images_of(x, weights)
    directions = images.directions

    def place(x: Array) -> Array:
        if images.features is None:
            return directions.coordinates(x)
        return standardise(x, directions.mean, directions.deviation)

    return images, place


def fit_of(
    head: Head,
    chosen: Chosen,
    images: Images,
    targets: Array,
    class_count: int,
    weights: Array,
    place: Callable[[Array], Array],
) -> LinearFit:
    """The record of a head whose last layer is `chosen`."""
    return LinearFit(
        head,
        chosen.strength,
        chosen.steps,
        chosen.held_out_logits,
        chosen.held_out_loss,
        chosen.held_out_accuracy,
        Solved(images, targets, class_count, weights, chosen.strength, chosen.whole, place),
    )


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
    images = exact_images(x, weights)
    path = Path(images.coordinates, images.spectrum, targets, class_count, weights[None])
    for strength in strengths:
        path.solve(strength)
        yield images.directions.lift(path.u[:, 0]).T, path.b[:, 0].astype(np.float32)


def fold_affine(weight: Array, bias: Array, mean: Array, deviation: Array) -> Layer:
    """The same function of unstandardised features: ((x − μ) / σ) W + b = x (W / σ) + (b − μ / σ · W)."""
    weight = weight.astype(np.float64) / deviation[:, None]
    return Layer(
        np.ascontiguousarray(weight, np.float32), (bias - mean.astype(np.float64) @ weight).astype(np.float32)
    )
