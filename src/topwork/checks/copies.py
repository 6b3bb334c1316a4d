"""Pictures that are one picture: copied, resized, recompressed, brightened, mirrored or cropped a little.

Candidates are near each other in what a network sees, or as small thumbnails. Each is then confirmed on pixels: laid
over each other, mirrored, and cropped, two thumbnails must correlate. What all pictures of the set have in common
(the frame of a solar cell, the white ground of a product photo) is taken away first, or they would all be alike.
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

NEIGHBOURS = 6  # candidates of each picture, by features and by thumbnails
NEAR_FEATURES, NEAR_THUMBNAILS = 0.8, 0.6  # the least likeness of a candidate
ROUGHLY = 0.35  # the least correlation of a candidate at 12 px
FLAT = 4.0  # a contrast (of 255) below which a picture has nothing to compare
LEARNT_FROM = 1000  # pictures that what all have in common is learnt from
AT_ONCE, ROWS_AT_ONCE = 256, 1024
METHOD = 1  # counts up whenever other pairs may be found, so that older findings are not taken for new ones

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of a dataset that are one picture. `exact`: their files are equal in every byte.

    `likeness`: the least correlation that one of them has with another that it was joined to, 0 to 1.
    """

    rows: tuple[int, ...]
    exact: bool
    likeness: float


def duplicate_groups(
    keys: tuple[bytes, ...], features: Array, thumbnails: Array, *, of: str | None = None
) -> tuple[Group, ...]:
    """The groups of two or more, by their first row.

    Args:
        keys: the SHA-256 of each image's bytes.
        features: float32 (N, D), what a network makes of each.
        of: the fingerprint of that network; with it, what was found is kept, and not looked for again.
        thumbnails: uint8 (N, 48, 48, 3).
    """
    first: dict[bytes, int] = {}
    own = np.array([first.setdefault(key, row) for row, key in enumerate(keys)])
    rows = np.flatnonzero(own == np.arange(len(own)))  # one of each file
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
    """Pairs of rows that show one picture, and how well they correlate."""
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
    # Blocks side by side, each on one thread: small products lose by more, on a busy machine many times over.
    with (
        threadpool_limits(1, user_api="blas"),
        closing(stream(confirm, blocks, workers=core_count())) as found,
    ):
        for confirmed in found:
            yield from confirmed


def _candidates(features: Array, thumbnails: Array, rough: Common, flat: Array) -> Array:
    """Pairs of rows to be confirmed, in order, and whether one is to be mirrored, int64 (P, 3)."""
    by_features = unit(features - features.mean(axis=0) if len(features) >= ENOUGH else features)
    # Only at this size are all pictures held at once: 1.7 kB each; the larger ones are made as pairs need them.
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


def _flat(thumbnails: Array) -> Array:
    """Whether there is nothing in them to compare, bool (P,)."""
    return np.asarray(thumbnails.astype(np.float32).mean(axis=-1).std(axis=(1, 2)) < FLAT)


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
