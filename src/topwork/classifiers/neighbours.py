"""The training pictures nearest to a picture in feature space.

`neighbours.npz` in a run's folder has thumbnails of up to 500 training pictures and their coordinates. Nothing else
needs the file: delete it to share a run without training pictures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topwork.errors import InputError

NEIGHBOURS = "neighbours.npz"
KEPT, AXES, SHOWN = 500, 64, 4

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
    features: Array,
    columns: Array,
    labels: Sequence[str],
    keys: Sequence[bytes],
    small: Callable[[int], bytes | None],
) -> Neighbours:
    """Choose equally many training pictures per class, by their SHA-256 so that the choice is stable.

    Args:
        features: float32 (N, D), of `columns` alone.
        columns: their indices among all features, int64 (D,).
        labels: N labels.
        keys: N SHA-256 digests.
        small: returns the thumbnail of a row as JPEG; None if it can't be made.
    """
    of: dict[str, list[int]] = defaultdict(list)
    for row in sorted(range(len(labels)), key=lambda row: keys[row]):
        of[labels[row]].append(row)
    share = max(1, KEPT // len(of))
    made = [(row, small(row)) for rows in of.values() for row in rows[:share]]
    rows = [row for row, picture in made if picture is not None]
    x = _prepared(features[rows])
    mean = x.mean(axis=0)
    _, vectors = (
        np.linalg.eigh((x - mean).T @ (x - mean)) if len(x) > x.shape[1] else (None, _row_axes(x - mean))
    )
    axes = np.ascontiguousarray(vectors[:, ::-1][:, :AXES], np.float32)
    return Neighbours(
        columns,
        mean.astype(np.float32),
        axes,
        _unit((x - mean) @ axes).astype(np.float32),
        tuple(labels[row] for row in rows),
        tuple(picture for _, picture in made if picture is not None),
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


def _row_axes(x: Array) -> Array:
    """Principal axes in ascending order, for fewer rows than columns."""
    _, _, vectors = np.linalg.svd(x, full_matrices=False)
    return np.asarray(vectors[::-1].T)
