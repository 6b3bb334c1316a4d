"""The training pictures nearest to a picture in feature space.

`neighbours.npz` in a run's folder has thumbnails of up to 500 training pictures and their coordinates. Nothing else
needs the file: delete it to share a run without training pictures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topwork.errors import InputError
from topwork.heads.design import Rows, gram, strongest
from topwork.parallel import core_count, one_blas_thread, stream

NEIGHBOURS = "neighbours.npz"
KEPT, AXES, SHOWN = 500, 64, 4
SMALLEST = 1e-3  # deviation of the pictures along an axis, relative to the largest; less is rounding

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A near training picture."""

    label: str
    similarity: float  # cosine, in -1..1
    thumbnail: bytes  # a JPEG


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Coordinates and thumbnails of training pictures."""

    columns: Array  # the features used, int64 (D,)
    mean: Array  # float32 (D,)
    axes: Array  # (D, R)
    places: Array  # unit vectors, (M, R)
    labels: tuple[str, ...]
    thumbnails: tuple[bytes, ...]

    def nearest(self, features: Array, k: int = SHOWN) -> list[Neighbour]:
        """The `k` nearest training pictures, nearest first, for all features of a picture, float32 (W,)."""
        place = _unit((_prepared(features[None, self.columns]) - self.mean) @ self.axes)[0]
        cosine = self.places @ place
        order = np.argsort(-cosine, kind="stable")[:k]
        return [Neighbour(self.labels[i], float(cosine[i]), self.thumbnails[i]) for i in order]

    def save(self, path: Path) -> None:
        """Write an .npz of plain arrays."""
        ends = np.cumsum([len(t) for t in self.thumbnails])
        with path.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                columns=self.columns,
                mean=self.mean,
                axes=self.axes,
                places=self.places.astype(np.float16),
                labels=np.array(self.labels),
                ends=ends,
                jpeg=np.frombuffer(b"".join(self.thumbnails), np.uint8),
            )


def make_neighbours(
    features: Rows,
    columns: Array,
    labels: Sequence[str],
    keys: Sequence[bytes],
    small: Callable[[int], bytes | None],
) -> Neighbours:
    """Choose equally many training pictures per class, by their SHA-256 so that the choice is stable.

    Args:
        features: float32 (N, D), of `columns` alone, an array or stored rows.
        columns: their indices among all features, int64 (D,).
        labels: N labels.
        keys: N SHA-256 digests.
        small: returns the thumbnail of a row as JPEG; None if it can't be made.
    """
    of: dict[str, list[int]] = defaultdict(list)
    for row in sorted(range(len(labels)), key=lambda row: keys[row]):
        of[labels[row]].append(row)
    share = max(1, KEPT // len(of))
    chosen = [row for rows in of.values() for row in rows[:share]]
    with closing(stream(small, chosen, workers=core_count())) as pictures:
        made = [(row, picture) for row, picture in zip(chosen, pictures, strict=True) if picture is not None]
    rows = [row for row, _ in made]
    x = _prepared(features[np.array(rows, np.int64)])
    mean = x.mean(axis=0)
    with one_blas_thread():
        axes = _strongest_axes(x - mean)
    return Neighbours(
        columns,
        mean.astype(np.float32),
        axes,
        _unit((x - mean) @ axes).astype(np.float32),
        tuple(labels[row] for row in rows),
        tuple(picture for _, picture in made),
    )


def load_neighbours(folder: Path) -> Neighbours | None:
    """Load a run's neighbours; None if it has none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / NEIGHBOURS
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            jpeg, ends = file["jpeg"].tobytes(), file["ends"].tolist()
            starts = [0, *ends[:-1]]
            return Neighbours(
                file["columns"],
                file["mean"],
                file["axes"],
                file["places"].astype(np.float32),
                tuple(map(str, file["labels"])),
                tuple(jpeg[a:b] for a, b in zip(starts, ends, strict=True)),
            )
    except Exception as error:  # a damaged archive fails in a dozen ways inside zipfile and numpy
        raise InputError(f"{path}: damaged ({error}); delete it, nothing else needs it") from None


def _prepared(x: Array) -> Array:
    """Signed square roots, scaled to unit length, as in `novelty`."""
    return _unit(np.sign(x) * np.sqrt(np.abs(x)))


def _unit(x: Array) -> Array:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), np.float32)


def _strongest_axes(centred: Array) -> Array:
    """Directions of the largest variance of centred rows (N, D), float32 (D, up to `AXES`), orthonormal."""
    if len(centred) > centred.shape[1]:
        return np.ascontiguousarray(strongest(gram(centred.T), AXES)[:, ::-1], np.float32)
    along = strongest(gram(centred), AXES)[:, ::-1].T.astype(np.float32) @ centred
    lengths = np.linalg.norm(along, axis=1, keepdims=True)
    kept = (lengths > SMALLEST * lengths.max(initial=0)).ravel()
    return np.ascontiguousarray((along[kept] / lengths[kept]).T)
