"""The training pictures nearest to a picture: what a classifier has seen that looks like it to the network.

Kept in a run as `neighbours.npz`: small copies of some training photos, and where they lie in the network's eyes. It
holds no more than that, and nothing else reads it: where photos must not leave with a run, delete the file; all goes
on working, without the nearest pictures.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topwork.backbone import LAST
from topwork.classifier import DESCRIPTION
from topwork.data.dataset import Example
from topwork.engine import core_count, stream
from topwork.errors import ImageError, InputError
from topwork.features import Features
from topwork.images import decode, size_of
from topwork.novelty import prepared

NEIGHBOURS = "neighbours.npz"
KEPT = 1000  # pictures at most
AXES = 64  # directions at most in which they are compared
THUMBNAIL_PX, QUALITY = 96, 80
FLAT = 1e-6  # of the largest variance: a direction in which pictures differ less is noise
ARRAYS = ("columns", "mean", "axes", "places", "targets", "offsets", "thumbnails", "text")

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One training picture: its label, its cosine with the picture asked about (-1..1), a small JPEG of it."""

    label: str
    similarity: float
    thumbnail: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """M training pictures of a run, in up to 64 directions of the last layer's features.

    `fingerprint`, `width`: of the backbone whose features these are. `columns`: int64 (L,), the last layer's.
    `mean` float32 (L,), `axes` (L, R) orthonormal, `places` (M, R) of length 1, or 0 for a picture that is the mean.
    `classes`, and `targets` int64 (M,): each picture's class. `thumbnails`: JPEG bytes, uint8, end to end, the i-th
    from `offsets[i]` to `offsets[i + 1]`, int64 (M + 1,).
    """

    fingerprint: str
    width: int
    columns: Array
    mean: Array
    axes: Array
    places: Array
    classes: tuple[str, ...]
    targets: Array
    offsets: Array
    thumbnails: Array

    def __len__(self) -> int:
        return len(self.places)

    def nearest(self, features: Array, k: int = 4) -> list[Neighbour]:
        """The `k` most similar pictures, the most similar first; fewer where fewer are kept.

        `features`: all of the backbone's features of one picture, float32 (D,).

        Raises:
            InputError: features of another length.
        """
        if features.shape != (self.width,):
            raise InputError(
                f"`features` must be all {self.width} of one picture; got the shape {features.shape}"
            )
        place = _unit((prepared(features[None, self.columns]) - self.mean) @ self.axes)[0]
        similar = np.clip(self.places @ place, -1, 1)
        return [
            Neighbour(
                self.classes[self.targets[i]],
                float(similar[i]),
                self.thumbnails[self.offsets[i] : self.offsets[i + 1]].tobytes(),
            )
            for i in np.argsort(-similar, kind="stable")[:k].tolist()
        ]

    def save(self, folder: Path) -> None:
        """Write `neighbours.npz` into a run's folder: plain arrays; complete, or not there."""
        text = {"fingerprint": self.fingerprint, "width": self.width, "classes": self.classes}
        arrays = {name: getattr(self, name) for name in ARRAYS if name != "text"}
        arrays["text"] = np.frombuffer(json.dumps(text).encode(), np.uint8)
        partial = folder / f"{NEIGHBOURS}.partial"
        try:
            with partial.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            partial.replace(folder / NEIGHBOURS)
        finally:
            partial.unlink(missing_ok=True)


def build_neighbours(features: Features, *, kept: int = KEPT) -> Neighbours | None:
    """The neighbours of a run, from the features of its training pictures; None where none can be read.

    At most `kept` pictures, evenly over the classes: of each class those whose bytes have the smallest SHA-256, so
    that the same photos give the same choice, and more photos change little of it. Of equal pictures one is kept.
    """
    rows = _chosen(features, kept)
    chosen = features.part(features.dataset.select(rows))
    with closing(stream(_thumbnail, chosen.dataset, workers=core_count())) as results:
        made = list(results)
    readable = [i for i, one in enumerate(made) if one is not None]
    thumbnails = [one for one in made if one is not None]
    if not thumbnails:
        return None
    dataset, facts = chosen.dataset, features.facts
    x = prepared(chosen.matrix((LAST,))[readable])
    mean = x.mean(axis=0)
    axes = _directions(x - mean)
    of_class = {name: i for i, name in enumerate(dataset.classes)}
    return Neighbours(
        facts.fingerprint,
        facts.width,
        facts.columns((LAST,)),
        mean,
        axes,
        _unit((x - mean) @ axes),
        dataset.classes,
        np.array([of_class[dataset[i].label or ""] for i in readable], np.int64),
        np.cumsum([0, *map(len, thumbnails)], dtype=np.int64),
        np.frombuffer(b"".join(thumbnails), np.uint8),
    )


