"""Bytes → uint8 (H, W, 3): the only decoder and resizer, used in training, prediction and serving.

Rules:

* Formats: JPEG, PNG, WebP, BMP, GIF (first frame), TIFF (first page), detected from the first bytes. No other
  decoder is used.
* The EXIF orientation is applied (all eight values). Colour profiles and gamma are ignored.
* Alpha channels, transparent colours and transparent palette entries are composited on white. A transparent
  level of 16-bit grey is ignored.
* Palette, 1-bit, grey, CMYK and YCCK are converted to RGB by Pillow (Adobe's inverted CMYK included).
* 16-bit grey is scaled by its full range, round(v / 257); integers outside 0..65535 are clipped. 16-bit RGB is
  reduced to its high byte by Pillow. Float grey with all values in 0..1 is scaled by 255, otherwise clipped to
  0..255; NaN becomes black.
* Resizing is bicubic with antialiasing (Pillow's BICUBIC). A JPEG much larger than needed is decoded at 1/2,
  1/4 or 1/8 of its size (by the DCT), but to at least `OVERSAMPLE` times the target on both sides.
* If a network's source states how it frames pictures, that is followed to the pixel: the whole picture is resized
  in one step by the stated filter, then the centre is cut out at whole pixels (see `framing`). The exceptions: the
  EXIF orientation is applied first, which Transformers and timm don't do; large JPEGs are decoded at less than their
  size as above, except for the filter "nearest"; and of a strip so long that it would become larger than
  `MAX_RESIZED` pixels, only the centre is resized.

Thread-safe; Pillow releases the GIL while decoding and resizing. Truncated files are refused. A JPEG that is damaged
inside is decoded as far as libjpeg can repair it.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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

from topwork.errors import ImageError, InputError
from topwork.images.framing import Framing, framing_of
from topwork.images.header import ImageFile, clean
from topwork.recipe import Fit

# Part of the fingerprint of stored features: increment it whenever a rule changes pixel values. The versions of
# Pillow and libjpeg-turbo are left out on purpose: their inverse DCT and resampling are integer arithmetic, which
# an update rarely changes, and then by one or two levels of 255. Recomputing 100,000 images after each update
# would cost more than it is worth.
DECODER = "1"

# Just below twice Pillow's limit, where its readers raise: accepts photos of 108-megapixel phones and rejects
# decompression bombs. Half of it for GIF and TIFF, whose readers warn above that.
MAX_PIXELS = 178_000_000

# Each scan of a progressive JPEG processes all pixels again but may take less than 100 bytes in the file, so a file
# of 8 MB could take an hour. Encoders write about ten scans; libtiff has the same limit.
MAX_SCANS = 100
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_MARKER = re.compile(
    rb"\xff[^\x00\x01\xd0-\xd8\xff]"
)  # starts a segment, or ends the image; never inside a scan

# Of a whole picture that is resized before its centre is cut out: 1 x 5,000 pixels would become 327 million.
MAX_RESIZED = 16_000_000

# Measured by benchmarks/speed/decode.py.
OVERSAMPLE = 2

# Pillow's classes instead of Image.open, which tries all formats and warns above 89 megapixels.
_READERS: dict[str, Any] = {
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}

# Pillow's messages for developers, and what they mean for users.
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


def decode(
    data: bytes, size_px: int | tuple[int, int], *, fit: Fit | Framing = "stretch"
) -> NDArray[np.uint8]:
    """Decode an image file's bytes to RGB pixels of the given size.

    Args:
        data: the complete file.
        size_px: the side of a square, or (height, width).
        fit: "stretch" resizes the whole image, ignoring its aspect ratio. "crop" scales the shorter side to the size
            and takes a centre crop. A `Framing` that a network's source states is followed to the pixel.

    Returns:
        uint8 (H, W, 3) in 0..255, C-contiguous and writable. Deterministic.

    Raises:
        ImageError: the image can't be decoded; the message is the reason, on one line.
        InputError: `size_px` or `fit` is invalid.

    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (40, 30), "red").save(file, "PNG")
    >>> decode(file.getvalue(), 2)[0].tolist()
    [[255, 0, 0], [255, 0, 0]]
    """
    return Picture(data, size_px, fit=fit).pixels(size_px, fit=fit)


class Picture:
    """A decoded image file, for several sizes at once.

    Args:
        data: the complete file.
        size_px: the side of a square, or (height, width), that a JPEG is decoded for (see above); `pixels` of this
            size are those of `decode`.
        fit: as for `decode`.

    Attributes:
        size: (width, height) in pixels, after applying the EXIF orientation.

    Raises:
        ImageError: the image can't be decoded; the message is the reason, on one line.
        InputError: `size_px` or `fit` is invalid.
    """

    def __init__(
        self, data: bytes, size_px: int | tuple[int, int], *, fit: Fit | Framing = "stretch"
    ) -> None:
        framing = framing_of(fit)
        height, width = _check_size(size_px, framing)
        file = clean(data)
        with _one_error(file.format):
            self._image, self._full, self._scale = _decoded(file, height, width, framing)
        self._format, self._orientation = file.format, file.orientation
        self.size = self._full[::-1] if file.orientation >= 5 else self._full

    def pixels(self, size_px: int | tuple[int, int], *, fit: Fit | Framing = "stretch") -> NDArray[np.uint8]:
        """RGB pixels, uint8 (H, W, 3), as `decode` gives them.

        Of a JPEG that was decoded at less than its full size for a smaller picture, they are less sharp.
        """
        framing = framing_of(fit)
        height, width = _check_size(size_px, framing)
        with _one_error(self._format):
            return self._resized(height, width, framing)

    def square(self, side_px: int) -> Image.Image:
        """The whole image stretched to a square, mode L or RGB, by a bilinear filter: for measuring, and quicker."""
        with _one_error(self._format):
            image = self._image.resize((side_px, side_px), Image.Resampling.BILINEAR, reducing_gap=3.0)
            return self._turned(image)

    def fine_enough(self, size_px: int) -> bool:
        """Whether squares of this size are as sharp as `decode` makes them, or nearly."""
        return self._scale == 1 or min(self._image.size) >= size_px

    def _resized(self, height: int, width: int, framing: Framing) -> NDArray[np.uint8]:
        # The image is turned last, when it is small; until then the target has the orientation of the file.
        target, box = _target(self._full, self._orientation, (width, height), framing)
        # A reduced JPEG is rounded up, so the last row and column may be partly padding: the box goes by the scale.
        scale = self._scale
        if scale != 1:
            box = (box[0] / scale, box[1] / scale, box[2] / scale, box[3] / scale)
        if framing.resample is None:
            # Images much larger than the target are first reduced by averaging blocks, to at least three times its
            # size. The result is indistinguishable from the plain filter.
            image = self._image.resize(target, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
            return np.array(self._turned(image).convert("RGB"), dtype=np.uint8)
        resample = Image.Resampling[framing.resample.upper()]
        if box == _whole(self._image.size):  # turned first: Pillow rounds between resizing rows and columns
            upright = target[::-1] if self._orientation >= 5 else target
            image = self._turned(self._image).resize(upright, resample)
        else:
            image = self._turned(self._image.resize(target, resample, box=box))
        left, top = framing.cut(image.width, width), framing.cut(image.height, height)
        image = image.crop((left, top, left + width, top + height))
        return np.array(image.convert("RGB"), dtype=np.uint8)

    def _turned(self, image: Image.Image) -> Image.Image:
        turn = _TURNS.get(self._orientation)
        return image if turn is None else image.transpose(turn)


@contextmanager
def _one_error(format_: str) -> Iterator[None]:
    # Decoders raise many types of exceptions for malformed data (OSError, SyntaxError, struct.error, zlib.error,
    # OverflowError, ...). None of them may end a run over 100,000 images, so all become ImageError.
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"not enough memory to decode this {format_} image") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = _PLAINLY.get(reason, reason)
        raise ImageError(f"truncated or damaged {format_}: {reason[:200]}") from error


def size_of(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels after applying the EXIF orientation; only the header is read.

    Raises:
        ImageError: the header shows that the image can't be decoded.
    """
    file = clean(data)
    try:
        width, height = file.size or _READERS[file.format](io.BytesIO(file.data)).size
    except Exception as error:  # decoders raise many types of exceptions
        raise ImageError(f"truncated or damaged {file.format}: its header can't be read") from error
    return (height, width) if file.orientation >= 5 else (width, height)


