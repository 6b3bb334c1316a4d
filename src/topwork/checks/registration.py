"""Registration of two thumbnails: shifted, stretched and mirrored to align, and their correlation afterwards.

What all pictures of the set have in common is removed first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from topwork.checks.looks import THUMBNAIL_PX
from topwork.heads.design import strongest
from topwork.parallel import one_blas_thread

CONFIRMED = 0.94  # smallest correlation at 48 px
COLOURS_APART = 0.12  # of the contrast: largest colour difference between copies
ENOUGH = 20  # fewest pictures to estimate their common part, and for each further direction of it
DIRECTIONS = 16  # most directions of common variation
COARSE_PX, ROUGH_PX = 24, 12
# The sizes of the thumbnails, from coarse to fine: steps of the registration, and the smallest correlation to go on.
STAGES = {ROUGH_PX: (2, 0.4), COARSE_PX: (3, 0.8), THUMBNAIL_PX: (2, CONFIRMED)}
EITHER_WAY = 0.5  # smallest correlation at 24 px to try it the other way round
BEFORE_STEPS = 0.8  # smallest correlation at 48 px before its steps, which add little, to take them
FARTHEST = 0.12  # of a side: the most that may be cropped

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Common:
    """What pictures of one size have in common."""

    mean: Array  # (D,)
    directions: Array  # of largest variance, float32 (M, D), orthonormal

    @classmethod
    def of(cls, pictures: Array) -> Common:
        rows = _rows(_normal(pictures))
        mean, directions = np.zeros(rows.shape[1], np.float32), np.zeros((0, rows.shape[1]), np.float32)
        if len(rows) >= ENOUGH:
            mean = rows.mean(axis=0)
            centred = rows - mean
            count = min(DIRECTIONS, len(rows) // ENOUGH)
            with one_blas_thread():
                vectors = strongest(centred @ centred.T, count)
            directions = unit(vectors.T.astype(np.float32) @ centred)
        return cls(mean, directions)

    def residual(self, pictures: Array) -> Array:
        """Pictures without their common part, as rows of unit length, float32 (P, D)."""
        rows = _rows(_normal(pictures)) - self.mean
        return unit(rows - (rows @ self.directions.T) @ self.directions)


def registered(
    sizes: dict[int, Common], thumbnails: Array, whole: Array, cut: Array, mirror: Array
) -> tuple[Array, Array]:
    """The correlation of each pair after shifting and stretching the second picture to fit the first, (P,).

    `thumbnails`: uint8 (M, 48, 48, 3), or (M, 48, 48, 1) if all are grey. `whole`, `cut`: the rows of each pair,
    int64 (P,). `mirror`: bool (P,), whether to mirror the second.

    Lucas and Kanade, "An iterative image registration technique", 1981: Gauss-Newton on the squared difference,
    coarse to fine; here with a stretch and a shift along each axis. A pair that is too unlike at a coarse size has
    −1; the second result, bool (P,), says where it may be worth trying the other way round.
    """
    where = np.zeros((len(whole), 4), np.float32)  # stretch and shift across, stretch and shift down
    likeness = np.full(len(whole), -1.0, np.float32)
    going = np.arange(len(whole))
    alike = np.zeros(len(whole), bool)
    for side, (steps, least) in STAGES.items():
        if not len(going):
            break
        common = sizes[side]
        rows, place_of = np.unique(np.concatenate([cut[going], whole[going]]), return_inverse=True)
        small = shrunk(thumbnails[rows], side)
        source, still = small[place_of[: len(going)]], small[place_of[len(going) :]]
        source = np.where(mirror[going, None, None, None], source[:, :, ::-1], source)
        own = common.residual(still)
        before = np.einsum("pi,pi->p", own, common.residual(_warped(source, where[going])))
        if side == THUMBNAIL_PX:
            near = before >= BEFORE_STEPS
            going, source, still, own, before = (part[near] for part in (going, source, still, own, before))
            if not len(going):
                break
        moving, target = (_normal(grey(p)) for p in (source, still))
        at = where[going]
        for _ in range(steps):
            at = (at + _step(moving, target, at)).clip(-FARTHEST, FARTHEST)
        after = np.einsum("pi,pi->p", own, common.residual(_warped(source, at)))
        where[going] = np.where((after > before)[:, None], at, where[going])
        score = np.maximum(before, after)
        if side == THUMBNAIL_PX:
            likeness[going] = np.minimum(score, _whole(_warped(source, where[going]), still))
        if side == COARSE_PX:
            alike[going] = score >= EITHER_WAY
        going = going[score >= least]
    return likeness, alike


def _whole(one: Array, other: Array) -> Array:
    """The correlation of aligned pictures including their common part, (P,); −1 if their colours differ.

    Two pictures may differ only in what the set has in common, such as two squares of different colours. Colours
    are compared at 12 px, since JPEG stores them at half the resolution and so changes fine ones.
    """
    a, b = _normal(one), _normal(other)
    colour = (a - grey(a)) - (b - grey(b))
    averages = _sums(colour, ROUGH_PX, np.float32) / np.float32((THUMBNAIL_PX // ROUGH_PX) ** 2)
    apart = np.sqrt((averages**2).mean(axis=(1, 2, 3)))
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
    """Pictures float32 (P, s, s, C) sampled at stretched and shifted positions, by linear interpolation."""
    if not where.any():
        return pictures
    turned = _sampled(pictures, where[:, 2], where[:, 3]).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(_sampled(turned, where[:, 0], where[:, 1]).transpose(0, 2, 1, 3))


def _sampled(pictures: Array, stretch: Array, shift: Array) -> Array:
    """Lines, (P, s, …), sampled at (1 + stretch) · place + shift, places in -1..1."""
    count, side = pictures.shape[:2]
    place = ((np.arange(side) + 0.5) * 2 / side - 1).astype(np.float32)
    at = (((1 + stretch[:, None]) * place + shift[:, None] + 1) * side / 2 - 0.5).clip(0, side - 1)
    low = np.minimum(at.astype(np.int64), side - 2)
    lines = pictures.reshape(count * side, -1)
    first = (np.arange(count)[:, None] * side + low).ravel()
    sampled, next_line = lines[first], lines[first + 1]
    next_line -= sampled
    next_line *= (at - low).astype(np.float32).reshape(-1, 1)
    sampled += next_line
    return np.asarray(sampled.reshape(pictures.shape))


def _normal(pictures: Array) -> Array:
    """Each picture with mean 0 and standard deviation 1, which removes brightness and contrast."""
    rows = _rows(pictures)
    ones = np.full(rows.shape[1], 1 / rows.shape[1], np.float32)
    centred = rows - (rows @ ones)[:, None]
    deviation = np.sqrt(np.einsum("pi,pi->p", centred, centred) / np.float32(rows.shape[1]))
    centred /= np.maximum(deviation, 1e-6)[:, None]
    return np.asarray(centred.reshape(pictures.shape))


def _rows(pictures: Array) -> Array:
    return pictures.reshape(len(pictures), math.prod(pictures.shape[1:]))


def unit(rows: Array) -> Array:
    """Rows of unit length, float32 (N, D); rows of zeros stay zero."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


