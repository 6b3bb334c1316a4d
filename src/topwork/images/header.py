"""Read an image file's format, orientation and size, and strip data that does not affect its pixels.

Files from cameras, scanners and the web contain EXIF, colour profiles, texts, previews, animations and more pages,
often malformed. Pillow reads some of these when it opens a file, and then warns (a process-wide setting, which
threads can't change separately) or refuses a picture with intact pixels. So `clean` keeps only the first picture,
and reads the EXIF orientation. No pixels are decoded here, and Pillow is not imported.

Specifications: ITU-T T.81 (JPEG), CIPA DC-008 (EXIF), TIFF 6.0 and BigTIFF, W3C PNG (third edition),
RFC 9649 (WebP), GIF89a.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from topwork.errors import ImageError

_ORIENTATION = 0x0112

# The TIFF tags that say how pixels are stored: size, depth, compression, strips, tiles, palette, samples.
_TIFF_ONE_VALUE = frozenset({256, 257, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323, 332})
_TIFF_MANY_VALUES = frozenset(
    {258, 273, 279, 320, 324, 325, 338, 339, 347, *range(512, 522), *range(529, 533)}
)
_TIFF_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One picture: Pillow's format name, the EXIF orientation (1..8), and (width, height) if read here."""

    format: str
    data: bytes
    orientation: int = 1
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    tag: int
    kind: int
    count: int
    value: bytes  # the value if it fits, else its offset
    raw: bytes  # the whole entry: 12 bytes, in a BigTIFF 20


@dataclass(frozen=True, slots=True)
class _Directory:
    order: str  # struct's byte-order character
    big: bool
    start: int
    end: int  # after the offset of the next directory
    entries: tuple[_Entry, ...]


