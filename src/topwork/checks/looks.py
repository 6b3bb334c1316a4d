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
from topwork.images.decode import DECODER, Picture, decode

LOOKED_PX = 192  # the side at which pictures are measured; four times the thumbnail's
THUMBNAIL_PX = 48
MEASURES = 6  # width, height, dark, bright, contrast, sharpness
WIDTH = THUMBNAIL_PX * THUMBNAIL_PX + MEASURES
BATCH = 256  # read at once
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

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
    settings = f"topwork.looks 2 {DECODER} {LOOKED_PX} {THUMBNAIL_PX}"
    fingerprint = hashlib.sha256(settings.encode()).hexdigest()
    with Store.open(fingerprint, WIDTH, about=f"thumbnails of {THUMBNAIL_PX} px") as store:
        yield Beside(store, _measured)


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


def _measured(picture: Picture, data: bytes) -> Array:
    # A JPEG that was decoded for a smaller network has lost detail.
    pixels = picture.pixels(LOOKED_PX) if picture.fine_enough(LOOKED_PX) else decode(data, LOOKED_PX)
    return measured(pixels, picture.size)


def measured(pixels: Array, size_px: tuple[int, int]) -> Array:
    """uint8 (192, 192, 3) and the file's width and height → one row of the store, float32 (2310,)."""
    cell = LOOKED_PX // THUMBNAIL_PX
    # Whole numbers, first down and then across: exact, and a fifth of the time of a mean over both.
    lines = pixels.reshape(THUMBNAIL_PX, cell, LOOKED_PX * 3).sum(axis=1, dtype=np.uint16)
    small = lines.reshape(THUMBNAIL_PX, THUMBNAIL_PX, cell, 3).sum(axis=2, dtype=np.uint16) / cell**2
    r, g, b = np.moveaxis(np.rint(small).astype(np.int64), -1, 0)
    packed = (r * 65536 + g * 256 + b).ravel()  # integers below 2^24 are exact in float32
    grey = pixels @ LUMA
    laplacian = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    sharpness = np.log10((laplacian.var() + 1e-3) / (grey.var() + 1))
    dark, bright = np.percentile(grey, (5, 95))
    return np.concatenate([packed, [*size_px, dark, bright, grey.std(), sharpness]]).astype(np.float32)


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
