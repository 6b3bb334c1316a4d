"""The record of a fitted head: affine layers, with ReLU or a kernel between them, and a temperature.

A head can be saved as a few arrays, folded into an exported graph and computed with NumPy alone. How it was fitted
(`linear`, `kernel`, `mlp`, `centroid`) makes no difference afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topwork.errors import InputError

KINDS = ("linear", "kernel", "mlp", "centroid")

# The search range of the temperature. Beyond it, the probabilities are all-or-nothing, or uniform.
TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """`x @ weight + bias`: weight float32 (D_in, D_out), bias float32 (D_out,)."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A fitted classifier on feature vectors: layers with ReLU between them; the last gives the logits.

    With `landmarks`, float32 (M, R), there are two layers with a Gaussian kernel between them instead of ReLU: the
    similarity to each landmark, exp(−‖y − ℓ‖²). The caller must pass the features that the head was fitted on.

    >>> layer = Layer(np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    >>> Head("linear", (layer,)).probabilities(np.float32([[2, 2]]))
    array([[0.5, 0.5]], dtype=float32)
    """

    kind: str
    layers: tuple[Layer, ...]
    temperature: float = 1.0
    landmarks: NDArray[np.float32] | None = None

    @property
    def width(self) -> int:
        """The number of input features."""
        return int(self.layers[0].weight.shape[0])

    @property
    def class_count(self) -> int:
        """The number of classes."""
        return int(self.layers[-1].bias.shape[0])

    def logits(self, x: ArrayLike) -> NDArray[np.float32]:
        """The scores before the softmax, float32 (N, K), of features `x` float32 (N, D), any finite range.

        A row's result depends, bit for bit, on that row alone: not on the other rows or its position.

        Raises:
            InputError: `x` is not (N, D) with the D that the head was fitted on.
        """
        # C order matters: for strided rows, matmul uses other kernels, which round differently.
        rows = np.ascontiguousarray(x, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise InputError(
                f"`x` must have shape (N, {self.width}), the features this head was fitted on; got "
                f"{rows.shape}: take the features from the same backbone and stages"
            )
        for index, layer in enumerate(self.layers):
            if index and self.landmarks is not None:
                rows = likeness(rows, self.landmarks)
            elif index:
                np.maximum(rows, 0, out=rows)
            rows = _by_row(rows, layer.weight)  # (N, D_out)
            rows += layer.bias
        return rows

    def probabilities(self, x: ArrayLike) -> NDArray[np.float32]:
        """Softmax of logits / temperature, float32 (N, K) in [0, 1]; rows sum to 1 (to within 1e-6).

        Raises:
            InputError: as `logits`.
        """
        return softmax(self.logits(x), self.temperature).astype(np.float32)


def likeness(y: ArrayLike, landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """exp(−‖y − ℓ‖²) of each row of `y` float32 (N, R) to each landmark, float32 (N, M) in [0, 1].

    As in `Head.logits`, a row's result depends, bit for bit, on that row alone.
    """
    rows = np.ascontiguousarray(y, dtype=np.float32)
    exponent = 2 * _by_row(rows, np.ascontiguousarray(landmarks.T))
    exponent -= np.einsum("ij,ij->i", rows, rows)[:, None]
    exponent -= np.einsum("ij,ij->i", landmarks, landmarks)
    return np.exp(np.minimum(exponent, 0, out=exponent), out=exponent)


def _by_row(rows: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """`rows @ weight`, each row by itself."""
    # `rows @ weight` is one matrix product, whose kernels round a row differently depending on the
    # number of rows and the row's position: tiles at the edge sum in another order. Padding to
    # blocks of 16 or 64 rows does not help (OpenBLAS's AVX2 tiles are 12 rows wide: 2 or 3
    # different results by position). As a stack of (1, D) matrices, each row is one call of the same
    # vector-times-matrix product with the same sizes, hence the same bits, by construction.
    # It costs about 1 to 8 µs a row for a linear head, 0.1 ms for Dense 512: little compared with
    # the milliseconds for the row's features.
    product: NDArray[np.float32] = np.matmul(rows[:, None, :], weight)[:, 0, :]
    return product


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Softmax of `logits / temperature` over the last axis, float64, safe for logits of any finite size."""
    scores = np.asarray(logits, dtype=np.float64) / temperature
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def fit_temperature(
    logits: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None, *, smoothing: float = 0.0
) -> float:
    """The temperature in [0.05, 20] at which held-out `logits` fit their `targets` best; 1.0 if there are none.

    Minimises the (weighted) negative log-likelihood over one scalar, as in Guo et al. 2017, "On calibration
    of modern neural networks" (https://arxiv.org/abs/1706.04599). `logits` float (N, K), finite, of
    images the head was not fitted on; `targets` int (N,) in 0..K-1; `weights` (N,), at least 0.
    `smoothing`, from 0 up to 1, takes that share of each target and spreads it over all classes. Otherwise a
    few images that are all correct would give the lowest possible temperature; 1 / (N + 2) is Laplace's rule,
    as in Platt 1999.

    Raises:
        InputError: shapes that do not fit together, a target out of range, a value that is not finite.

    >>> round(fit_temperature([[4.0, 0.0]] * 4, [0, 0, 0, 1]), 6)  # sure by e^4 : 1, right by 3 : 1
    3.640957
    """
    scores = np.asarray(logits, dtype=np.float64)
    truth = np.asarray(targets)
    if len(truth) == 0:
        return 1.0
    if scores.ndim != 2:
        raise InputError(f"`logits` must have shape (N, classes); got {scores.shape}")
    truth, sample = check_samples(scores, truth, weights, class_count=scores.shape[1])
    # With b = 1 / T and d = z - z_target, a row's loss is log(sum(exp(b d))) - b mean_q(d), where q is the
    # smoothed target: convex in b, with the slope mean_p(d) - mean_q(d), p = softmax(b d). So the slope
    # changes sign once, and bisection on it cannot miss the minimum.
    gap = scores - scores[np.arange(len(truth)), truth][:, None]  # (N, K)
    wanted = smoothing * float(sample @ gap.mean(axis=1))

    def slope(log_temperature: float) -> float:
        found = (softmax(gap, math.exp(log_temperature)) * gap).sum(axis=1)
        return float(sample @ found) - wanted

    if not gap.any():
        return 1.0  # all classes always score the same: no temperature changes anything
    cold, hot = (math.log(bound) for bound in TEMPERATURES)
    if slope(cold) <= 0:  # an even lower one would fit better
        return TEMPERATURES[0]
    if slope(hot) >= 0:
        return TEMPERATURES[1]
    for _ in range(40):  # 6 / 2^40: about 5e-12 of the temperature
        middle = (cold + hot) / 2
        cold, hot = (middle, hot) if slope(middle) > 0 else (cold, middle)
    return math.exp((cold + hot) / 2)


def check_samples(
    x: NDArray[np.floating], targets: ArrayLike, weights: ArrayLike | None, *, class_count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Check that `targets` and `weights` fit `x` (N, D); return them as int64 (N,) and float64 (N,), ones if None.

    Raises:
        InputError: shapes don't match, there are no rows, a target is not in 0..class_count-1, a value of `x`
            is not finite, a weight is negative or not finite, or all weights are 0.
    """
    truth = np.asarray(targets)
    if x.ndim != 2 or truth.shape != x.shape[:1] or not len(truth):
        raise InputError(
            f"`x` must have shape (N, D) and `targets` (N,), N at least 1; got {x.shape} and {truth.shape}"
        )
    if truth.dtype.kind not in "iu":
        raise InputError(f"`targets` must be integers, the indices of classes; got {truth.dtype}")
    if truth.min() < 0 or truth.max() >= class_count:
        where = int(np.flatnonzero((truth < 0) | (truth >= class_count))[0])
        raise InputError(
            f"`targets` must be in 0..{class_count - 1}; got {truth[where]} at row {where}: "
            "remove images without a label"
        )
    if not np.isfinite(x).all():
        where = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise InputError(f"`x` must be finite; row {where} has a value that is not a number or infinite")
    sample = np.ones(len(truth)) if weights is None else np.asarray(weights, dtype=np.float64)
    if sample.shape != truth.shape:
        raise InputError(f"`weights` must have shape {truth.shape}, one per row; got {sample.shape}")
    if not np.isfinite(sample).all() or sample.min() < 0 or sample.max() == 0:
        raise InputError("`weights` must be finite, none negative, and not all 0")
    return truth.astype(np.int64), sample
