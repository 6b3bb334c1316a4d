"""Measurements of pictures without a network: thumbnail, size, brightness, contrast, sharpness.

They are computed with the features, from the same decoding, and stored like them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from topwork.data.dataset import Dataset
from topwork.errors import TopworkError
from topwork.features.extract import Beside
from topwork.features.store import Store
from topwork.images.decode import DECODER, Picture
from topwork.storage.cache import MEASUREMENTS

LOOKED_PX = 192  # the side at which pictures are measured; four times the thumbnail's
THUMBNAIL_PX = 48
MEASURES = 6  # width, height, dark, bright, contrast, sharpness
WIDTH = THUMBNAIL_PX * THUMBNAIL_PX + MEASURES
BATCH = 256  # read at once

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """Measurements of N pictures, in the order of a dataset."""

    thumbnails: Array  # uint8 (N, 48, 48, 3) RGB, stretched to a square
    size_px: Array  # int64 (N, 2), width and height of the file
    dark: Array  # float32 (N,), 5th percentile of brightness, 0..255
    bright: Array  # float32 (N,), 95th percentile
    contrast: Array  # float32 (N,), standard deviation of brightness
    sharpness: Array  # float32 (N,), finest detail at 192 px: log10 of var(Laplacian) / (var + 1)

    def __len__(self) -> int:
        return len(self.thumbnails)


@contextmanager
def measuring() -> Iterator[Beside]:
    """Measure each picture while its features are extracted; the store is open while the block runs."""
    settings = f"topwork.looks 3 {DECODER} {LOOKED_PX} {THUMBNAIL_PX}"
    fingerprint = hashlib.sha256(settings.encode()).hexdigest()
    with Store.open(fingerprint, WIDTH, about=f"{MEASUREMENTS} of {THUMBNAIL_PX} px") as store:
        yield Beside(store, look)


def looks_of(store: Store, dataset: Dataset, keys: tuple[bytes, ...]) -> Looks:
    """The measurements of every picture of a dataset.

    Args:
        store: that of `measuring`, after an extraction.
        dataset: readable images (`Features.dataset`).
        keys: the SHA-256 of each (`Features.keys`).

    Raises:
        TopworkError: measurements have been removed from the store.
    """
    thumbnails = np.empty((len(keys), THUMBNAIL_PX, THUMBNAIL_PX, 3), np.uint8)
    parts = []
    for start in range(0, len(keys), BATCH):
        rows, lost = store.get(keys[start : start + BATCH])
        if lost.size:
            raise TopworkError(
                f"{dataset[start + int(lost[0])].image}: its measurements were removed from the cache; "
                "run the command again"
            )
        part = unpacked(rows)
        thumbnails[start : start + BATCH] = part.thumbnails
        parts.append(part)
    values = [
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("size_px", "dark", "bright", "contrast", "sharpness")
    ]
    return Looks(thumbnails, *values)


def look(picture: Picture, data: bytes) -> Array:
    """One row of the store, float32 (2310,), of a decoded image and its file."""
    # A JPEG that was decoded for a smaller network has lost detail.
    if not picture.fine_enough(LOOKED_PX):
        picture = Picture(data, LOOKED_PX)
    image = picture.square(LOOKED_PX)
    small = np.asarray(image.reduce(LOOKED_PX // THUMBNAIL_PX).convert("RGB"), np.int32)
    packed = (
        small[..., 0] << 16 | small[..., 1] << 8 | small[..., 2]
    ).ravel()  # below 2^24: exact in float32
    grey = image.convert("L")
    shares = np.array(grey.histogram(), np.float64) / LOOKED_PX**2
    dark, bright = np.searchsorted(shares.cumsum(), (0.05, 0.95))
    levels = np.arange(256)
    variance = float(shares @ (levels - shares @ levels) ** 2)
    g = np.asarray(grey, np.int16)
    laplacian = 4 * g[1:-1, 1:-1] - g[:-2, 1:-1] - g[2:, 1:-1] - g[1:-1, :-2] - g[1:-1, 2:]
    sharpness = np.log10((laplacian.var(dtype=np.float32) + 1e-3) / (variance + 1))
    measures = [*picture.size, dark, bright, variance**0.5, sharpness]
    return np.concatenate([packed, measures]).astype(np.float32)


def unpacked(rows: Array) -> Looks:
    """Rows of the store, float32 (N, 2310), as `Looks`."""
    packed = rows[:, :-MEASURES].astype(np.int32)
    channels = [(packed >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)]
    thumbnails = np.stack(channels, axis=-1).reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX, 3)
    width, height, dark, bright, contrast, sharpness = rows[:, -MEASURES:].T
    return Looks(
        thumbnails,
        np.stack([width, height], axis=1).astype(np.int64),
        dark.copy(),
        bright.copy(),
        contrast.copy(),
        sharpness.copy(),
    )