def _check_size(size_px: int | tuple[int, int], framing: Framing) -> tuple[int, int]:
    sides = (size_px, size_px) if isinstance(size_px, int) else size_px
    if not (
        isinstance(sides, tuple)
        and len(sides) == 2
        and all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in sides)
    ):
        raise InputError(f"`size_px` must be a positive int or (height, width); got {size_px!r}")
    if not framing.own and framing.cuts:
        if sides[0] != sides[1]:
            raise InputError(
                f"`size_px` must be the side of a square for the framing {framing}; got {size_px!r}"
            )
        framing.resized(sides[0])  # refuse before any work
    return sides


def _decoded(
    file: ImageFile, height: int, width: int, framing: Framing
) -> tuple[Image.Image, tuple[int, int], float]:
    """The image, grey or RGB, as it lies in the file; its full size; and how many times smaller it was decoded."""
    if file.size is not None:
        _check_pixels(file.format, file.size)
    if file.format == "JPEG":
        _check_scans(file.data)
    image: Image.Image = _READERS[file.format](io.BytesIO(file.data))
    full, scale = image.size, 1.0
    _check_pixels(file.format, full)
    if file.format == "JPEG" and framing.resample != "nearest":
        target, box = _target(full, file.orientation, (width, height), framing)
        # `draft` chooses the smallest scale that keeps both sides at least as long as requested.
        shrink = max(1.0, min((box[2] - box[0]) / target[0], (box[3] - box[1]) / target[1]) / OVERSAMPLE)
        drafted = image.draft(None, (math.ceil(full[0] / shrink), math.ceil(full[1] / shrink)))
        if drafted is not None:
            scale = full[0] / drafted[1][2]
    image.load()
    return _to_grey_or_rgb(image), full, scale


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
        raise ImageError(f"the JPEG has more than {MAX_SCANS} scans")


