"""Multinomial logistic regression with an L2 penalty, along a path of strengths, for several problems at once.

It minimises, for weights W (D, K) and biases b, over features x with sample weights w summing to 1,

    Σ_i w_i · −log softmax(x_i W + b)[y_i]  +  λ/2 · ‖W‖²

for one strength λ after another, from strong to weak, each starting from the previous solution. The choice of
coordinates makes it fast. With the features' covariance XᵀdX = V diag(s) Vᵀ, the Hessian of the loss is
close to h_k·diag(s) in V's coordinates, where h_k = Σ w p_k(1 − p_k) is class k's mean curvature (Böhning 1992
bounds it by ½). Scaling coordinate (j, k) by 1/√(h_k s_j + λ) makes the problem well conditioned, and L-BFGS
(Liu and Nocedal 1989) then needs a handful of steps for each λ. With fewer images than features, V has only as
many columns as there are images. All folds of a cross-validation share V and are solved at once: a fold is the
same problem with the weights of its own images set to zero.

Arrays have the order (classes, problems, images), so that the softmax runs along contiguous rows whatever K is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from topwork.heads.lbfgs import minimise

Array = np.ndarray[Any, np.dtype[Any]]

TOLERANCE = 1e-6  # relative decrease of the objective in one step below which a strength is solved
MEMORY_BYTES = 1 << 29  # for the probabilities of the problems solved at once


def walk(
    coordinates: Array,
    variances: Array,
    targets: Array,
    class_count: int,
    problems: Array,
    strengths: tuple[float, ...],
) -> Iterator[tuple[float, float, Array, Array]]:
    """Yield each strength with the first problem's objective, weights u (K, B, R) and biases b (K, B).

    `coordinates` (R, N); `problems` (B, N): each problem's sample weights.
    """
    per_problem = max(1, MEMORY_BYTES // (4 * 3 * class_count * coordinates.shape[1]))
    groups = [problems[i : i + per_problem] for i in range(0, len(problems), per_problem)]
    solvers = [_Solver(coordinates, variances, targets, class_count, group) for group in groups]
    for strength in strengths:
        objectives = [solver.solve(strength) for solver in solvers]
        yield (
            strength,
            objectives[0],
            np.concatenate([solver.u for solver in solvers], axis=1),
            np.concatenate([solver.b for solver in solvers], axis=1),
        )


class _Solver:
    """Solves several problems over the same coordinates together, starting each strength from the last solution."""

    def __init__(
        self, coordinates: Array, variances: Array, targets: Array, class_count: int, problems: Array
    ) -> None:
        self._z = coordinates
        self._variances = variances
        self._targets = targets
        self._shares = (problems / problems.sum(axis=1, keepdims=True)).astype(np.float32)  # (B, N)
        counts = np.zeros((class_count, len(problems)))
        for k in range(class_count):
            counts[k] = problems[:, targets == k].sum(axis=1)
        # Start at the weighted class frequencies, the optimum without features. A class absent from a fold
        # counts as half an image.
        prior = np.log(np.maximum(counts, 0.5 * problems.max()) / problems.sum(axis=1))
        self.b = prior - prior.mean(axis=0)  # (K, B)
        self.u = np.zeros((class_count, len(problems), len(coordinates)))  # (K, B, R)
        self._before: tuple[Array, Array] | None = None  # the solution for the previous strength

    def solve(self, strength: float) -> float:
        """Move `u` and `b` to the optimum for this strength; return the first problem's objective there."""
        p = self._go_on(strength)
        curvature = np.einsum("kbn,bn->kb", p * (1 - p), self._shares) + 1e-9  # h, (K, B)
        scale_u = 1 / np.sqrt(curvature[:, :, None] * self._variances + strength)
        scale_b = 1 / np.sqrt(curvature)
        n_u = self.u.size

        def objective(v: Array) -> tuple[float, Array]:
            u, b = v[:n_u].reshape(self.u.shape) * scale_u, v[n_u:].reshape(self.b.shape) * scale_b
            p, losses = self._probabilities(u, b)
            images = np.arange(p.shape[2])
            p[self._targets, :, images] -= (
                1  # now the gradient with respect to the logits, except for the shares
            )
            p *= self._shares
            gradient_u = (p.reshape(-1, p.shape[2]) @ self._z.T).reshape(u.shape) + strength * u
            gradient_b = p.sum(axis=2, dtype=np.float64)
            return self._value(losses, u, strength), np.concatenate(
                [(gradient_u * scale_u).ravel(), (gradient_b * scale_b).ravel()]
            )

        start = np.concatenate([(self.u / scale_u).ravel(), (self.b / scale_b).ravel()])
        found = minimise(objective, start, tolerance=TOLERANCE)
        self.u = found.point[:n_u].reshape(self.u.shape) * scale_u
        self.b = found.point[n_u:].reshape(self.b.shape) * scale_b
        _, losses = self._probabilities(self.u, self.b)
        return float(losses[0] + strength / 2 * np.vdot(self.u[:, 0], self.u[:, 0]))

    def _go_on(self, strength: float) -> Array:
        """Extrapolate the last two solutions if that lowers the objective; return p there."""
        here = (self.u, self.b)
        p, losses = self._probabilities(*here)
        if self._before is not None:
            there = (2 * self.u - self._before[0], 2 * self.b - self._before[1])
            p_there, losses_there = self._probabilities(*there)
            if self._value(losses_there, there[0], strength) < self._value(losses, here[0], strength):
                (self.u, self.b), p = there, p_there
        self._before = here
        return p

    @staticmethod
    def _value(losses: Array, u: Array, strength: float) -> float:
        return float(losses.sum()) + strength / 2 * float(np.vdot(u, u))

    def _probabilities(self, u: Array, b: Array) -> tuple[Array, Array]:
        """p (K, B, N), and each problem's mean loss (B,)."""
        flat = u.reshape(u.shape[0] * u.shape[1], u.shape[2]).astype(np.float32)  # R is 0 without features
        p = (flat @ self._z).reshape(*u.shape[:2], -1)
        p += b[:, :, None].astype(np.float32)
        p -= p.max(axis=0)
        own = p[self._targets, :, np.arange(p.shape[2])]  # (N, B)
        np.exp(p, out=p)
        total = p.sum(axis=0)
        p /= total
        return p, np.einsum("bn,bn->b", np.log(total) - own.T, self._shares, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Basis:
    """Features in their principal directions V (D, R).

    With fewer images than features, V = Aᵀ U s^-½ comes from the images, A = U s^½ Vᵀ, and is never formed: the
    coordinates are s^½ Uᵀ, each image's divided by its weight's root, and `lift` uses two thin products.
    """

    coordinates: Array  # the images' features along V, (R, N)
    variances: Array  # along V, (R,)
    vectors: Array  # `vectors` @ `mixture` is V
    mixture: Array | None  # None: the identity

    @classmethod
    def of(cls, z: Array, weights: Array) -> Basis:
        root = np.sqrt(weights / weights.sum()).astype(np.float32)[:, None]
        weighted = z * root
        tall = z.shape[0] >= z.shape[1]
        gram = weighted.T @ weighted if tall else weighted @ weighted.T
        variances, directions = np.linalg.eigh(gram)
        kept = variances > variances[-1] * 1e-6  # the rest is float32 rounding
        variances, directions = variances[kept], np.ascontiguousarray(directions[:, kept])
        if tall:
            return cls(directions.T @ z.T, variances.astype(np.float64), directions, None)
        deviations = np.sqrt(variances)
        coordinates = np.ascontiguousarray((directions * deviations / root).T)
        return cls(coordinates, variances.astype(np.float64), weighted.T, directions / deviations)

    def lift(self, u: Array) -> Array:
        """Convert weights along V, (K, R), to weights of the features, float32 (D, K)."""
        thin = u.T.astype(np.float32)
        return self.vectors @ (thin if self.mixture is None else self.mixture @ thin)
