"""Damaged files of 20 kinds, five of each, among whole ones: what the audit finds, and what reason it tells.

    python -m benchmarks.hostile.damaged_files [--work FOLDER]

The pictures are emoji (see benchmarks/data/packaged.py), whole in twelve ways to write a file, 300 in all; each kind
of damage is done to five of them. Then come files that look odd but hold a whole picture, which must be let pass, and
two kinds of which no decoder can be sure: what is read of them is compared with the picture they were made from.
"""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.accuracy.audit_faults import on_white
from benchmarks.data.packaged import write_dataset
from benchmarks.options import WORK, shared_options
from topwork.data.sources import load
from topwork.images.decode import decode
from topwork.jobs.audit import audit
from topwork.recipe import BackboneRecipe, Recipe

WHOLE, OF_EACH = 300, 5
Made = Callable[[Image.Image], bytes]


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to be damaged, or to look so: its name, the file's extension, and how such a file is made."""

    name: str
    extension: str
    make: Made


def main() -> None:
    options = shared_options(__doc__, work=WORK).parse_args()
    images = [on_white(e.image.read()) for e in load(write_dataset("emoji-animals", options.work)).shuffle(0)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        kind_of = {id: kind.name for kind in DAMAGED for id in _written(root, kind, images)}
        odd = {id: kind.name for kind in ODD + EDGE for id in _written(root, kind, images)}
        for number, image in enumerate(images[:WHOLE]):
            name, (extension, make) = list(WAYS.items())[number % len(WAYS)]
            path = root / f"class{number % 2}" / f"whole-{name}-{number}.{extension}"
            path.write_bytes(make(image))
        told = {f.ids[0]: f.note for f in audit(root, recipe=RECIPE).of("unreadable")}
        same = {id for id in odd if id not in told and _alike(root / id, images[_number(id)])}
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for id, note in told.items():
        if id in kind_of:
            reasons[kind_of[id]][note] += 1
    print("| damage | found | the reason told |\n|---|---|---|")
    for kind in DAMAGED:
        count = reasons[kind.name].total()
        reason = reasons[kind.name].most_common(1)[0][0] if count else ""
        print(f"| {kind.name} | {count} of {OF_EACH} | {reason} |")
    print(
        "\n| looks odd, or is damaged a little | refused | read, with the pixels of before | read, with others |"
    )
    print("|---|---|---|---|")
    for kind in ODD + EDGE:
        ids = [id for id, name in odd.items() if name == kind.name]
        refused, whole = sum(id in told for id in ids), sum(id in same for id in ids)
        print(f"| {kind.name} | {refused} | {whole} | {len(ids) - refused - whole} |")
    wrongly = [id for id in told if id not in kind_of and id not in odd]
    print(f"\n{WHOLE} whole files: {len(wrongly)} flagged {wrongly}")


RECIPE = Recipe(backbone=BackboneRecipe(size_px=64, precision="f32"))


def _written(root: Path, kind: Kind, images: list[Image.Image]) -> list[str]:
    """Files of this kind, by turns in two classes; their ids."""
    ids = []
    for number in range(OF_EACH):
        path = root / f"class{number % 2}" / f"{kind.name.replace(' ', '_')}-{number}.{kind.extension}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(kind.make(images[number]))
        ids.append(path.relative_to(root).as_posix())
    return ids


def _number(id: str) -> int:
    return int(Path(id).stem.split("-")[-1])


def _alike(path: Path, image: Image.Image) -> bool:
    pixels, own = decode(path.read_bytes(), 64), np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC))
    return float(np.abs(pixels.astype(int) - own).mean()) < 5


def saved(kind: str, *, mode: str = "RGB", **options: Any) -> Made:
    def save(image: Image.Image) -> bytes:
        file = io.BytesIO()
        image.convert(mode).save(file, kind, **options)
        return file.getvalue()

    return save


def cut(make: Made, share: float) -> Made:
    """Its first part alone, as a download leaves it that was broken off."""

    def first(image: Image.Image) -> bytes:
        data = make(image)
        return data[: int(share * len(data))]

    return first


