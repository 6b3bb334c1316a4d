"""Multinomial logistic regression with an L2 penalty, along a path of strengths, for several problems at once.

It minimises, for weights W (D, K) and biases b, over features x with sample weights w summing to 1,

    Σ_i w_i · −log softmax(x_i W + b)[y_i]  +  λ/2 · ‖W‖²

for one strength λ after another, from strong to weak, each starting from the previous solution. The choice of
coordinates makes it fast. With the features' covariance XᵀdX = V diag(s) Vᵀ, the Hessian of the loss is
close to h_k·diag(s) in V's coordinates, where h_k = Σ w p_k(1 − p_k) is class k's mean curvature (Böhning 1992
bounds it by ½). Scaling coordinate (j, k) by 1/√(h_k s_j + λ) makes the problem well conditioned, and L-BFGS
(Liu and Nocedal 1989) then needs a handful of steps for each λ. The strongest directions are enough for this: along
the others a mean variance serves. All folds of a cross-validation share V and are
solved at once: a fold is the same problem with the weights of its own images set to zero.

The loss and its gradient are sums over blocks of images, in a fixed order: blocks are shared out among threads, each
with one BLAS thread, so that memory stays small, no thread waits for another, and the result is the same to the bit
whatever the number of threads.

Arrays have the order (classes, problems, images), so that the softmax runs along contiguous rows whatever K is.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from topwork.heads.design import Rows, Spectrum
from topwork.heads.lbfgs import minimise
from topwork.parallel import core_count, one_blas_thread

Array = np.ndarray[Any, np.dtype[Any]]

TOLERANCE = 1e-6  # relative decrease of the objective in one step below which a strength is solved
BLOCK = 256  # images whose coordinates stay in a core's cache between the two products
WIDEST = 5 << 18  # numbers of these; of wide features fewer images
SPANS = 16  # sums of blocks, added up in their order
BLOCK_BYTES = 1 << 26  # for the probabilities of a block


class Sums(NamedTuple):
    """Of one point, over all images."""

    losses: Array  # each problem's mean loss, float64 (B,)
    gradient_u: Array  # without the penalty, float32 (K, B, R)
    gradient_b: Array  # float64 (K, B)
    curvature: Array  # h, float64 (K, B); 0 if it wasn't asked for


class Path:
    """Solutions of several problems over the same images, for one strength after another.

    Args:
        z: features, centred, float32 (N, D), or rows to be read in parts (see `topwork.heads.design.Rows`).
        spectrum: of their covariance.
        targets: int64 (N,) in 0..K-1.
        class_count: K.
        problems: sample weights of each problem, float (B, N).
        start: weights u (K, B, D) and biases b (K, B); None for the class frequencies.
    """

    def __init__(
        self,
        z: Rows,
        spectrum: Spectrum,
        targets: Array,
        class_count: int,
        problems: Array,
        start: tuple[Array, Array] | None = None,
    ) -> None:
        self._z = z
        self._spectrum = spectrum
        self._targets = targets
        self._shares = (problems / problems.sum(axis=1, keepdims=True)).astype(np.float32)  # (B, N)
        if start is None:
            counts = np.stack([np.bincount(targets, row, minlength=class_count) for row in problems], axis=1)
            # The weighted class frequencies, the optimum without features. A class absent from a fold counts as
            # half an image.
            prior = np.log(np.maximum(counts, 0.5 * problems.max()) / problems.sum(axis=1))
            start = np.zeros((class_count, len(problems), spectrum.width)), prior - prior.mean(axis=0)
        # Half the memory traffic where vectors are long; the few steps that are taken there don't need more digits.
        self._number = np.float64 if spectrum.vectors is None else np.float32
        self.u: Array = start[0].astype(self._number)  # (K, B, D)
        self.b: Array = start[1]  # (K, B)
        self._before: tuple[Array, Array] | None = None  # the solution for the previous strength

    def solve(self, strength: float, *, most_steps: int = 1000, tolerance: float | None = None) -> float:
        """Move `u` and `b` to the optimum for this strength; return the first problem's objective there."""
        with one_blas_thread(), ThreadPoolExecutor(core_count()) as pool:
            start = self._go_on(strength, pool)
            curvature = start.curvature + 1e-9
            scale_b = 1 / np.sqrt(curvature)
            n_u = self.u.size
            known, last = [start], (np.zeros(0), start)  # at the first point, and at the last one evaluated

            def scaled(u: Array, power: float) -> Array:
                return self._spectrum.scaled(u.reshape(self.u.shape), curvature, strength, power, pool)

            def objective(v: Array) -> tuple[float, Array]:
                nonlocal last
                u, b = scaled(v[:n_u], -0.5), v[n_u:].reshape(self.b.shape) * scale_b
                sums = known.pop() if known else self._sums(u, b, pool)
                last = (v, sums)
                gradient_u = scaled(sums.gradient_u + strength * u, -0.5)
                return _value(sums, u, strength), self._joined(gradient_u, sums.gradient_b * scale_b)

            first = self._joined(scaled(self.u, 0.5), self.b / scale_b)
            found = minimise(objective, first, tolerance=tolerance or TOLERANCE, most_steps=most_steps)
            self.u = scaled(found.point[:n_u], -0.5)
            self.b = found.point[n_u:].reshape(self.b.shape).astype(np.float64) * scale_b
            point, sums = last
            if point is not found.point:
                sums = self._sums(self.u, self.b, pool)
        return float(sums.losses[0] + strength / 2 * np.vdot(self.u[:, 0], self.u[:, 0]))

    def _joined(self, u: Array, b: Array) -> Array:
        return np.concatenate([u.ravel(), b.ravel()]).astype(self._number)

    def _go_on(self, strength: float, pool: ThreadPoolExecutor) -> Sums:
        """Extrapolate the last two solutions if that lowers the objective; return the sums there."""
        here = (self.u, self.b)
        sums = self._sums(*here, pool, curved=True)
        if self._before is not None:
            there = (2 * self.u - self._before[0], 2 * self.b - self._before[1])
            sums_there = self._sums(*there, pool, curved=True)
            if _value(sums_there, there[0], strength) < _value(sums, here[0], strength):
                (self.u, self.b), sums = there, sums_there
        self._before = here
        return sums

    def _sums(self, u: Array, b: Array, pool: ThreadPoolExecutor, *, curved: bool = False) -> Sums:
        """Sum over all images, at weights u (K, B, R) and biases b (K, B)."""
        k, problems, r = u.shape
        flat, bias = u.reshape(k * problems, r).astype(np.float32), b[:, :, None].astype(np.float32)
        n = len(self._z)
        step = max(16, min(BLOCK, BLOCK_BYTES // (4 * k * problems), WIDEST // max(1, r)))
        spans = min(SPANS, -(-n // step))
        edges = [i * n // spans for i in range(spans + 1)]

        def span(start: int, stop: int) -> Sums:
            edges = range(start, stop, step)
            return _added(self._block(flat, bias, slice(at, min(at + step, stop)), curved) for at in edges)

        # What is over in a moment is not worth another thread.
        each = map if spans == 1 else pool.map
        total = _added(each(span, edges[:-1], edges[1:]))
        return total._replace(gradient_u=total.gradient_u.reshape(u.shape))

    def _block(self, flat: Array, bias: Array, rows: slice, curved: bool) -> Sums:
        z, targets, shares = self._z[rows], self._targets[rows], self._shares[:, rows]
        k, problems, _ = bias.shape
        images = np.arange(len(targets))
        p = (flat @ z.T).reshape(k, problems, -1)
        p += bias
        p -= p.max(axis=0)
        own = p[targets, :, images]  # (n, B)
        np.exp(p, out=p)
        total = p.sum(axis=0)
        p /= total
        losses = np.einsum("bn,bn->b", np.log(total) - own.T, shares, dtype=np.float64)
        curvature = np.zeros((k, problems))
        if curved:
            curvature += np.einsum("kbn,bn->kb", p * (1 - p), shares)
        p[targets, :, images] -= 1  # now the gradient with respect to the logits, except for the shares
        p *= shares
        return Sums(losses, p.reshape(k * problems, -1) @ z, p.sum(axis=2, dtype=np.float64), curvature)


def _added(parts: Iterable[Sums]) -> Sums:
    parts = iter(parts)
    total = next(parts)
    for other in parts:
        for whole, part in zip(total, other, strict=True):
            np.add(whole, part, out=whole)
    return total


def _value(sums: Sums, u: Array, strength: float) -> float:
    return float(sums.losses.sum()) + strength / 2 * float(np.vdot(u, u))
