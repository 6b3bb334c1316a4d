"""Nearest neighbours: all pairs up to some thousand pictures, with more an approximate index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np

from topwork.checks.registration import ENOUGH, unit
from topwork.heads.design import Rows, gram, in_blocks, strongest
from topwork.parallel import core_count, one_blas_thread, stream

ALL_PAIRS = 8000  # pictures up to which each is compared with all others
CELLS, AXES = 4, 256  # with more: the cells that a picture is looked for in, and the directions of features
LEARNT_FROM = 1000  # pictures that these are found from
ROWS_AT_ONCE = 1024

Array = np.ndarray[Any, np.dtype[Any]]


def compact(features: Rows) -> Array:
    """Features without what all have in common, as unit vectors; of many, along their strongest directions."""
    if len(features) <= ALL_PAIRS:
        x = features[:]
        return unit(x - x.mean(axis=0) if len(x) >= ENOUGH else x)
    random = np.random.default_rng(0)
    sample = features[np.sort(random.choice(len(features), LEARNT_FROM, replace=False))]
    mean = sample.mean(axis=0)
    with one_blas_thread():
        axes = np.asarray(strongest(gram((sample - mean).T), AXES), np.float32)
    return np.concatenate([part for _, part in in_blocks(lambda x, _: unit((x - mean) @ axes), features)])


def neighbours(queries: Array, index: Array, least: float, count: int) -> Iterator[Array]:
    """Rows of `queries` and their nearest rows of `index`, int64 (P, 2) at a time.

    Args:
        queries, index: unit vectors, float32 (N, D).
        least: smallest cosine of a neighbour.
        count: most neighbours of each, besides itself.
    """
    search = _in_cells if len(index) > ALL_PAIRS else _among_all
    with one_blas_thread():
        yield from search(queries, index, least, min(count + 1, len(index)))


def _among_all(queries: Array, index: Array, least: float, count: int) -> Iterator[Array]:
    def one(block: slice) -> Array:
        rows, places, _ = _nearest(queries[block] @ index.T, least, count)
        return np.stack([block.start + rows, places], axis=1)

    with closing(stream(one, blocks_of(len(queries)), workers=core_count())) as found:
        yield from found


def _in_cells(queries: Array, index: Array, least: float, count: int) -> Iterator[Array]:
    """Approximately: each row of `index` lies in the cell of its nearest pivot; a query looks into a few cells.

    An inverted file (Sivic and Zisserman 2003, "Video Google") whose pivots are rows, chosen at random. The time
    grows as N^1.5. Near-duplicates lie close together, and so in cells that are near both; others may be missed.
    """
    random = np.random.default_rng(0)
    pivots = index[random.choice(len(index), int(2 * np.sqrt(len(index))), replace=False)]
    cell_of = np.empty(len(index), int)
    near = np.empty((len(queries), CELLS), int)
    for block in blocks_of(len(index)):
        cell_of[block] = (index[block] @ pivots.T).argmax(axis=1)
    for block in blocks_of(len(queries)):
        near[block] = np.argpartition(-(queries[block] @ pivots.T), CELLS - 1, axis=1)[:, :CELLS]
    members = _sorted_into(cell_of, len(pivots))
    askers = _sorted_into(near.ravel(), len(pivots))

    def one(cell: int) -> Array:
        rows, places = askers[cell] // CELLS, members[cell]
        found = [np.zeros((0, 3))]
        for block in blocks_of(len(rows)) if len(places) else ():
            asked = rows[block]
            i, j, likeness = _nearest(queries[asked] @ index[places].T, least, min(count, len(places)))
            found.append(np.stack([asked[i], places[j], likeness], axis=1))
        return np.concatenate(found)

    with closing(stream(one, range(len(pivots)), workers=core_count())) as results:
        every = np.concatenate(list(results))
    every = every[np.lexsort((-every[:, 2], every[:, 0]))]
    firsts = np.searchsorted(every[:, 0], every[:, 0])
    yield every[np.arange(len(every)) - firsts < count][:, :2].astype(int)


def _sorted_into(cells: Array, count: int) -> list[Array]:
    order = np.argsort(cells, kind="stable")
    return np.split(order, np.searchsorted(cells[order], np.arange(1, count)))


def _nearest(likeness: Array, least: float, count: int) -> tuple[Array, Array, Array]:
    """The row, column and value of the `count` largest entries of each row that reach `least`."""
    near = likeness >= least
    # Only a few rows have more neighbours than `count`, so only those are partitioned.
    many = np.flatnonzero(np.count_nonzero(near, axis=1) > count)
    nearest = np.argpartition(-likeness[many], count - 1, axis=1)[:, :count]
    near[many] = False
    near[many[:, None], nearest] = True
    rows, places = np.nonzero(near)
    return rows, places, likeness[rows, places]


def blocks_of(count: int) -> Iterator[slice]:
    """Consecutive slices of `count` rows."""
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, count, ROWS_AT_ONCE))
