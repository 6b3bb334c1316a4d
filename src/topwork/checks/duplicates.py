"""Pictures that are one picture: copied, resized, recompressed, brightened, mirrored or cropped a little.

Candidates are near each other in what a network sees, or as small thumbnails. Each is then confirmed on pixels: laid
over each other, mirrored, and cropped, two thumbnails must correlate. What all pictures of the set have in common
(the frame of a solar cell, the white ground of a product photo) is taken away first, or they would all be alike.
"""

from __future__ import annotations

import math
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
    flat = np.concatenate([_flat(thumbnails[block]) for block in _blocks(len(thumbnails))])
    typical = np.flatnonzero(~flat)
    typical = typical[:: max(1, len(typical) // LEARNT_FROM)]
    sizes = {side: _Common.of(_shrunk(thumbnails[typical], side)) for side in (ROUGH_PX, *STEPS)}
    pairs = _candidates(features, thumbnails, sizes[ROUGH_PX], flat)
    for start in range(0, len(pairs), AT_ONCE):
        a, b, mirror = pairs[start : start + AT_ONCE].T
        one, other, turn = thumbnails[a], thumbnails[b], mirror.astype(bool)
        likeness = np.maximum(_registered(sizes, one, other, turn), _registered(sizes, other, one, turn))
        for i in np.flatnonzero(likeness >= CONFIRMED).tolist():
            yield int(a[i]), int(b[i]), float(likeness[i])


@dataclass(frozen=True, slots=True, eq=False)
class _Common:
    """What pictures of one size have in common: their mean (D,), and the directions in which they mostly vary.

    `directions`: float32 (M, D), orthonormal.
    """

    mean: Array
    directions: Array

    @classmethod
    def of(cls, pictures: Array) -> _Common:
        from threadpoolctl import threadpool_limits

        rows = _rows(_normal(pictures))
        mean, directions = np.zeros(rows.shape[1], np.float32), np.zeros((0, rows.shape[1]), np.float32)
        if len(rows) >= ENOUGH:
            mean = rows.mean(axis=0)
            centred = rows - mean
            count = min(DIRECTIONS, len(rows) // ENOUGH)
            with threadpool_limits(1, user_api="blas"):  # on a busy machine, more are many times slower
                _, vectors = np.linalg.eigh(centred @ centred.T)
            directions = _unit(vectors[:, -count:].T @ centred)
        return cls(mean, directions)

    def residual(self, pictures: Array) -> Array:
        """What is a picture's own, as rows of length 1, float32 (P, D)."""
        rows = _rows(_normal(pictures)) - self.mean
        return _unit(rows - (rows @ self.directions.T) @ self.directions)


def _candidates(features: Array, thumbnails: Array, rough: _Common, flat: Array) -> Array:
    """Pairs of rows to be confirmed, in order, and whether one is to be mirrored, int64 (P, 3)."""
    by_features = _unit(features - features.mean(axis=0) if len(features) >= ENOUGH else features)
    # Only at this size are all pictures held at once: 1.7 kB each; the larger ones are made as pairs need them.
    small = [_shrunk(thumbnails[block], ROUGH_PX) for block in _blocks(len(thumbnails))]
    own = np.concatenate([rough.residual(part) for part in small])
    mirrored = np.concatenate([rough.residual(part[:, :, ::-1]) for part in small])
    found = np.concatenate(
        [
            near
            for queries, index, least in (
                (by_features, by_features, NEAR_FEATURES),
                (own, own, NEAR_THUMBNAILS),
                (mirrored, own, NEAR_THUMBNAILS),
            )
            for near in _neighbours(queries, index, least)
        ]
    )
    found = found[(found[:, 0] != found[:, 1]) & ~flat[found].any(axis=1)]
    a, b = np.unique(np.sort(found, axis=1), axis=0).T
    upright, turned = _alike(own, own, a, b), _alike(mirrored, own, a, b)
    pairs = np.stack([a, b, turned > upright], axis=1)
    return np.asarray(pairs[np.maximum(upright, turned) >= ROUGHLY])


def _alike(one: Array, other: Array, a: Array, b: Array) -> Array:
    """The products of rows `a` of one and rows `b` of the other, (P,)."""
    likeness = np.empty(len(a), np.float32)
    for block in _blocks(len(a)):
        likeness[block] = np.einsum("pd,pd->p", one[a[block]], other[b[block]])
    return likeness


def _neighbours(queries: Array, index: Array, least: float) -> Iterator[Array]:
    """Rows of `queries` and their nearest rows of `index`, int64 (P, 2) at a time."""
    count = min(NEIGHBOURS + 1, len(index))
    for block in _blocks(len(queries)):
        likeness = queries[block] @ index.T
        near = likeness >= least
        # Few have so many that the nearest must be picked: to look for them in every row takes longer.
        many = np.flatnonzero(np.count_nonzero(near, axis=1) > count)
        nearest = np.argpartition(-likeness[many], count - 1, axis=1)[:, :count]
        near[many] = False
        near[many[:, None], nearest] = True
        rows, places = np.nonzero(near)
        yield np.stack([block.start + rows, places], axis=1)


def _registered(sizes: dict[int, _Common], whole: Array, cut: Array, mirror: Array) -> Array:
    """How well each second picture correlates with the first, once it is shifted and stretched to fit, (P,).

    `whole`, `cut`: thumbnails, uint8 (P, 48, 48, 3). `mirror`: bool (P,), whether the second is to be mirrored.

    Lucas and Kanade, "An iterative image registration technique", 1981: Gauss-Newton on the squared difference,
    coarse to fine; here with a stretch and a shift along each axis.
    """
    where = np.zeros((len(whole), 4), np.float32)  # stretch and shift across, stretch and shift down
    likeness = np.full(len(whole), -1.0, np.float32)
    going = np.arange(len(whole))
    for side, least in ((COARSE_PX, COARSELY), (THUMBNAIL_PX, CONFIRMED)):
        if not len(going):
            break
        common = sizes[side]
        source, still = _shrunk(cut[going], side), _shrunk(whole[going], side)
        source = np.where(mirror[going, None, None, None], source[:, :, ::-1], source)
        grey, target = (_normal(p.mean(axis=3, keepdims=True)) for p in (source, still))
        at = where[going]
        for _ in range(STEPS[side]):
            at = (at + _step(grey, target, at)).clip(-FARTHEST, FARTHEST)
        own = common.residual(still)
        before, after = (
            np.einsum("pi,pi->p", own, common.residual(_warped(source, place)))
            for place in (where[going], at)
        )
        where[going] = np.where((after > before)[:, None], at, where[going])
        score = np.maximum(before, after)
        if side == THUMBNAIL_PX:
            likeness[going] = np.minimum(score, _whole(_warped(source, where[going]), still))
        going = going[score >= least]
    return likeness


def _whole(one: Array, other: Array) -> Array:
    """The correlation of aligned pictures as they are, (P,); −1 where their colours differ.

    What is common to all pictures of a set may be all that tells two apart: two squares of other colours. They are
    compared at 12 px: JPEG keeps colours at half the size, so that the fine ones of an icon are not its own.
    """
    a, b = _normal(one), _normal(other)
    colour = (a - a.mean(axis=3, keepdims=True)) - (b - b.mean(axis=3, keepdims=True))
    apart = np.sqrt((_averaged(colour, ROUGH_PX) ** 2).mean(axis=(1, 2, 3)))
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


def _rows(pictures: Array) -> Array:
    return pictures.reshape(len(pictures), math.prod(pictures.shape[1:]))


def _unit(rows: Array) -> Array:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


def _flat(thumbnails: Array) -> Array:
    """Whether there is nothing in them to compare, bool (P,)."""
    return np.asarray(thumbnails.astype(np.float32).mean(axis=-1).std(axis=(1, 2)) < FLAT)


def _shrunk(thumbnails: Array, side: int) -> Array:
    """uint8 (P, 48, 48, 3) → float32 (P, side, side, 3)."""
    return _averaged(thumbnails.astype(np.float32), side)


def _averaged(pictures: Array, side: int) -> Array:
    """float32 (P, 48, 48, 3) → (P, side, side, 3), by the means of squares."""
    if side == THUMBNAIL_PX:
        return pictures
    cell = THUMBNAIL_PX // side
    return np.asarray(pictures.reshape(-1, side, cell, side, cell, 3).mean(axis=(2, 4)), np.float32)


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, count, ROWS_AT_ONCE))


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
