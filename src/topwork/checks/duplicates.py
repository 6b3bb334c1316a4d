"""Pictures that are one picture: copied, resized, recompressed, brightened, mirrored or cropped a little.

Candidates are near each other in what a network sees, or as small thumbnails. Each is then confirmed on pixels: laid
over each other, mirrored, and cropped, two thumbnails must correlate. What all pictures of the set have in common
(the frame of a solar cell, the white ground of a product photo) is taken away first, or they would all be alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from topwork.checks.looks import THUMBNAIL_PX

NEIGHBOURS = 6  # candidates of each picture, by features and by thumbnails
NEAR_FEATURES, NEAR_THUMBNAILS = 0.8, 0.6  # the least likeness of a candidate
ROUGHLY, COARSELY, CONFIRMED = 0.35, 0.8, 0.94  # the least correlation at 12 px, at 24 px, and at last at 48
COLOURS_APART = 0.12  # of the contrast: how much the colours of two thumbnails of one picture differ
FLAT = 4.0  # a contrast (of 255) below which a picture has nothing to compare
ENOUGH = 20  # pictures, before what they have in common is known; and for each of its further directions
DIRECTIONS, LEARNT_FROM = (
    16,
    1000,
)  # in which pictures of a set commonly vary; pictures that they are learnt from
COARSE_PX, ROUGH_PX = 24, 12
STEPS = {24: 4, 48: 2}  # of the registration, by the size of the thumbnails
FARTHEST = 0.12  # of a side: how much may be cropped
AT_ONCE, ROWS_AT_ONCE = 256, 1024

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of a dataset that are one picture. `exact`: their files are equal in every byte.

    `likeness`: the least correlation that one of them has with another that it was joined to, 0 to 1.
    """

    rows: tuple[int, ...]
    exact: bool
    likeness: float


def duplicate_groups(keys: tuple[bytes, ...], features: Array, thumbnails: Array) -> tuple[Group, ...]:
    """The groups of two or more, by their first row.

    Args:
        keys: the SHA-256 of each image's bytes.
        features: float32 (N, D), what a network makes of each.
        thumbnails: uint8 (N, 48, 48, 3).
    """
    first: dict[bytes, int] = {}
    own = np.array([first.setdefault(key, row) for row, key in enumerate(keys)])
    rows = np.flatnonzero(own == np.arange(len(own)))  # one of each file
    joined = _Joined(len(keys))
    for row, same in enumerate(own.tolist()):
        joined.join(row, same, 1.0)
    for a, b, likeness in confirmed_pairs(features[rows], thumbnails[rows]):
        joined.join(int(rows[a]), int(rows[b]), likeness)
    return tuple(
        Group(members, len({keys[m] for m in members}) == 1, joined.likeness(members[0]))
        for members in joined.groups()
    )


def confirmed_pairs(features: Array, thumbnails: Array) -> Iterator[tuple[int, int, float]]:
    """Pairs of rows that show one picture, and how well they correlate."""
    pictures = thumbnails.astype(np.float32)
    flat = pictures.mean(axis=-1).std(axis=(1, 2)) < FLAT
    scales = {side: _Scale.of(_shrunk(pictures, side), ~flat) for side in (ROUGH_PX, COARSE_PX, THUMBNAIL_PX)}
    pairs = np.array(sorted(_candidates(features, scales[ROUGH_PX], flat)), np.int64).reshape(-1, 3)
    for start in range(0, len(pairs), AT_ONCE):
        a, b, mirror = pairs[start : start + AT_ONCE].T
        likeness = np.maximum(
            _registered(scales, a, b, mirror.astype(bool)), _registered(scales, b, a, mirror.astype(bool))
        )
        for i in np.flatnonzero(likeness >= CONFIRMED).tolist():
            yield int(a[i]), int(b[i]), float(likeness[i])


