"""Resizing a grid of numbers by a matrix for each axis, as PyTorch's `torch.nn.functional.interpolate` does it.

Bicubic (Keys 1981) has a = −0.75 and takes the four nearest points; with antialiasing a = −0.5, and it is wider where
there are fewer points than before. Points lie at the centres of their cells (`align_corners=False`).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Resampling = Literal["bicubic", "bicubic_antialiased", "bilinear_antialiased"]


def resampled(grid: Array, side: int, how: Resampling) -> Array:
    """A square grid of vectors (G, G, D) at (side, side, D)."""
    if grid.shape[0] == side:
        return grid
    rows = kernel(grid.shape[0], side, how)
    made: Array = np.einsum("ig,jh,ghd->ijd", rows, rows, grid.astype(np.float64), optimize=True)
    return made.astype(np.float32)


def kernel(count: int, wanted: int, how: Resampling) -> Array:
    """(wanted, count): how much of each point goes into each wanted one. Points beyond the edge are the edge's."""
    scale = count / wanted
    if how == "bicubic":
        weights = np.zeros((wanted, count))
        for i in range(wanted):
            centre = (i + 0.5) * scale - 0.5
            first = math.floor(centre) - 1
            for j in range(first, first + 4):
                weights[i, min(max(j, 0), count - 1)] += _cubic(centre - j, -0.75)
        return weights
    wide = max(scale, 1.0)
    away = ((np.arange(wanted) + 0.5) * scale - 0.5)[:, None] - np.arange(count)
    if how == "bilinear_antialiased":
        weights = np.maximum(0, 1 - np.abs(away / wide))
    else:
        weights = np.vectorize(_cubic)(away / wide, -0.5)
    return np.asarray(weights / weights.sum(1, keepdims=True))


def _cubic(t: float, a: float) -> float:
    t = abs(t)
    if t < 1:
        return ((a + 2) * t - (a + 3)) * t * t + 1
    return (((t - 5) * t + 8) * t - 4) * a if t < 2 else 0.0