def text(content: str) -> Made:
    return lambda image: content.encode()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def empty_png(width: int, height: int) -> Made:
    """A few bytes that claim to be so large."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    return lambda image: b"\x89PNG\r\n\x1a\n" + header + body


def flipped_bit(image: Image.Image) -> bytes:
    """A PNG with one bit of its data turned: the chunk's checksum tells."""
    data = bytearray(saved("PNG")(image))
    data[len(data) // 2] ^= 1
    return bytes(data)


def wrong_data(image: Image.Image) -> bytes:
    """A PNG whose compressed data are none, under a right checksum."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"no pixels here" * 40) + chunk(b"IEND", b"")


def lost_directory(image: Image.Image) -> bytes:
    """A TIFF whose first directory is said to lie behind its end."""
    data = saved("TIFF")(image)
    return data[:4] + struct.pack("<I", len(data) + 1000) + data[8:]


def zeroed(image: Image.Image) -> bytes:
    """As a crash leaves it: of the right length, nothing written."""
    return bytes(len(JPEG(image)))


def headless(image: Image.Image) -> bytes:
    """A JPEG that lost its first block of 64 bytes."""
    return JPEG(image)[64:]


def overwritten(image: Image.Image) -> bytes:
    """A JPEG of which 40 bytes in the middle of its pixels are zero."""
    data = bytearray(JPEG(image))
    middle = len(data) * 3 // 4  # behind the tables, which take half of so small a file
    data[middle : middle + 40] = bytes(40)
    return bytes(data)


def nothing(image: Image.Image) -> bytes:
    return b""


JPEG = saved("JPEG", quality=90)
WEB_PAGE = "<!doctype html><html><head><title>404 Not Found</title></head><body>Not found</body></html>\n"
DRAWING = '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8"/></svg>'
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 12345\n"
WAYS: dict[str, tuple[str, Made]] = {
    "JPEG": ("jpg", JPEG),
    "progressive": ("jpg", saved("JPEG", progressive=True)),
    "grey": ("jpeg", saved("JPEG", mode="L")),
    "CMYK": ("jpg", saved("JPEG", mode="CMYK")),
    "PNG": ("png", saved("PNG")),
    "palette": ("png", saved("PNG", mode="P")),
    "one bit": ("png", saved("PNG", mode="1")),
    "WebP": ("webp", saved("WEBP")),
    "lossless": ("webp", saved("WEBP", lossless=True)),
    "BMP": ("bmp", saved("BMP")),
    "GIF": ("gif", saved("GIF", mode="P")),
    "TIFF": ("tif", saved("TIFF", compression="tiff_lzw")),
}
DAMAGED = (
    Kind("empty", "jpg", nothing),
    Kind("all zeros", "jpg", zeroed),
    Kind("text", "jpg", text("remember to take the photo\n")),
    Kind("a web page", "jpg", text(WEB_PAGE)),
    Kind("a drawing (SVG)", "png", text(DRAWING)),
    Kind("a pointer to a large file", "jpg", text(POINTER)),
    Kind("another format (PPM)", "png", saved("PPM")),
    Kind("JPEG, its first block lost", "jpg", headless),
    Kind("JPEG, cut in its header", "jpg", cut(JPEG, 0.05)),
    Kind("JPEG, cut in half", "jpg", cut(JPEG, 0.5)),
    Kind("JPEG, a tenth missing", "jpg", cut(JPEG, 0.9)),
    Kind("PNG, cut in half", "png", cut(saved("PNG"), 0.5)),
    Kind("PNG, a bit flipped", "png", flipped_bit),
    Kind("PNG, its data are none", "png", wrong_data),
    Kind("PNG, claims 2.5 gigapixels", "png", empty_png(50_000, 50_000)),
    Kind("PNG, no pixels wide", "png", empty_png(0, 64)),
    Kind("WebP, cut in half", "webp", cut(saved("WEBP"), 0.5)),
    Kind("BMP, cut in half", "bmp", cut(saved("BMP"), 0.5)),
    Kind("GIF, cut in half", "gif", cut(saved("GIF", mode="P"), 0.5)),
    Kind("TIFF, its directory lost", "tif", lost_directory),
)
ODD = (
    Kind("PNG by another name", "jpg", saved("PNG")),
    Kind("JPEG by another name", "png", JPEG),
    Kind("bytes behind its end", "jpg", lambda image: JPEG(image) + b"appended" * 50),
    Kind("EXIF that is none", "jpg", saved("JPEG", quality=90, exif=b"Exif\0\0MM\0*" + b"\xff" * 40)),
)
EDGE = (
    Kind("JPEG, its end mark missing", "jpg", lambda image: JPEG(image)[:-2]),
    Kind("JPEG, 40 bytes of its pixels zero", "jpg", overwritten),
)


if __name__ == "__main__":
    main()
