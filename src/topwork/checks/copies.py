"""Duplicates and near-duplicates: copied, resized, recompressed, brightened, mirrored or slightly cropped pictures.

Candidate pairs are close in feature space or as small thumbnails. Each is then confirmed on pixels: the aligned
thumbnails, mirrored and cropped if necessary, must correlate. What all pictures of the set have in common (the frame
of a solar cell, the white background of a product photo) is removed first; otherwise they would all look alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from topwork.checks.registration import CONFIRMED, ROUGH_PX, STAGES, Common, registered, shrunk
from topwork.checks.search import blocks_of, compact, neighbours
from topwork.heads.design import Rows
from topwork.images.decode import DECODER
from topwork.parallel import core_count, one_blas_thread, stream
from topwork.storage.results import remembered

NEIGHBOURS = 4  # candidates per picture, by features and by thumbnails
NEAR_FEATURES, NEAR_THUMBNAILS = 0.8, 0.6  # smallest similarity of a candidate
ROUGHLY = 0.35  # smallest correlation of a candidate at 12 px
FLAT = 4.0  # contrast (of 255) below which a picture has nothing to compare
LEARNT_FROM = 1000  # pictures from which the common part is estimated
SEARCHED = 0.6  # share of the progress for finding candidates
AT_ONCE = 256  # pairs
METHOD = 5  # increase it whenever the results may change, so that cached results are not reused

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of a dataset that show the same picture."""

    rows: tuple[int, ...]
    exact: bool  # whether their files are byte-identical
    likeness: float  # the smallest correlation of a confirmed pair, 0 to 1


def duplicate_groups(
    keys: tuple[bytes, ...],
    features: Rows,
    thumbnails: Array,
    *,
    of: str | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Group, ...]:
    """Groups of two or more pictures, ordered by their first row.

    Args:
        keys: the SHA-256 of each image's bytes.
        features: float32 (N, D), of a network; an array, or stored rows.
        thumbnails: uint8 (N, 48, 48, 3).
        of: that network's fingerprint; with it, the results are cached.
        progress: called with the number of pictures that were newly compared; in the end it is all.
    """
    told = _Told(progress, len(keys))
    first: dict[bytes, int] = {}
    own = np.array([first.setdefault(key, row) for row, key in enumerate(keys)])
    rows = np.flatnonzero(own == np.arange(len(own)))  # one row per distinct file
    joined = _Joined(len(keys))
    for row, same in enumerate(own.tolist()):
        joined.join(row, same, 1.0)

    def confirmed() -> dict[str, Array]:
        pictures = thumbnails if len(rows) == len(thumbnails) else thumbnails[rows]
        pairs = list(confirmed_pairs(_Chosen(features, rows), pictures, told))
        a, b, likeness = zip(*pairs, strict=True) if pairs else ((), (), ())
        return {"a": np.array(a, int), "b": np.array(b, int), "likeness": np.array(likeness, float)}

    parts: tuple[bytes | str, ...] = (f"{METHOD} {DECODER} {of}", *(keys[row] for row in rows))
    found = confirmed() if of is None else remembered("copies", parts, confirmed)
    told.share(1.0)
    for a, b, likeness in zip(*(found[name].tolist() for name in ("a", "b", "likeness")), strict=True):
        joined.join(int(rows[a]), int(rows[b]), likeness)
    return tuple(
        Group(members, len({keys[m] for m in members}) == 1, joined.likeness(members[0]))
        for members in joined.groups()
    )


