"""What a picture shows by itself, without a network: a thumbnail, its size, how dark, flat and sharp it is.

It is looked at once, and kept under the SHA-256 of its bytes, as features are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from topwork.data.dataset import Dataset, Example
from topwork.errors import ImageError, TopworkError
from topwork.features.store import Store
from topwork.images.decode import DECODER, decode, size_of
from topwork.parallel import core_count, stream

LOOKED_PX = 192  # the side of what is measured; four thumbnails wide
THUMBNAIL_PX = 48
MEASURES = 6  # width, height, dark, bright, contrast, sharpness
WIDTH = THUMBNAIL_PX * THUMBNAIL_PX + MEASURES
BATCH = 256  # looks stored in one transaction
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """N pictures as they look, in the order of a dataset.

    `thumbnails`: uint8 (N, 48, 48, 3) RGB, stretched to a square. `size_px`: int64 (N, 2), width and height of the
    file. `dark`, `bright`: float32 (N,), the brightness in 0..255 that 5 % of the pixels lie below, and 5 % above.
    `contrast`: float32 (N,), its standard deviation. `sharpness`: float32 (N,), the share of the contrast that lies
    in the finest detail at 192 px, as the logarithm to base 10 of var(Laplacian) / (var + 1).
    """

    thumbnails: Array
    size_px: Array
    dark: Array
    bright: Array
    contrast: Array
    sharpness: Array

    def __len__(self) -> int:
        return len(self.thumbnails)


def look_at(
    dataset: Dataset, keys: tuple[bytes, ...], *, progress: Callable[[int], None] | None = None
) -> Looks:
    """Look at every picture of a dataset; those that were looked at before are not read again.

    Args:
        dataset: images that can be read (`Features.dataset`).
        keys: the SHA-256 of each (`Features.keys`).
        progress: told how many more are done.

    Raises:
        TopworkError: an image was changed since it was read, or the store can't be written.
    """
    fingerprint = hashlib.sha256(f"topwork.looks 1 {DECODER} {LOOKED_PX} {THUMBNAIL_PX}".encode()).hexdigest()
    with Store.open(fingerprint, WIDTH, about=f"thumbnails of {THUMBNAIL_PX} px") as store:
        absent = store.missing(keys)
        if progress is not None:
            progress(len(dataset) - len(absent))
        waiting: list[tuple[bytes, Array]] = []
        with closing(stream(_look, (dataset[i] for i in absent.tolist()), workers=core_count())) as seen:
            for done, look in enumerate(seen, 1):
                if progress is not None:
                    progress(1)
                waiting.append(look)
                if len(waiting) == BATCH or done == len(absent):
                    store.put(waiting, to_come=len(absent) - done)
                    waiting = []
        rows, lost = store.get(keys)
    if lost.size:
        raise TopworkError(
            f"{dataset[int(lost[0])].image}: was changed while it was being looked at; run the command again"
        )
    return unpacked(rows)


def measured(pixels: Array, size_px: tuple[int, int]) -> Array:
    """uint8 (192, 192, 3) and the file's width and height → one row of the store, float32 (2310,)."""
    cell = LOOKED_PX // THUMBNAIL_PX
    small = pixels.reshape(THUMBNAIL_PX, cell, THUMBNAIL_PX, cell, 3).mean(axis=(1, 3))
    r, g, b = np.moveaxis(np.rint(small).astype(np.int64), -1, 0)
    packed = (r * 65536 + g * 256 + b).ravel()  # whole numbers below 2^24: float32 has them exactly
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


def _look(example: Example) -> tuple[bytes, Array]:
    try:
        data = example.image.read()
        return hashlib.sha256(data).digest(), measured(decode(data, LOOKED_PX), size_of(data))
    except (ImageError, OSError) as error:
        raise TopworkError(
            f"{example.image}: could be read a moment ago, and can't now ({error}); run the command again"
        ) from None
