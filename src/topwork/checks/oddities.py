"""Odd pictures: blank, dark, overexposed, blurred, tiny or of unusual shape, and outliers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from topwork.checks.looks import Looks
from topwork.heads.design import Rows, in_blocks

BLANK = 2.0  # contrast (of 255) below which there is nothing to see
DARK, BRIGHT = 30.0, 245.0  # nearly all pixels are darker, or brighter (of 255)
TINY_PX = 32  # shorter side below which a picture has almost no detail
SHAPE = 3.0  # factor between the aspect ratio and the set's median
BLURRED = 6.0  # robust standard deviations below the median sharpness
BLURRED_BY = 0.7  # and at least this much below it, as a base-10 logarithm
FAR = 6.0  # robust standard deviations above the median distance to neighbours
FAR_BY = 0.2  # and at least this much above it, as a natural logarithm
NEIGHBOURS = 5
LEAST = 20  # fewest pictures among which one can be unusual
COMPARED = 4000  # most pictures that each is compared with

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Oddity:
    """One odd picture: its row, the kind of finding, and a note with what was measured."""

    row: int
    kind: str
    note: str


def odd_pictures(looks: Looks) -> Iterator[Oddity]:
    """Odd pictures by their looks, with one finding per picture: the worst.

    Blank, dark, bright and tiny are absolute; blurred and oddly shaped are relative to the set, since a set of soft
    X-rays or wide panoramas is fine.
    """
    ratio = np.log(looks.size_px[:, 0] / looks.size_px[:, 1])
    unusual = np.abs(ratio - np.median(ratio)) > np.log(SHAPE)
    softness = -(looks.sharpness - np.median(looks.sharpness))
    blurred = (softness > BLURRED * _deviation(looks.sharpness)) & (softness > BLURRED_BY)
    few = len(looks) < LEAST
    for row in range(len(looks)):
        width, height = looks.size_px[row].tolist()
        if looks.contrast[row] < BLANK:
            yield Oddity(row, "blank", f"its brightness varies by only {looks.contrast[row]:.1f} of 255")
        elif looks.bright[row] < DARK:
            yield Oddity(row, "dark", f"95 % of its pixels are darker than {looks.bright[row]:.0f} of 255")
        elif looks.dark[row] > BRIGHT:
            yield Oddity(row, "bright", f"95 % of its pixels are brighter than {looks.dark[row]:.0f} of 255")
        elif min(width, height) < TINY_PX:
            yield Oddity(row, "tiny", f"{width} x {height} pixels")
        elif unusual[row] and not few:
            yield Oddity(row, "shape", f"{width} x {height} pixels, unlike the other pictures")
        elif blurred[row] and not few:
            yield Oddity(
                row, "blurred", f"{10 ** softness[row]:.0f} times less fine detail than the median picture"
            )


def outliers(features: Rows, groups: Array) -> Iterator[Oddity]:
    """Outliers: pictures much farther from their five nearest neighbours than is typical in the set.

    Distance-based outliers after Ramaswamy, Rastogi and Shim, "Efficient algorithms for mining outliers from large
    data sets", 2000; here by the mean distance to the k nearest neighbours, between features of unit length.

    Args:
        features: float32 (N, D), an array or stored rows.
        groups: int64 (N,), equal for copies of one picture, which don't count as neighbours of each other.
    """
    n = len(features)
    if n < LEAST:
        return
    distance = np.log(np.maximum(neighbour_distance(features, groups), 1e-6))
    away = distance - np.median(distance)
    far = (away > FAR * _deviation(distance)) & (away > FAR_BY)
    for row in np.flatnonzero(far)[np.argsort(-away[far])].tolist():
        yield Oddity(
            row, "outlier", f"{np.exp(away[row]):.1f} times as far from its neighbours as the median picture"
        )


def neighbour_distance(features: Rows, groups: Array) -> Array:
    """The mean distance to the five nearest pictures of other groups, float64 (N,).

    Of more than `COMPARED` pictures, each is compared with that many, chosen at random.
    """
    n = len(features)
    chosen = np.arange(n)
    if n > COMPARED:
        chosen = np.sort(np.random.default_rng(0).choice(n, COMPARED, replace=False))
    others = np.ascontiguousarray(_unit(features[chosen]).T)
    count = min(NEIGHBOURS, len(chosen) - 1)

    def one(x: Array, block: slice) -> Array:
        likeness = _unit(x) @ others
        likeness[groups[block, None] == groups[chosen][None]] = -1.0
        near = -np.partition(-likeness, count - 1, axis=1)[:, :count]
        return np.asarray(np.sqrt(np.maximum(2 - 2 * near, 0)).mean(axis=1))

    return np.concatenate([found for _, found in in_blocks(one, features)])


def _unit(x: Array) -> Array:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


def _deviation(values: Array) -> float:
    """The robust standard deviation: 1.4826 times the median absolute deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