@dataclass(frozen=True, slots=True, eq=False)
class _Scale:
    """Pictures at one size, and what they have in common: their mean and the directions in which they mostly vary.

    `pictures`: float32 (N, s, s, 3), `mean` (D,), `directions` (M, D), orthonormal. `own`: `residual(pictures)`.
    """

    pictures: Array
    mean: Array
    directions: Array
    own: Array

    @classmethod
    def of(cls, pictures: Array, told: Array) -> _Scale:
        from threadpoolctl import threadpool_limits

        rows = _normal(pictures).reshape(len(pictures), -1)
        known = rows[told]
        known = known[:: max(1, len(known) // LEARNT_FROM)]
        mean, directions = np.zeros(rows.shape[1], np.float32), np.zeros((0, rows.shape[1]), np.float32)
        if len(known) >= ENOUGH:
            mean = known.mean(axis=0)
            centred = known - mean
            count = min(DIRECTIONS, len(known) // ENOUGH)
            with threadpool_limits(1, user_api="blas"):  # on a busy machine, more are many times slower
                _, vectors = np.linalg.eigh(centred @ centred.T)
            directions = _unit(vectors[:, -count:].T @ centred)
        scale = cls(pictures, mean, directions, rows)
        return cls(pictures, mean, directions, scale.residual(pictures))

    def residual(self, pictures: Array) -> Array:
        """What is a picture's own, as rows of length 1, float32 (P, D)."""
        rows = _normal(pictures).reshape(len(pictures), -1) - self.mean
        return _unit(rows - (rows @ self.directions.T) @ self.directions)


def _candidates(features: Array, rough: _Scale, flat: Array) -> Iterator[tuple[int, int, bool]]:
    """Pairs of rows to be confirmed, and whether one is to be mirrored."""
    by_features = _unit(features - features.mean(axis=0) if len(features) >= ENOUGH else features)
    mirrored = rough.residual(rough.pictures[:, :, ::-1])
    found: set[tuple[int, int]] = set()
    for queries, index, least in (
        (by_features, by_features, NEAR_FEATURES),
        (rough.own, rough.own, NEAR_THUMBNAILS),
        (mirrored, rough.own, NEAR_THUMBNAILS),
    ):
        for a, b in _neighbours(queries, index, least):
            if a != b and not flat[a] and not flat[b]:
                found.add((min(a, b), max(a, b)))
    for a, b in found:
        upright, turned = float(rough.own[a] @ rough.own[b]), float(mirrored[a] @ rough.own[b])
        if max(upright, turned) >= ROUGHLY:
            yield a, b, turned > upright


def _neighbours(queries: Array, index: Array, least: float) -> Iterator[tuple[int, int]]:
    count = min(NEIGHBOURS + 1, len(index))
    for start in range(0, len(queries), ROWS_AT_ONCE):
        likeness = queries[start : start + ROWS_AT_ONCE] @ index.T
        near = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        rows, places = np.nonzero(np.take_along_axis(likeness, near, axis=1) >= least)
        yield from zip((start + rows).tolist(), near[rows, places].tolist(), strict=True)


def _registered(scales: dict[int, _Scale], whole: Array, cut: Array, mirror: Array) -> Array:
    """How well each second picture correlates with the first, once it is shifted and stretched to fit, (P,).

    Lucas and Kanade, "An iterative image registration technique", 1981: Gauss-Newton on the squared difference,
    coarse to fine; here with a stretch and a shift along each axis.
    """
    where = np.zeros((len(whole), 4), np.float32)  # stretch and shift across, stretch and shift down
    likeness = np.full(len(whole), -1.0, np.float32)
    going = np.arange(len(whole))
    for side, least in ((COARSE_PX, COARSELY), (THUMBNAIL_PX, CONFIRMED)):
        if not len(going):
            break
        scale = scales[side]
        source = scale.pictures[cut[going]]
        source = np.where(mirror[going, None, None, None], source[:, :, ::-1], source)
        grey, target = (
            _normal(p.mean(axis=3, keepdims=True)) for p in (source, scale.pictures[whole[going]])
        )
        at = where[going]
        for _ in range(STEPS[side]):
            at = (at + _step(grey, target, at)).clip(-FARTHEST, FARTHEST)
        own = scale.own[whole[going]]
        before, after = (
            np.einsum("pi,pi->p", own, scale.residual(_warped(source, place))) for place in (where[going], at)
        )
        where[going] = np.where((after > before)[:, None], at, where[going])
        score = np.maximum(before, after)
        if side == THUMBNAIL_PX:
            likeness[going] = np.minimum(
                score, _whole(_warped(source, where[going]), scale.pictures[whole[going]])
            )
        going = going[score >= least]
    return likeness


def _whole(one: Array, other: Array) -> Array:
    """The correlation of aligned pictures as they are, (P,); −1 where their colours differ.

    What is common to all pictures of a set may be all that tells two apart: two squares of other colours.
    """
    a, b = _normal(one), _normal(other)
    colour = (a - a.mean(axis=3, keepdims=True)) - (b - b.mean(axis=3, keepdims=True))
    apart = np.sqrt((colour**2).mean(axis=(1, 2, 3)))
    return np.where(apart <= COLOURS_APART, (a * b).mean(axis=(1, 2, 3)), -1.0)


def _step(source: Array, target: Array, where: Array) -> Array:
    """One Gauss-Newton step of stretch and shift for each pair, float32 (P, 4)."""
    moved = _normal(_warped(source, where))
    count, side = moved.shape[:2]
    down, across = (np.gradient(moved, 2 / side, axis=axis) for axis in (1, 2))
    place = ((np.arange(side) + 0.5) * 2 / side - 1).astype(np.float32)
    slopes = np.stack([across * place[:, None], across, down * place[:, None, None], down], axis=1).reshape(
        count, 4, -1
    )
    error = (target - moved).reshape(count, -1, 1)
    normal = slopes @ slopes.transpose(0, 2, 1)
    damped = normal + (1e-3 * np.trace(normal, axis1=1, axis2=2) + 1e-6)[:, None, None] * np.eye(4)
    return np.asarray(np.linalg.solve(damped, slopes @ error)[:, :, 0], np.float32)


def _warped(pictures: Array, where: Array) -> Array:
    """Pictures float32 (P, s, s, C) read at stretched and shifted places, by linear interpolation."""
    side = pictures.shape[1]
    across, down = _readers(side, where[:, 0], where[:, 1]), _readers(side, where[:, 2], where[:, 3])
    flat = pictures.reshape(len(pictures), side, side * pictures.shape[3])
    rows = (down @ flat).reshape(pictures.shape)
    return np.asarray(across[:, None] @ rows)


def _readers(side: int, stretch: Array, shift: Array) -> Array:
    """Matrices (P, s, s) that read a line of `side` at (1 + stretch) · place + shift, places in -1..1."""
    place = (np.arange(side) + 0.5) * 2 / side - 1
    at = (((1 + stretch[:, None]) * place + shift[:, None] + 1) * side / 2 - 0.5).clip(0, side - 1)
    low = np.minimum(at.astype(np.int64), side - 2)
    share = (at - low).astype(np.float32)
    matrices = np.zeros((len(stretch), side, side), np.float32)
    pair, line = np.ogrid[: len(stretch), :side]
    matrices[pair, line, low] = 1 - share
    matrices[pair, line, low + 1] = share
    return matrices


def _normal(pictures: Array) -> Array:
    """Each picture with mean 0 and standard deviation 1: how bright it is and how strong its contrast don't count."""
    centred = pictures - pictures.mean(axis=(1, 2, 3), keepdims=True)
    deviation = centred.std(axis=(1, 2, 3), keepdims=True)
    return np.asarray(centred / np.maximum(deviation, 1e-6), np.float32)


def _unit(rows: Array) -> Array:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


def _shrunk(pictures: Array, side: int) -> Array:
    cell = THUMBNAIL_PX // side
    n = len(pictures)
    return np.asarray(pictures.reshape(n, side, cell, side, cell, 3).mean(axis=(2, 4)), np.float32)


class _Joined:
    """Rows joined into groups: each points towards its group's first row."""

    def __init__(self, count: int) -> None:
        self._up = list(range(count))
        self._likeness = [1.0] * count

    def top(self, row: int) -> int:
        while self._up[row] != row:
            self._up[row] = self._up[self._up[row]]
            row = self._up[row]
        return row

    def join(self, a: int, b: int, likeness: float) -> None:
        a, b = sorted((self.top(a), self.top(b)))
        self._likeness[a] = min(self._likeness[a], self._likeness[b], likeness)
        self._up[b] = a

    def likeness(self, row: int) -> float:
        return self._likeness[self.top(row)]

    def groups(self) -> Iterable[tuple[int, ...]]:
        members: dict[int, list[int]] = defaultdict(list)
        for row in range(len(self._up)):
            members[self.top(row)].append(row)
        return (tuple(rows) for rows in members.values() if len(rows) > 1)
