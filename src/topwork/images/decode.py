"""Bytes → uint8 (H, W, 3): the only decoder and resizer, for training, predicting and serving alike.

The one documented way:

* JPEG, PNG, WebP, BMP, GIF (first frame), TIFF (first page), known by their first bytes; no other decoder is
  ever reached.
* The EXIF orientation is applied, all eight values. Colour profiles and gamma are not.
* Alpha, a transparent colour and a transparent palette entry are composited over white (but for a transparent
  level of 16-bit grey, which is ignored).
* Palette, 1-bit, grey, CMYK and YCCK become RGB as Pillow converts them (Adobe's inverted CMYK included).
* 16-bit grey is scaled by its full range, round(v / 257); integers outside 0..65535 are clipped. Of 16-bit
  RGB Pillow gives the high byte. Float grey that lies in 0..1 throughout is scaled by 255, any other is
  clipped to 0..255; NaN is black.
* Resizing is bicubic with antialiasing (Pillow's BICUBIC). A JPEG much larger than needed is decoded at 1/2,
  1/4 or 1/8 of its size, as the DCT allows, but no smaller than `OVERSAMPLE` times the target on either side.

Pillow lets go of the GIL while it decodes and resizes, and nothing here is shared: call it from many threads.
A file that stops too soon is refused. A JPEG damaged in its middle decodes as far as libjpeg can mend it.
"""

from __future__ import annotations

import io
import math
import re
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from topwork.errors import ImageError, InputError, one_of
from topwork.images.header import ImageFile, clean
from topwork.recipe import Fit

# Part of the fingerprint of stored features: raise it with any change of rule that moves pixels. The versions
# of Pillow and libjpeg-turbo are left out on purpose. Their inverse DCT and resampling are integer arithmetic
# that an update seldom touches, and then by a level or two of 255; to compute 100,000 images anew at every
# update would cost more than that protects.
DECODER = "1"

# Just below twice Pillow's own limit, where its readers refuse: the photos of a 108-megapixel phone pass, a
# kilobyte that claims gigabytes does not. Half of it for GIF and TIFF, whose readers warn from there on.
MAX_PIXELS = 178_000_000

# Each scan of a progressive JPEG goes over all pixels again, and may take less than a hundred bytes in the file: 8 MB
# could ask for an hour. Encoders write about ten; libtiff draws the line here, too.
MAX_SCANS = 100
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_MARKER = re.compile(
    rb"\xff[^\x00\x01\xd0-\xd8\xff]"
)  # one that begins a segment, or the end; no byte of a scan

# Measured by benchmarks/speed/decode.py.
OVERSAMPLE = 2

# Pillow's classes rather than Image.open, which asks every format in turn and warns above 89 megapixels.
_READERS: dict[str, Any] = {
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}

# What Pillow says for its own developers, and what that means to one who has such a file.
_PLAINLY = {
    "not identified by this driver": "its header can't be read",
    "Truncated File Read": "it ends within its header",
}

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, size_px: int | tuple[int, int], *, fit: Fit = "stretch") -> NDArray[np.uint8]:
    """One image file's bytes as RGB pixels of the size a network wants.

    `data` is the whole file. `size_px` is one side of a square, or (height, width). `fit="stretch"` takes the
    whole image, whatever its proportions; `fit="crop"` takes the largest centred part that has the target's
    proportions (the shorter side scaled to the size, then a centre crop). The result is uint8 (H, W, 3) in
    0..255, C-contiguous, writable, and the same for the same bytes in every thread and run.

    Raises:
        ImageError: these bytes give no picture; its text is the reason, on one line.
        InputError: `size_px` or `fit` is wrong.

    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (40, 30), "red").save(file, "PNG")
    >>> decode(file.getvalue(), 2)[0].tolist()
    [[255, 0, 0], [255, 0, 0]]
    """
    height, width = _check_size(size_px)
    if fit not in get_args(Fit):
        raise InputError(one_of(fit, get_args(Fit), what="fit"))
    file = clean(data)
    # Every decoder has its own way to fail on hostile bytes (OSError, SyntaxError, struct.error, zlib.error,
    # OverflowError, ...), and none of them may end a run over 100,000 images: all become one kind.
    try:
        return _decode(file, height, width, fit)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"not enough memory to decode this {file.format} image") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = _PLAINLY.get(reason, reason)
        raise ImageError(f"truncated or damaged {file.format}: {reason[:200]}") from error