def shrunk(thumbnails: Array, side: int) -> Array:
    """uint8 (P, 48, 48, C) → float32 (P, side, side, C), by the means of squares: exact."""
    if thumbnails.shape[1] == side:
        return thumbnails.astype(np.float32)
    if side == THUMBNAIL_PX:
        return thumbnails.astype(np.float32)
    return _sums(thumbnails, side, np.uint16).astype(np.float32) / np.float32((THUMBNAIL_PX // side) ** 2)


def _sums(pictures: Array, side: int, kind: Any) -> Array:
    """(P, 48, 48, C) → (P, side, side, C), the sums of squares: first down, then across, which is much quicker."""
    cell, channels = THUMBNAIL_PX // side, pictures.shape[-1]
    lines = pictures.reshape(-1, side, cell, THUMBNAIL_PX * channels).sum(axis=2, dtype=kind)
    return np.asarray(lines.reshape(-1, side, side, cell, channels).sum(axis=3, dtype=kind))


def grey(pictures: Array) -> Array:
    """float32 (P, s, s, C) → (P, s, s, 1), the mean of the channels, of which there are three or one."""
    if pictures.shape[-1] == 1:
        return pictures
    return np.asarray((pictures[..., :1] + pictures[..., 1:2] + pictures[..., 2:]) / np.float32(3))
