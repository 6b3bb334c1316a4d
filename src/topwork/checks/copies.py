"""Duplicates and near-duplicates: copied, resized, recompressed, brightened, mirrored or slightly cropped pictures.

Candidate pairs are close in feature space or as small thumbnails. Each is then confirmed on pixels: the aligned
thumbnails, mirrored and cropped if necessary, must correlate. What all pictures of the set have in common (the frame
of a solar cell, the white background of a product photo) is removed first; otherwise they would all look alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from topwork.checks.registration import CONFIRMED, ENOUGH, ROUGH_PX, STEPS, Common, registered, shrunk, unit
from topwork.images.decode import DECODER
from topwork.parallel import core_count, stream
from topwork.storage.results import remembered

NEIGHBOURS = 6  # candidates per picture, by features and by thumbnails
NEAR_FEATURES, NEAR_THUMBNAILS = 0.8, 0.6  # smallest similarity of a candidate
ROUGHLY = 0.35  # smallest correlation of a candidate at 12 px
FLAT = 4.0  # contrast (of 255) below which a picture has nothing to compare
LEARNT_FROM = 1000  # pictures from which the common part is estimated
AT_ONCE, ROWS_AT_ONCE = 256, 1024
METHOD = 2  # increase it whenever the results may change, so that cached results are not reused

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of a dataset that show the same picture."""

    rows: tuple[int, ...]
    exact: bool  # whether their files are byte-identical
    likeness: float  # the smallest correlation of a confirmed pair, 0 to 1


def duplicate_groups(
    keys: tuple[bytes, ...], features: Array, thumbnails: Array, *, of: str | None = None
) -> tuple[Group, ...]:
    """Groups of two or more pictures, ordered by their first row.

    Args:
        keys: the SHA-256 of each image's bytes.
        features: float32 (N, D), of a network.
        of: that network's fingerprint; with it, the results are cached.
        thumbnails: uint8 (N, 48, 48, 3).
    """
    first: dict[bytes, int] = {}
    own = np.array([first.setdefault(key, row) for row, key in enumerate(keys)])
    rows = np.flatnonzero(own == np.arange(len(own)))  # one row per distinct file
    joined = _Joined(len(keys))
    for row, same in enumerate(own.tolist()):
        joined.join(row, same, 1.0)

    def confirmed() -> dict[str, Array]:
        pairs = list(confirmed_pairs(features[rows], thumbnails[rows]))
        a, b, likeness = zip(*pairs, strict=True) if pairs else ((), (), ())
        return {"a": np.array(a, int), "b": np.array(b, int), "likeness": np.array(likeness, float)}

    parts: tuple[bytes | str, ...] = (f"{METHOD} {DECODER} {of}", *(keys[row] for row in rows))
    found = confirmed() if of is None else remembered("copies", parts, confirmed)
    for a, b, likeness in zip(*(found[name].tolist() for name in ("a", "b", "likeness")), strict=True):
        joined.join(int(rows[a]), int(rows[b]), likeness)
    return tuple(
        Group(members, len({keys[m] for m in members}) == 1, joined.likeness(members[0]))
        for members in joined.groups()
    )


def confirmed_pairs(features: Array, thumbnails: Array) -> Iterator[tuple[int, int, float]]:
    """Pairs of rows that show the same picture, and their correlation."""
    from threadpoolctl import threadpool_limits

    flat = np.concatenate([_flat(thumbnails[block]) for block in _blocks(len(thumbnails))])
    typical = np.flatnonzero(~flat)
    typical = typical[:: max(1, len(typical) // LEARNT_FROM)]
    sizes = {side: Common.of(shrunk(thumbnails[typical], side)) for side in (ROUGH_PX, *STEPS)}
    pairs = _candidates(features, thumbnails, sizes[ROUGH_PX], flat)

    def confirm(block: Array) -> list[tuple[int, int, float]]:
        a, b, mirror = block.T
        one, other, turn = thumbnails[a], thumbnails[b], mirror.astype(bool)
        likeness = np.maximum(registered(sizes, one, other, turn), registered(sizes, other, one, turn))
        near = np.flatnonzero(likeness >= CONFIRMED).tolist()
        return [(int(a[i]), int(b[i]), float(likeness[i])) for i in near]

    blocks = (pairs[start : start + AT_ONCE] for start in range(0, len(pairs), AT_ONCE))
    # Blocks in parallel, each on one thread: more threads slow small products down, on a busy machine many times.
    with (
        threadpool_limits(1, user_api="blas"),
        closing(stream(confirm, blocks, workers=core_count())) as found,
    ):
        for confirmed in found:
            yield from confirmed


def _candidates(features: Array, thumbnails: Array, rough: Common, flat: Array) -> Array:
    """Pairs of rows to confirm, in order, and whether to mirror one, int64 (P, 3)."""
    by_features = unit(features - features.mean(axis=0) if len(features) >= ENOUGH else features)
    # Only this size is held for all pictures at once (1.7 kB each); larger ones are made for each block of pairs.
    small = [shrunk(thumbnails[block], ROUGH_PX) for block in _blocks(len(thumbnails))]
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
    """The dot products of rows `a` of one and rows `b` of the other, (P,)."""
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
        # Only a few rows have more neighbours than `count`, so only those are partitioned.
        many = np.flatnonzero(np.count_nonzero(near, axis=1) > count)
        nearest = np.argpartition(-likeness[many], count - 1, axis=1)[:, :count]
        near[many] = False
        near[many[:, None], nearest] = True
        rows, places = np.nonzero(near)
        yield np.stack([block.start + rows, places], axis=1)


def _flat(thumbnails: Array) -> Array:
    """Whether a thumbnail is too uniform to compare, bool (P,)."""
    return np.asarray(thumbnails.astype(np.float32).mean(axis=-1).std(axis=(1, 2)) < FLAT)


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, count, ROWS_AT_ONCE))


class _Joined:
    """A union-find of rows: each points towards its group's first row."""

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
