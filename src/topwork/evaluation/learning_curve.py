"""Learning curve of a frozen head: a power law fitted to its error at a few numbers of training images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

RATES = np.linspace(0.1, 1.0, 37)  # candidate exponents


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """The error on held-out images as a function of the number of training images n: floor + scale · n^-rate."""

    sizes: tuple[int, ...]  # measured numbers of training images
    errors: tuple[float, ...]  # and the error at each
    floor: float
    scale: float
    rate: float

    def error(self, n: float) -> float:
        """The predicted error with `n` training images, 0 to 1."""
        return min(1.0, self.floor + self.scale * math.pow(n, -self.rate))

    @property
    def doubled(self) -> float:
        """The predicted gain in accuracy with twice the training images, 0 to 1."""
        return self.error(self.sizes[-1]) - self.error(2 * self.sizes[-1])


def fit_curve(sizes: tuple[int, ...], errors: tuple[float, ...]) -> LearningCurve:
    """Least-squares fit of error = floor + scale · n^-rate with floor, scale ≥ 0 and 0.1 ≤ rate ≤ 1; n ascending.

    Follows Cortes et al., "Learning curves: asymptotic values and rate of convergence", 1994.

    >>> curve = fit_curve((100, 200, 400, 800), (0.3, 0.2, 0.15, 0.125))
    >>> round(curve.floor, 3), round(curve.scale, 3), round(curve.rate, 3)
    (0.1, 20.0, 1.0)
    """
    n, y = np.array(sizes, np.float64), np.array(errors, np.float64)

    def candidates() -> Iterator[tuple[float, float, float, float]]:
        for rate in RATES.tolist():
            z = n**-rate
            spread = float(((z - z.mean()) ** 2).sum())
            scale = float(((z - z.mean()) * (y - y.mean())).sum()) / spread if spread > 0 else 0.0
            floor = float(y.mean() - scale * z.mean())
            if scale < 0:
                floor, scale = float(y.mean()), 0.0
            elif floor < 0:
                floor, scale = 0.0, float(z @ y / (z @ z))
            yield float(((floor + scale * z - y) ** 2).sum()), floor, scale, rate

    _, floor, scale, rate = min(candidates())
    return LearningCurve(tuple(sizes), tuple(errors), floor, scale, rate)