def size_of(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels as the picture is to be seen: turned as EXIF says; only its header is read.

    Raises:
        ImageError: these bytes give no picture, as far as the header tells.
    """
    file = clean(data)
    try:
        width, height = file.size or _READERS[file.format](io.BytesIO(file.data)).size
    except Exception as error:  # every decoder has its own way to fail
        raise ImageError(f"truncated or damaged {file.format}: its header can't be read") from error
    return (height, width) if file.orientation >= 5 else (width, height)


def _check_size(size_px: int | tuple[int, int]) -> tuple[int, int]:
    sides = (size_px, size_px) if isinstance(size_px, int) else size_px
    if not (
        isinstance(sides, tuple)
        and len(sides) == 2
        and all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in sides)
    ):
        raise InputError(f"`size_px` must be a positive int or (height, width); got {size_px!r}")
    return sides


def _decode(file: ImageFile, height: int, width: int, fit: Fit) -> NDArray[np.uint8]:
    if file.size is not None:
        _check_pixels(file.format, file.size)
    if file.format == "JPEG":
        _check_scans(file.data)
    image: Image.Image = _READERS[file.format](io.BytesIO(file.data))
    _check_pixels(file.format, image.size)
    # Turning comes last, on few pixels; until then the target lies as the file does.
    target = (height, width) if file.orientation >= 5 else (width, height)
    box = _source_box(image.size, target, fit)
    if file.format == "JPEG":
        # `draft` picks the strongest scale that keeps both sides at least as asked. It rounds the size up, so
        # the last row and column may be part padding: the box goes by the true scale.
        full = image.size
        shrink = max(1.0, min((box[2] - box[0]) / target[0], (box[3] - box[1]) / target[1]) / OVERSAMPLE)
        drafted = image.draft(None, (math.ceil(full[0] / shrink), math.ceil(full[1] / shrink)))
        if drafted is not None:
            scale = full[0] / drafted[1][2]
            box = (box[0] / scale, box[1] / scale, box[2] / scale, box[3] / scale)
    image.load()
    image = _to_grey_or_rgb(image)
    # Far above the target, whole blocks are averaged first, down to three times the target at least, which
    # can't be told from the plain filter.
    image = image.resize(target, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    if file.orientation in _TURNS:
        image = image.transpose(_TURNS[file.orientation])
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _check_pixels(format_: str, size: tuple[int, int]) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"the image has no pixels ({width} x {height})")
    limit = MAX_PIXELS // 2 if format_ in ("GIF", "TIFF") else MAX_PIXELS
    if width * height > limit:
        raise ImageError(
            f"the image has {width} x {height} = {width * height:,} pixels; the limit is {limit:,}"
        )


def _check_scans(data: bytes) -> None:
    if data.count(_SCAN) > MAX_SCANS and _scans(data) > MAX_SCANS:
        raise ImageError(f"the JPEG goes over its pixels in more than {MAX_SCANS} scans")


def _scans(data: bytes) -> int:
    """How many scans a JPEG has, counted up to one beyond the limit.

    From marker to marker: the same two bytes may stand in its other segments, or behind its end, where phones put a
    film of several megabytes.
    """
    scans, at = 0, 2
    while scans <= MAX_SCANS and (found := _MARKER.search(data, at)):
        at, marker = found.end(), found.group()
        if marker == _END:
            break
        scans += marker == _SCAN
        at += int.from_bytes(data[at : at + 2], "big")  # the segment, and its length itself
    return scans


def _source_box(
    size: tuple[int, int], target: tuple[int, int], fit: Fit
) -> tuple[float, float, float, float]:
    """The part of an image of `size` (width, height) that fills `target`: left, top, right, bottom."""
    if fit == "stretch":
        return (0.0, 0.0, float(size[0]), float(size[1]))
    shrink = min(size[0] / target[0], size[1] / target[1])
    width, height = min(size[0], target[0] * shrink), min(size[1], target[1] * shrink)
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return (left, top, min(left + width, size[0]), min(top + height, size[1]))


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
    """Mode L (a third of the work to resize) or RGB, by the rules at the top."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_grey(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _deep_grey(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)  # (height, width)
    if image.mode != "F":
        values = np.clip(values, 0, 65535) / 257
    else:
        values = np.nan_to_num(values, nan=0.0, posinf=255.0, neginf=0.0)
        if values.min() >= 0 and values.max() <= 1:
            values = values * 255
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
