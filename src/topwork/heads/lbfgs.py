"""L-BFGS for a smooth convex function (Liu and Nocedal 1989; Nocedal and Wright 2006, algorithm 7.4).

Meant for coordinates in which the function is about as curved as ‖·‖²/2: the first step has length 1.

SciPy's is not used because SciPy brings a second BLAS, whose threads compete with NumPy's for the same cores (four
times slower, measured on two cores), and nothing else in the core needs it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Vector = np.ndarray[Any, np.dtype[np.floating[Any]]]
Objective = Callable[[Vector], tuple[float, Vector]]

SUFFICIENT_DECREASE = 1e-4
MOST_HALVINGS = 30


@dataclass(frozen=True, slots=True)
class Minimum:
    """The result: the point, its value and the number of evaluations."""

    point: Vector
    value: float
    evaluations: int


def minimise(
    objective: Objective, start: Vector, *, tolerance: float, memory: int = 10, most_steps: int = 1000
) -> Minimum:
    """Minimise `objective` (value and gradient, (M,), float64 or float32 as `start`) from `start`.

    Ends when a step lowers the value by less than `tolerance` relative to it, when no step lowers it any
    more, or after `most_steps`. For a convex function, every pair of step and gradient change has positive
    curvature, so halving the step until the value falls enough (Armijo) is a sufficient line search.
    """
    point = start
    value, gradient = objective(point)
    evaluations = 1
    pairs: deque[tuple[Vector, Vector, float]] = deque(
        maxlen=memory
    )  # step, gradient change, 1 / their product
    for _ in range(most_steps):
        direction = _direction(gradient, pairs)
        slope = float(gradient @ direction)
        if slope >= 0:  # rounding: nothing left to gain
            break
        length = 1.0
        for _ in range(MOST_HALVINGS):
            new_point = point + length * direction
            new_value, new_gradient = objective(new_point)
            evaluations += 1
            if new_value <= value + SUFFICIENT_DECREASE * length * slope:
                break
            length /= 2
        else:
            break
        step, change = new_point - point, new_gradient - gradient
        curvature = float(step @ change)
        if curvature > 1e-12 * float(change @ change):
            pairs.append((step, change, 1 / curvature))
        gained = value - new_value
        point, value, gradient = new_point, new_value, new_gradient
        if gained <= tolerance * abs(value):
            break
    return Minimum(point, value, evaluations)


def _direction(gradient: Vector, pairs: deque[tuple[Vector, Vector, float]]) -> Vector:
    """−H·gradient, with H the inverse Hessian approximated from the stored pairs (the two-loop recursion)."""
    direction = -gradient
    shares = []
    for step, change, inverse in reversed(pairs):
        share = inverse * float(step @ direction)
        direction -= share * change
        shares.append(share)
    if pairs:
        _, change, inverse = pairs[-1]
        direction *= 1 / (inverse * float(change @ change))
    for (step, change, inverse), share in zip(pairs, reversed(shares), strict=True):
        direction += (share - inverse * float(change @ direction)) * step
    return direction
