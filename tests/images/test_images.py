"""`decode` against Pillow's full pipeline, `ImageOps` and formulas in NumPy; and on bytes that mean harm."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from topwork.errors import ImageError, InputError
from topwork.images.decode import MAX_PIXELS, Picture, decode, size_of
from topwork.recipe import Fit


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Soft shapes with some grain, as in a photo; RGB."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize(
        (width, height), Image.BICUBIC
    )
    grain = rng.normal(0, 4, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(soft) + grain, 0, 255).astype(np.uint8))


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_pillow(data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Pillow's full pipeline; `size` is (width, height)."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    return np.asarray(image.convert("RGB").resize(size, Image.BICUBIC))


def outcome(data: bytes, size_px: int) -> NDArray[np.uint8] | str:
    """The pixels, or the reason why there are none."""
    try:
        return decode(data, size_px)
    except ImageError as error:
        return str(error)


def apart(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.int64]:
    assert a.shape == b.shape
    return np.abs(a.astype(np.int64) - b.astype(np.int64))


SMALL = picture(61, 45)
FILES: dict[str, bytes] = {
    "jpeg": save(SMALL, "JPEG"),
    "jpeg progressive": save(SMALL, "JPEG", progressive=True, subsampling=0),
    "jpeg grey": save(SMALL.convert("L"), "JPEG"),
    "jpeg cmyk": save(SMALL.convert("CMYK"), "JPEG"),
    "png": save(SMALL, "PNG"),
    "png palette": save(SMALL.quantize(17), "PNG"),
    "png 1-bit": save(SMALL.convert("1"), "PNG"),
    "webp": save(SMALL, "WEBP"),
    "webp lossless": save(SMALL, "WEBP", lossless=True),
    "bmp": save(SMALL, "BMP"),
    "bmp palette": save(SMALL.quantize(16), "BMP"),
    "gif": save(SMALL, "GIF"),
    "tiff": save(SMALL, "TIFF"),
    "tiff lzw": save(SMALL, "TIFF", compression="tiff_lzw"),
    "tiff jpeg": save(SMALL, "TIFF", compression="jpeg"),
    "tiff deflate, big": save(SMALL, "TIFF", compression="tiff_adobe_deflate", big_tiff=True),
    "tiff grey": save(SMALL.convert("L"), "TIFF"),
    "tiff cmyk": save(SMALL.convert("CMYK"), "TIFF"),
    "tiff palette": save(SMALL.quantize(9), "TIFF"),
    "tiff 1-bit": save(SMALL.convert("1"), "TIFF", compression="group4"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [(45, 61), (32, 32), (100, 70)])
def test_every_format_gives_what_pillow_gives(name: str, size: tuple[int, int]) -> None:
    pixels = decode(FILES[name], size)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (*size, 3)
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert apart(pixels, by_pillow(FILES[name], size[::-1])).max() <= 1


def test_ycck_jpeg_as_pillow_reads_it() -> None:
    cmyk = FILES["jpeg cmyk"]
    at = cmyk.index(b"Adobe")
    ycck = cmyk[: at + 11] + b"\x02" + cmyk[at + 12 :]  # the transform byte: 2 is YCCK
    assert apart(decode(ycck, (45, 61)), by_pillow(ycck, (61, 45))).max() == 0
    assert apart(decode(ycck, (45, 61)), decode(cmyk, (45, 61))).mean() > 5


def test_adobe_inverted_cmyk_has_the_right_sign() -> None:
    assert apart(decode(FILES["jpeg cmyk"], (45, 61)), np.asarray(SMALL)).mean() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_exif_orientation(kind: str, orientation: int, fit: Any) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    exif[0x0112] = orientation
    data = save(picture(90, 50), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    expected = (
        upright.resize((40, 30), Image.BICUBIC)
        if fit == "stretch"
        else ImageOps.fit(upright, (40, 30), Image.BICUBIC)
    )
    assert apart(decode(data, (30, 40), fit=fit), np.asarray(expected)).max() <= 1


def test_orientation_holds_for_a_jpeg_read_at_reduced_scale() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = save(picture(900, 400), "JPEG", exif=exif, quality=95)
    assert apart(decode(data, (90, 40)), by_pillow(data, (40, 90))).mean() < 1


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_outside_1_to_8_is_none(value: int) -> None:
    data = save(SMALL, "PNG", exif=b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0))
    assert apart(decode(data, (45, 61)), np.asarray(SMALL)).max() == 0


def test_malformed_exif_neither_warns_nor_matters() -> None:
    # No JFIF density, so Pillow's reader asks the EXIF block for one; that warns of each damaged tag.
    entries = struct.pack(">HHII", 0x0112, 3, 1, 3 << 16) + struct.pack(">HHII", 0x011A, 5, 99, 999_999)
    block = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 9) + entries
    whole = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + entries + bytes(4)
    jpeg = FILES["jpeg"]
    without_jfif = jpeg[4 + int.from_bytes(jpeg[4:6], "big") :]
    for exif, turn in ((block, 1), (whole, 3)):
        data = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + without_jfif
        turned = np.asarray(decode(jpeg, (45, 61)))[::-1, ::-1] if turn == 3 else decode(jpeg, (45, 61))
        assert apart(decode(data, (45, 61)), turned).max() == 0


def test_alpha_is_composited_over_white() -> None:
    rng = np.random.default_rng(1)
    rgba = rng.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    alpha = rgba[..., 3:] / 255
    expected = np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    for kind in ("PNG", "TIFF"):
        assert apart(decode(save(Image.fromarray(rgba), kind), (20, 30)), expected).max() <= 1
    webp = save(Image.fromarray(rgba), "WEBP", lossless=True, exact=True)
    assert apart(decode(webp, (20, 30)), expected).max() <= 1
    grey = save(Image.fromarray(rgba).convert("LA"), "PNG")
    luma = np.asarray(Image.fromarray(rgba).convert("L"))[..., None]
    expected = np.rint(luma * alpha + 255 * (1 - alpha)).repeat(3, axis=2).astype(np.uint8)
    assert apart(decode(grey, (20, 30)), expected).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_becomes_white(kind: str) -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2, 1])
    pixels = decode(save(image, kind, transparency=1), 2)
    assert pixels.tolist() == [[[10, 20, 30], [255] * 3], [[70, 80, 90], [255] * 3]]


def test_palette_with_a_level_of_transparency_each() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 100, 100, 100, 200, 0, 0])
    image.putdata([0, 1, 2])
    pixels = decode(save(image, "PNG", transparency=bytes([0, 128, 255])), (1, 3))
    half = round(100 * 128 / 255 + 255 * 127 / 255)
    assert apart(pixels, np.array([[[255] * 3, [half] * 3, [200, 0, 0]]], dtype=np.uint8)).max() <= 1


@pytest.mark.parametrize(("mode", "colour"), [("L", 7), ("RGB", (7, 8, 9))])
def test_a_transparent_colour_becomes_white(mode: str, colour: Any) -> None:
    image = Image.new(mode, (2, 1), colour)
    image.putpixel((1, 0), 50 if mode == "L" else (50, 50, 50))
    assert decode(save(image, "PNG", transparency=colour), (1, 2)).tolist() == [[[255] * 3, [50] * 3]]


@pytest.mark.parametrize(("kind", "order"), [("PNG", "<"), ("TIFF", "<"), ("TIFF", ">")])
def test_16_bit_grey_is_scaled_by_its_full_range(kind: str, order: str) -> None:
    values = np.array([[0, 128, 129, 385, 386], [30000, 32768, 65406, 65407, 65535]], dtype=np.uint16)
    pixels = decode(save(Image.fromarray(values.astype(order + "u2")), kind), (2, 5))
    assert np.array_equal(pixels, np.rint(values / 65535 * 255)[..., None].repeat(3, axis=2))


def test_deep_tiffs_follow_the_written_rules() -> None:
    def grey(values: NDArray[Any]) -> list[list[int]]:
        result: list[list[int]] = decode(save(Image.fromarray(values), "TIFF"), values.shape)[..., 0].tolist()
        return result

    assert grey(np.array([[-5, 0, 257], [65535, 70000, 514]], np.int32)) == [[0, 0, 1], [255, 255, 2]]
    assert grey(np.array([[0, 0.25, 1], [0.5, 0.2, 0.1]], np.float32)) == [[0, 64, 255], [128, 51, 26]]
    assert grey(np.array([[-3, 0.25, 300], [7.6, np.nan, np.inf]], np.float32)) == [[0, 0, 255], [8, 0, 255]]


def test_first_frame_first_page() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    for kind, options in (("GIF", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        data = save(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert apart(decode(data, 4), np.full((4, 4, 3), (255, 0, 0), np.uint8)).max() <= 2, kind


@pytest.mark.parametrize("size", [(1200, 900), (1601, 1197), (457, 2003)])
def test_a_jpeg_at_reduced_scale_barely_differs(size: tuple[int, int]) -> None:
    data = save(picture(*size), "JPEG", quality=90)
    for target in ((64, 64), (50, 97)):
        away = apart(decode(data, target), by_pillow(data, target[::-1]))
        assert away.mean() < 0.6
        assert away.max() <= 6
    full = Image.open(io.BytesIO(data)).convert("RGB")
    away = apart(decode(data, (60, 40), fit="crop"), np.asarray(ImageOps.fit(full, (40, 60), Image.BICUBIC)))
    assert away.mean() < 0.6


def test_reduced_scale_does_not_shift_the_picture() -> None:
    ramp = np.linspace(0, 255, 2003)[None, :].repeat(1501, axis=0)  # 2003 / 8 leaves a part column
    data = save(Image.fromarray(ramp.astype(np.uint8)), "JPEG", quality=98)
    centres = (np.arange(97) + 0.5) / 97 * 255
    assert np.abs(decode(data, 97)[1:-1, 2:-2, 0] - centres[2:-2]).max() <= 1.5


def test_large_png_is_averaged_without_a_visible_trace() -> None:
    data = save(picture(1500, 1100), "PNG", compress_level=1)
    assert apart(decode(data, 64), by_pillow(data, (64, 64))).mean() < 0.5


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_extreme_shapes(kind: str, size: tuple[int, int]) -> None:
    data = save(Image.new("RGB", size, (200, 100, 50)), kind)
    expected = np.full((32, 48, 3), (200, 100, 50), np.uint8)
    for fit in ("stretch", "crop"):
        assert apart(decode(data, (32, 48), fit=fit), expected).max() <= 3


def test_crop_keeps_the_middle() -> None:
    image = Image.new("RGB", (300, 100), "black")
    image.paste((255, 255, 255), (100, 0, 200, 100))
    assert decode(save(image, "PNG"), 50, fit="crop")[:, 2:-2].min() == 255
    assert decode(save(image, "PNG"), 50).mean() == pytest.approx(85, abs=3)


def test_the_same_from_many_threads() -> None:
    data = [
        save(picture(320 + 5 * i, 240, i), kind) for i, kind in enumerate(["JPEG", "PNG", "WEBP", "TIFF"])
    ]
    alone = [decode(d, 48) for d in data]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda i: decode(data[i % 4], 48), range(64)))
    assert all(np.array_equal(pixels, alone[i % 4]) for i, pixels in enumerate(together))


def test_what_is_no_image_says_so() -> None:
    with pytest.raises(ImageError, match=r"^the file is empty$"):
        decode(b"", 8)
    with pytest.raises(
        ImageError, match=r"^not a JPEG, PNG, WebP, BMP, GIF or TIFF image \(starts with b'<svg xml'\)"
    ):
        decode(b"<svg xmlns='...'>", 8)
    with pytest.raises(ImageError, match="not a JPEG"):
        decode(save(SMALL, "PPM"), 8)


@pytest.mark.parametrize("size", [0, -1, True, 2.5, (3,), (3, 0), "224", None, (1, 2, 3)])
def test_a_wrong_size_says_so(size: Any) -> None:
    with pytest.raises(InputError, match=r"^`size_px` must be a positive int or \(height, width\); got "):
        decode(FILES["png"], size)


def test_a_wrong_fit_says_so() -> None:
    with pytest.raises(InputError, match=r"^unknown fit 'crap'; did you mean 'crop'"):
        decode(FILES["png"], 8, fit="crap")  # type: ignore[arg-type]


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def claims(kind: str, width: int, height: int) -> bytes:
    """A small file of this kind whose header says it is width x height."""
    if kind == "PNG":
        return png_header(width, height)
    if kind == "JPEG":
        at = FILES["jpeg"].index(b"\xff\xc0") + 5
        return FILES["jpeg"][:at] + struct.pack(">HH", height, width) + FILES["jpeg"][at + 4 :]
    if kind == "GIF":
        return FILES["gif"][:6] + struct.pack("<HH", width, height) + FILES["gif"][10:]
    if kind == "GIF frame":  # larger than the screen, which grows to hold it
        at = FILES["gif"].index(b"," + struct.pack("<HHHH", 0, 0, 61, 45)) + 5
        return FILES["gif"][:at] + struct.pack("<HH", width, height) + FILES["gif"][at + 4 :]
    if kind == "BMP":
        return FILES["bmp"][:18] + struct.pack("<II", width, height) + FILES["bmp"][26:]
    if kind == "WEBP":
        canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        body = b"VP8X" + struct.pack("<II", 10, 0) + canvas
        return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 9}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "GIF frame", "BMP", "WEBP", "TIFF"])
def test_a_bomb_is_refused_by_its_header(kind: str) -> None:
    limit = MAX_PIXELS // 2 if kind.startswith(("GIF", "TIFF")) else MAX_PIXELS
    side = int(limit**0.5) + 1
    said = rf"^the image has {side} x {side} = {side * side:,} pixels; the limit is {limit:,}$"
    with pytest.raises(ImageError, match=said):
        decode(claims(kind, side, side), 8)


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    """Each goes over all pixels for 15 bytes in the file."""
    data = save(picture(400, 300), "JPEG", progressive=True)[:-2]
    last = data[data.rindex(b"\xff\xda") :]
    own = data.count(b"\xff\xda")
    for scans, told in ((100, None), (101, "the JPEG has more than 100 scans")):
        found = outcome(data + last * (scans - own) + b"\xff\xd9", 32)
        assert found == told if told else not isinstance(found, str)


def test_what_looks_like_scans_outside_of_the_picture_is_none() -> None:
    """A film behind a phone's photo, and a maker's note in it, hold any two bytes many times."""
    image = picture(400, 300)
    plain = decode(save(image, "JPEG"), 32)
    note = b"\xff\xe5" + (2 + 4000).to_bytes(2, "big") + b"\xff\xda" * 2000
    data = save(image, "JPEG")
    noted = data[:2] + note + data[2:]
    np.testing.assert_array_equal(decode(noted, 32), plain)
    np.testing.assert_array_equal(decode(data + b"\xff\xda" * 5000, 32), plain)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_no_pixels_are_no_image(kind: str) -> None:
    with pytest.raises(ImageError, match=r"no pixels \(0 x 45\)|truncated or damaged"):
        decode(claims(kind, 0, 45), 8)


def test_a_photo_above_pillows_warning_limit_is_read() -> None:
    assert decode(save(Image.new("L", (9500, 9500), 90), "JPEG"), 8).mean() == 90


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(name: str) -> None:
    data, whole = FILES[name], decode(FILES[name], 16)
    for length in np.unique(np.linspace(8, len(data) - 1, 150, dtype=int)):
        result = outcome(data[:length], 16)
        if isinstance(result, str):
            assert result.startswith(("truncated or damaged", "not a JPEG"))
        else:  # only what follows the pixels is missing, as a PNG's end mark
            assert length > len(data) - 25
            assert np.array_equal(result, whole)


def test_truncated_files_give_a_reason_on_one_line() -> None:
    with pytest.raises(
        ImageError, match=r"^truncated or damaged JPEG: image file is truncated \(\d+ bytes not"
    ):
        decode(FILES["jpeg"][:-200], 16)
    with pytest.raises(ImageError, match=r"^truncated or damaged JPEG: it ends within its header$"):
        decode(FILES["jpeg"][:60], 16)
    with pytest.raises(ImageError, match=r"^truncated or damaged PNG: its header can't be read$"):
        decode(png_header(0, 45), 16)
    with pytest.raises(ImageError, match=r"^truncated or damaged WebP: the file is too short$"):
        decode(FILES["webp"][:-1], 16)
    with pytest.raises(ImageError, match=r"^truncated or damaged TIFF: its directory is outside the file$"):
        decode(FILES["tiff lzw"][:900], 16)


def test_a_tiff_directory_that_lies_is_refused() -> None:
    good = claims("TIFF", 4, 4)
    entry = struct.pack("<HHII", 256, 4, 1, 4)
    with pytest.raises(
        ImageError, match=r"^truncated or damaged TIFF: tag 256 must have one value; it has 2$"
    ):
        decode(good.replace(entry, struct.pack("<HHII", 256, 4, 2, 8)), 4)
    for place in (9999, 2**32 - 1):
        with pytest.raises(ImageError, match="points outside the file"):
            decode(good.replace(entry, struct.pack("<HHII", 258, 4, 9, place)), 4)
    overlap = b"".join(struct.pack("<HHII", tag, 4, 20, 8) for tag in (258, 273, 279))
    with pytest.raises(ImageError, match="its tags are larger than the file"):
        decode(b"II*\0" + struct.pack("<IH", 8, 3) + overlap + bytes(50), 4)


@pytest.mark.parametrize("name", FILES)
def test_mutated_files_give_pixels_or_an_image_error_and_no_warning(name: str) -> None:
    rng = np.random.default_rng(list(name.encode()))
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        for _ in range(120):
            data = bytearray(FILES[name])
            for _ in range(int(rng.integers(1, 6))):
                # Half of the hits go to the first 200 bytes or the last, where headers and directories are.
                span = len(data) if rng.random() < 0.5 else min(200, len(data))
                at = int(rng.integers(span))
                at = at if rng.random() < 0.7 else len(data) - 1 - at
                what = rng.integers(4)
                if what == 0:
                    data[at] = int(rng.integers(256))
                elif what == 1:
                    data[at] ^= 1 << int(rng.integers(8))
                elif what == 2:
                    del data[at : at + int(rng.integers(1, 20))]
                else:
                    data[at:at] = rng.bytes(int(rng.integers(1, 9)))
            result = outcome(bytes(data), 8)
            if isinstance(result, str):
                assert result
                assert "\n" not in result
            else:
                assert result.shape == (8, 8, 3)
    assert not leaked, [str(w.message) for w in leaked]


def test_importing_leaves_pillows_settings_and_other_formats_alone() -> None:
    code = (
        "from PIL import Image; limit = Image.MAX_IMAGE_PIXELS; import sys, topwork.images.decode; "
        "assert Image.MAX_IMAGE_PIXELS == limit; "
        "assert 'PIL.EpsImagePlugin' not in sys.modules and 'openvino' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("fit", ["stretch", "crop"])
@pytest.mark.parametrize("side", [(64, 48), (1000, 700)], ids=["small", "large"])
def test_one_decoding_gives_the_pixels_of_each_size(side: tuple[int, int], fit: Fit) -> None:
    """Of the size that it was decoded for, to the bit; of another, nearly."""
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).resize(
        side, Image.Resampling.BICUBIC
    )
    for turn in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = turn
        file = io.BytesIO()
        image.save(file, "JPEG", quality=95, exif=exif)
        data = file.getvalue()
        picture = Picture(data, 56, fit=fit)
        np.testing.assert_array_equal(picture.pixels(56, fit=fit), decode(data, 56, fit=fit))
        assert picture.size == size_of(data)
        assert picture.fine_enough(40)
        known = decode(data, 40).astype(int)
        assert np.abs(picture.pixels(40).astype(int) - known).mean() < 2
    assert Picture(data, 16).fine_enough(192) == (side == (64, 48))