def load_neighbours(folder: Path) -> Neighbours | None:
    """What `Neighbours.save` wrote into a run's folder; None where it is absent, or of another network than the run.

    Raises:
        InputError: it is damaged.
    """
    path = folder / NEIGHBOURS
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ARRAYS}
        text = json.loads(arrays.pop("text").tobytes())
        found = Neighbours(
            fingerprint=str(text["fingerprint"]),
            width=int(text["width"]),
            classes=tuple(map(str, text["classes"])),
            **arrays,
        )
        _check(found)
    except FileNotFoundError:
        return None
    # Every way in which a damaged archive is known to fail inside zipfile and numpy.
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        MemoryError,
        RuntimeError,  # an entry that says it is encrypted
        SyntaxError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(
            f"{path}: expected the small pictures that `topwork train` wrote; it is damaged ({error}); delete it to "
            "go on without nearest pictures, or train again"
        ) from None
    return found if _fingerprint(folder) in (None, found.fingerprint) else None


def _chosen(features: Features, kept: int) -> list[int]:
    """Rows of the pictures to keep, ascending: the first of each class, then the second of each, and so on."""
    first = {key: row for row, key in reversed(list(enumerate(features.keys)))}  # of equal bytes, the first
    labels, seen = features.dataset.labels(), dict.fromkeys(features.dataset.classes, 0)
    ranked: list[tuple[int, bytes, int]] = []
    for key, row in sorted(first.items()):
        label = labels[row]
        ranked.append((seen[label], key, row))
        seen[label] += 1
    return sorted(row for _, _, row in sorted(ranked)[:kept])


def _thumbnail(example: Example) -> bytes | None:
    from PIL import Image

    try:
        data = example.image.read()
        width, height = size_of(data)
        share = min(1.0, THUMBNAIL_PX / max(width, height))
        pixels = decode(data, (max(1, round(height * share)), max(1, round(width * share))))
    except (ImageError, OSError):
        return None
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _directions(centred: Array) -> Array:
    """The directions of largest variance, float32 (D, R), orthonormal, by the smaller matrix of products."""
    n, d = centred.shape
    if n <= d:
        sizes, vectors = np.linalg.eigh(centred @ centred.T)
        vectors = centred.T @ vectors
    else:
        sizes, vectors = np.linalg.eigh(centred.T @ centred)
    wide = np.flatnonzero(sizes > FLAT * max(sizes[-1], FLAT))[-AXES:]
    axes = vectors[:, wide]
    return np.asarray(axes / np.maximum(np.linalg.norm(axes, axis=0), 1e-12), np.float32)


def _unit(rows: Array) -> Array:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.where(lengths > FLAT, rows / np.maximum(lengths, FLAT), 0), np.float32)


def _check(found: Neighbours) -> None:
    """Raise ValueError where the arrays don't fit together."""
    m, r = found.places.shape
    inner = found.mean.shape[0]
    wanted = {
        "columns": ((inner,), "i"),
        "mean": ((inner,), "f"),
        "axes": ((inner, r), "f"),
        "places": ((m, r), "f"),
        "targets": ((m,), "i"),
        "offsets": ((m + 1,), "i"),
        "thumbnails": ((int(found.offsets[-1]),), "u"),
    }
    for name, (shape, kind) in wanted.items():
        array = getattr(found, name)
        if array.shape != shape or array.dtype.kind != kind:
            raise ValueError(f"{name}: expected the shape {shape}; got {array.dtype} {array.shape}")
        if kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} has a value that is not a number or infinite")
    for name, limit in (("columns", found.width), ("targets", len(found.classes))):
        if ((getattr(found, name) < 0) | (getattr(found, name) >= limit)).any():
            raise ValueError(f"{name}: expected values in 0..{limit - 1}")
    if found.offsets[0] != 0 or (np.diff(found.offsets) < 0).any():
        raise ValueError("offsets: expected them to begin at 0 and to rise")


def _fingerprint(folder: Path) -> str | None:
    """The network's of the run in `folder`; None where there is no run."""
    try:
        return str(json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["backbone"]["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
