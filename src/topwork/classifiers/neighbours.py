"""The training pictures that are nearest to a picture, as its features have it.

`neighbours.npz` in a run's folder: small copies of up to 500 training pictures, and where they lie. Nothing
else needs the file: whoever wants no training pictures in a run that is passed on may delete it.
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
    """`similarity`: the cosine, in -1..1; `thumbnail`: a JPEG."""

    label: str
    similarity: float
    thumbnail: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """`columns`: which features count, int64 (D,); `mean` float32 (D,); `axes` (D, R); `places` (M, R), unit."""

    columns: Array
    mean: Array
    axes: Array
    places: Array
    labels: tuple[str, ...]
    thumbnails: tuple[bytes, ...]

    def nearest(self, features: Array, k: int = SHOWN) -> list[Neighbour]:
        """All features of a picture, float32 (W,) → its `k` nearest training pictures, nearest first."""
        place = _unit((_prepared(features[None, self.columns]) - self.mean) @ self.axes)[0]
        cosine = self.places @ place
        order = np.argsort(-cosine, kind="stable")[:k]
        return [Neighbour(self.labels[i], float(cosine[i]), self.thumbnails[i]) for i in order]

    def save(self, path: Path) -> None:
        """Plain arrays, no pickle."""
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
    """From training pictures: as many of each class, chosen by their SHA-256, so that the choice stays put.

    Args:
        features: float32 (N, D), those of `columns` alone.
        columns: where they stand among all features, int64 (D,).
        labels: N.
        keys: N SHA-256 digests.
        small: the JPEG of the picture of a row; None where it can't be made.
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
    """What a run's folder has; None if it has none.

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
        raise InputError(f"{path}: damaged ({error}); delete it: nothing else needs it") from None


def _prepared(x: Array) -> Array:
    """Signed roots of unit length, as `novelty` has them."""
    return _unit(np.sign(x) * np.sqrt(np.abs(x)))


def _unit(x: Array) -> Array:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), np.float32)


def _row_axes(x: Array) -> Array:
    """Principal axes, least first, of fewer rows than columns."""
    _, _, vectors = np.linalg.svd(x, full_matrices=False)
    return np.asarray(vectors[::-1].T)