def clean(data: bytes) -> ImageFile:
    """Detect the format of `data`, strip metadata and later pictures, and read the orientation.

    Raises:
        ImageError: the file is empty, in none of the six formats, or has a TIFF or WebP header that points outside
            the file.
    """
    if not data:
        raise ImageError("the file is empty")
    if data.startswith(b"\xff\xd8\xff"):
        return _clean_jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _clean_png(data)
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return _clean_tiff(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _read_webp(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return ImageFile("GIF", data, size=_gif_size(data))
    if data.startswith(b"BM"):
        return ImageFile("BMP", data)
    raise ImageError(f"not a JPEG, PNG, WebP, BMP, GIF or TIFF image (starts with {data[:8]!r})")


def _clean_jpeg(data: bytes) -> ImageFile:
    kept, orientation, at, done = [], 1, 2, 0
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if (
            marker in (0xDA, 0xD9) or marker < 0xC0
        ):  # start of scan; or not a segment: libjpeg raises the error
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xE1 and orientation == 1:
            orientation = _exif_orientation(data[at + 4 : end])
        # APP0 (JFIF) and APP14 (Adobe) define the colour space; other application segments and comments don't.
        if (0xE0 < marker <= 0xEF and marker != 0xEE) or marker == 0xFE:
            kept.append(data[done:at])
            done = end
        at = end
    return ImageFile("JPEG", b"".join([*kept, data[done:]]) if kept else data, orientation)


def _clean_png(data: bytes) -> ImageFile:
    kept, orientation, at = [data[:8]], 1, 8
    while at + 8 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"eXIf":
            orientation = _exif_orientation(data[at + 8 : end - 4])
        if kind[0] & 0x20 == 0 or kind == b"tRNS":  # upper-case first letter: a critical chunk
            kept.append(data[at:end])
        at = end
    return ImageFile("PNG", b"".join(kept), orientation)


def _clean_tiff(data: bytes) -> ImageFile:
    try:
        directory = _read_directory(data)
    except struct.error:
        raise ImageError("truncated or damaged TIFF: its directory is outside the file") from None
    entries: dict[int, bytes] = {}
    held = 0
    for e in directory.entries:
        if e.tag not in _TIFF_ONE_VALUE | _TIFF_MANY_VALUES or e.kind not in _TIFF_TYPE_BYTES:
            continue
        if e.count != 1 and e.tag in _TIFF_ONE_VALUE:
            raise ImageError(f"truncated or damaged TIFF: tag {e.tag} must have one value; it has {e.count}")
        entries.setdefault(e.tag, e.raw)
        size = e.count * _TIFF_TYPE_BYTES[e.kind]
        if size > len(e.value):
            held += size
            if int.from_bytes(e.value, "big" if directory.order == ">" else "little") + size > len(data):
                raise ImageError(f"truncated or damaged TIFF: tag {e.tag} points outside the file")
    if held > len(data):  # overlapping values; Pillow would warn
        raise ImageError("truncated or damaged TIFF: its tags are larger than the file")
    # The kept entries replace the directory in place, padded with zeros (no next page). If they were appended to a
    # truncated file, they would be read as its last pixels.
    count = struct.pack(directory.order + ("Q" if directory.big else "H"), len(entries))
    kept = (count + b"".join(entries.values())).ljust(directory.end - directory.start, b"\0")
    data = data[: directory.start] + kept + data[directory.end :]
    return ImageFile("TIFF", data, _orientation(directory))


def _exif_orientation(block: bytes) -> int:
    """The orientation in an EXIF block (a TIFF directory, with or without "Exif" prefix); 1 if there is none."""
    block = block.removeprefix(b"Exif\0\0")
    if not block.startswith((b"II*\0", b"MM\0*")):
        return 1
    try:
        return _orientation(_read_directory(block))
    except struct.error:
        return 1


def _orientation(directory: _Directory) -> int:
    for e in directory.entries:
        if e.tag == _ORIENTATION and e.kind in (3, 4):  # SHORT by the standard; some programs write LONG
            (value,) = struct.unpack_from(directory.order + ("H" if e.kind == 3 else "I"), e.value)
            return int(value) if 1 <= value <= 8 else 1
    return 1


def _read_directory(data: bytes) -> _Directory:
    """The first directory of a TIFF or BigTIFF. Raises `struct.error` if it is outside `data`."""
    order, big = "<>"[data[:1] == b"M"], 43 in data[2:4]
    layout = struct.Struct(order + ("HHQ8s" if big else "HHI4s"))
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    if start > len(data):  # checked here, because `unpack_from` doesn't accept offsets above 2**63
        raise struct.error("the directory is outside the file")
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    first = start + (8 if big else 2)
    end = first + count * layout.size + (8 if big else 4)
    if end > len(data) or count > 0xFFFF:  # a BigTIFF may claim more, but no real file has that many tags
        raise struct.error("the directory is outside the file")
    entries = []
    for at in range(first, first + count * layout.size, layout.size):
        tag, kind, values, value = layout.unpack_from(data, at)
        entries.append(_Entry(tag, kind, values, value, data[at : at + layout.size]))
    return _Directory(order, big, start, end, tuple(entries))


def _read_webp(data: bytes) -> ImageFile:
    # Pillow's reader allocates the canvas when it opens the file, so the size must be known before.
    if int.from_bytes(data[4:8], "little") + 8 > len(data) or len(data) < 30:
        raise ImageError("truncated or damaged WebP: the file is too short")
    if data[12:16] == b"VP8X":
        size = 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        size = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        size = int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    at, orientation = 12, 1
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"EXIF":
            orientation = _exif_orientation(data[at + 8 : end])
        at = end + end % 2
    return ImageFile("WEBP", data, orientation, size)


def _gif_size(data: bytes) -> tuple[int, int] | None:
    """The size of a canvas for the screen and the first frame; None if the file ends before that frame."""
    if len(data) < 13:
        return None
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while at + 10 <= len(data) and data[at] == 0x21:  # an extension: its last block is empty
        at += 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    if at + 10 > len(data) or data[at] != 0x2C:
        return None
    width, height = struct.unpack_from("<HH", data, 6)
    left, top, w, h = struct.unpack_from("<HHHH", data, at + 1)
    return max(width, left + w), max(height, top + h)
