"""Thumbnails for the HTML pages."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import numpy as np

from topwork.data.dataset import Example
from topwork.errors import ImageError
from topwork.images.decode import decode, size_of
from topwork.parallel import core_count, stream

PICTURE_PX, QUALITY = 128, 80

Array = np.ndarray[Any, np.dtype[Any]]
Made = tuple[str, bytes]  # an image's id, and a JPEG


def made(
    make: Callable[[Example], Made | None], examples: Iterable[Example], progress: Callable[[int], None]
) -> Iterator[Made]:
    """Apply `make` to each example, in parallel, and yield the results in order, without those that are None."""
    with closing(stream(make, examples, workers=core_count())) as results:
        for result in results:
            progress(1)
            if result is not None:
                yield result


def small(example: Example) -> Made | None:
    """A thumbnail with the picture's aspect ratio and a longer side of 128 px; None if it can't be read."""
    try:
        data = example.image.read()
        width, height = size_of(data)
        share = PICTURE_PX / max(width, height)
        sides = max(1, round(height * share)), max(1, round(width * share))
        return example.id, jpeg(decode(data, sides))
    except (ImageError, OSError):
        return None


def jpeg(pixels: Array) -> bytes:
    """Encode uint8 (H, W, 3) as a JPEG of at most 128 px."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((PICTURE_PX, PICTURE_PX))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()
