"""The kernel head: logistic regression on similarity to training images, for non-linear decision boundaries.

The similarity to a landmark ℓ is the Gaussian exp(−‖y − ℓ‖²), where y are standardised features along their 512
strongest principal directions, scaled so that the mean squared distance of two training images is 1. Landmarks are
training images, at most 2,048 of them. With all training images as landmarks, this is kernel logistic regression in
those coordinates; with fewer, Nyström's approximation of it (Williams and Seeger 2001, "Using the Nyström method to
speed up kernel machines"): with the landmarks' kernel matrix K = U Λ Uᵀ, the features k(y) U Λ^-½ have the kernel
as their inner product, and the linear head's path is computed on them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from topwork.heads.choose import choose
from topwork.heads.design import Array, Images, Rows, eigen, exact_images, images_of, placed
from topwork.heads.head import Head, Layer, likeness
from topwork.heads.linear import LinearFit, fit_of, fold_affine

DIRECTIONS = 512  # the rest is mostly noise: 512 did better than all on held-out images
LANDMARKS = 2048
STRENGTHS = tuple(float(f"{10 ** (-1 - i / 2):.3g}") for i in range(11))  # 0.1 … 1e-6
SMALLEST_LIKENESS = 1e-6  # eigenvalues of K below this share of the largest are float32 rounding


def fit_kernel(
    x: Rows,
    targets: Array,
    *,
    class_count: int,
    weights: Array | None = None,
    folds: Array | None = None,
    validation: tuple[Rows, Array, Array] | None = None,
    strengths: tuple[float, ...] = STRENGTHS,
    seed: int = 0,
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
        seed: for choosing landmarks, if there are more than 2,048 images.
        progress: called with the number of strengths that were newly solved or passed over.
    """
    weights = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    project, y = _projected(images_of(x, weights))
    chosen_rows = np.arange(len(y))
    if len(y) > LANDMARKS:
        chosen_rows = np.sort(np.random.default_rng(seed).choice(len(y), LANDMARKS, replace=False))
    landmarks = np.ascontiguousarray(y[chosen_rows])
    among = likeness(landmarks, landmarks).astype(np.float64)
    strengths_of, directions = eigen((among + among.T) / 2)
    kept = strengths_of > SMALLEST_LIKENESS * strengths_of[-1]
    whiten = (directions[:, kept] / np.sqrt(strengths_of[kept])).astype(np.float32)

    phi = likeness(y, landmarks) @ whiten
    mean = (weights / weights.sum()).astype(np.float32) @ phi
    images = exact_images(phi - mean, weights)

    def place(x: Array) -> Array:
        near = likeness(x @ project.weight + project.bias, landmarks) @ whiten
        return images.directions.along(near - mean)

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
    last = images.directions.lift(chosen.whole.u).T
    weight = whiten.astype(np.float64) @ last
    bias = chosen.whole.b - mean.astype(np.float64) @ last
    layer = Layer(np.ascontiguousarray(weight, np.float32), bias.astype(np.float32))
    head = Head("kernel", (project, layer), chosen.temperature, landmarks)
    return fit_of(head, chosen, images, targets, class_count, weights, place)


def _projected(images: Images) -> tuple[Layer, Array]:
    """The map from features to coordinates in which the mean squared distance of two images is 1, and the images."""
    directions, variances = images.directions, images.spectrum.variances
    strongest = slice(max(0, len(variances) - DIRECTIONS), None)  # in ascending order
    spread = float(variances[strongest].sum())  # half the mean squared distance of two images
    scale = np.float32(np.sqrt(2 * spread) if spread > 0 else 1)
    chosen = np.eye(len(variances), dtype=np.float32)[strongest] / scale
    weight = directions.lift(chosen).T
    project = fold_affine(weight, np.zeros(len(chosen)), directions.mean, directions.deviation)
    return project, images.coordinates[:, strongest] / scale