def _scans(data: bytes) -> int:
    """The number of scans in a JPEG, counted up to one above the limit.

    It goes from marker to marker, since the same two bytes may occur in other segments, or after the end, where
    phones append videos of several megabytes.
    """
    scans, at = 0, 2
    while scans <= MAX_SCANS and (found := _MARKER.search(data, at)):
        at, marker = found.end(), found.group()
        if marker == _END:
            break
        scans += marker == _SCAN
        at += int.from_bytes(data[at : at + 2], "big")  # the segment, including its length field
    return scans


def _target(
    full: tuple[int, int], orientation: int, size: tuple[int, int], framing: Framing
) -> tuple[tuple[int, int], tuple[float, float, float, float]]:
    """What the image is resized to, (width, height), and from which part of it, as it lies in the file.

    `full` is its size there, `size` that of the upright result; both (width, height).
    """
    turned = orientation >= 5
    target = size[::-1] if turned else size
    if framing.own or not framing.cuts:
        return target, _source_box(full, target, framing.fit)
    resized = framing.resized_size(full[::-1] if turned else full, size[0])
    if resized[0] * resized[1] <= MAX_RESIZED:
        return resized[::-1] if turned else resized, _whole(full)
    across, down = full[0] / 2, full[1] / 2
    half = min(across, down) * size[0] / min(resized)
    return target, (across - half, down - half, across + half, down + half)


def _whole(size: tuple[int, int]) -> tuple[float, float, float, float]:
    return (0.0, 0.0, float(size[0]), float(size[1]))


def _source_box(
    size: tuple[int, int], target: tuple[int, int], fit: Fit
) -> tuple[float, float, float, float]:
    """The part of an image of `size` (width, height) that fills `target`: left, top, right, bottom."""
    if fit == "stretch":
        return _whole(size)
    shrink = min(size[0] / target[0], size[1] / target[1])
    width, height = min(size[0], target[0] * shrink), min(size[1], target[1] * shrink)
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return (left, top, min(left + width, size[0]), min(top + height, size[1]))


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
    """Convert to mode L (a third of the resizing work) or RGB, by the rules at the top of this file."""
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