def confirmed_pairs(
    features: Rows, thumbnails: Array, told: _Told | None = None
) -> Iterator[tuple[int, int, float]]:
    """Pairs of rows that show the same picture, and their correlation."""
    told = told or _Told(lambda done: None, len(thumbnails))
    if all((thumbnails[block] == thumbnails[block, :, :, :1]).all() for block in blocks_of(len(thumbnails))):
        thumbnails = np.ascontiguousarray(thumbnails[:, :, :, :1])  # a third of the work
    flat = np.concatenate([_flat(thumbnails[block]) for block in blocks_of(len(thumbnails))])
    typical = np.flatnonzero(~flat)
    typical = typical[:: max(1, len(typical) // LEARNT_FROM)]
    sizes = {side: Common.of(shrunk(thumbnails[typical], side)) for side in STAGES}
    pairs = _candidates(features, thumbnails, sizes[ROUGH_PX], flat, told)

    def confirm(block: Array) -> list[tuple[int, int, float]]:
        a, b, mirror = block.T
        turn = mirror.astype(bool)
        likeness, alike = registered(sizes, thumbnails, a, b, turn)
        # The other way round only where it may matter: which of two pictures is the cropped one is not known.
        rest = np.flatnonzero(alike & (likeness < CONFIRMED))
        turned = registered(sizes, thumbnails, b[rest], a[rest], turn[rest])[0]
        likeness[rest] = np.maximum(likeness[rest], turned)
        near = np.flatnonzero(likeness >= CONFIRMED).tolist()
        return [(int(a[i]), int(b[i]), float(likeness[i])) for i in near]

    blocks = (pairs[start : start + AT_ONCE] for start in range(0, len(pairs), AT_ONCE))
    # Blocks in parallel, each on one thread: more threads slow small products down, on a busy machine many times.
    with one_blas_thread(), closing(stream(confirm, blocks, workers=core_count())) as found:
        for number, confirmed in enumerate(found, 1):
            told.share(SEARCHED + (1 - SEARCHED) * min(1.0, number * AT_ONCE / len(pairs)))
            yield from confirmed


def _candidates(features: Rows, thumbnails: Array, rough: Common, flat: Array, told: _Told) -> Array:
    """Pairs of rows to confirm, in order, and whether to mirror one, int64 (P, 3)."""
    by_features = compact(features)
    # Only this size is held for all pictures at once (1.7 kB each); larger ones are made for each block of pairs.
    small = [shrunk(thumbnails[block], ROUGH_PX) for block in blocks_of(len(thumbnails))]
    own = np.concatenate([rough.residual(part) for part in small])
    mirrored = np.concatenate([rough.residual(part[:, :, ::-1]) for part in small])
    del small
    pairs: list[Array] = []
    for done, (queries, index, least) in enumerate(
        (
            (by_features, by_features, NEAR_FEATURES),
            (own, own, NEAR_THUMBNAILS),
            (mirrored, own, NEAR_THUMBNAILS),
        ),
        1,
    ):
        pairs += neighbours(queries, index, least, NEIGHBOURS)
        told.share(SEARCHED * done / 3)
    found = np.concatenate(pairs)
    found = found[(found[:, 0] != found[:, 1]) & ~flat[found].any(axis=1)]
    a, b = np.unique(np.sort(found, axis=1), axis=0).T
    upright, turned = _alike(own, own, a, b), _alike(mirrored, own, a, b)
    pairs_of = np.stack([a, b, turned > upright], axis=1)
    return np.asarray(pairs_of[np.maximum(upright, turned) >= ROUGHLY])


def _alike(one: Array, other: Array, a: Array, b: Array) -> Array:
    """The dot products of rows `a` of one and rows `b` of the other, (P,)."""
    likeness = np.empty(len(a), np.float32)
    for block in blocks_of(len(a)):
        likeness[block] = np.einsum("pd,pd->p", one[a[block]], other[b[block]])
    return likeness


def _flat(thumbnails: Array) -> Array:
    """Whether a thumbnail is too uniform to compare, bool (P,)."""
    return np.asarray(thumbnails.astype(np.float32).mean(axis=-1).std(axis=(1, 2)) < FLAT)


@dataclass(frozen=True, slots=True, eq=False)
class _Chosen:
    """Some rows of others."""

    features: Rows
    rows: Array

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> Array:
        return self.features[self.rows[rows]]


class _Told:
    """Progress in shares, told in whole pictures."""

    def __init__(self, progress: Callable[[int], None], count: int) -> None:
        self._progress, self._count, self._done = progress, count, 0

    def share(self, share: float) -> None:
        done = round(share * self._count)
        if done > self._done:
            self._progress(done - self._done)
            self._done = done


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
