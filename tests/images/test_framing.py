"""Framings that a source states, against Pillow used by hand as torchvision, timm and Transformers use it."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from topwork.errors import InputError
from topwork.images import decode as decoding
from topwork.images.decode import Picture, decode
from topwork.images.framing import Framing, framing_of

FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(width * 10_000 + height)
    small = rng.integers(0, 256, (max(2, height // 3), max(2, width // 3), 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def save(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_torchvision(image: Image.Image, resized: int, side: int, name: str) -> np.ndarray:
    """`Resize(resized)` and `CenterCrop(side)` of torchvision 0.27, `transforms/functional.py`."""
    width, height = image.size
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = resized, int(resized * long / short)
    new = (new_short, new_long) if width <= height else (new_long, new_short)
    image = image.convert("RGB").resize(new, Image.Resampling[name.upper()])
    top, left = int(round((new[1] - side) / 2.0)), int(round((new[0] - side) / 2.0))  # noqa: RUF046
    return np.asarray(image)[top : top + side, left : left + side]


def by_transformers(image: Image.Image, resized: int, side: int, name: str) -> np.ndarray:
    """`get_resize_output_image_size(default_to_square=False)` and `center_crop` of Transformers 5.24."""
    width, height = image.size
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = resized, int(resized * long / short)
    new_height, new_width = (new_long, new_short) if width <= height else (new_short, new_long)
    pixels = np.asarray(image.convert("RGB").resize((new_width, new_height), Image.Resampling[name.upper()]))
    top, left = (new_height - side) // 2, (new_width - side) // 2
    return pixels[top : top + side, left : left + side]


framings = st.builds(
    Framing,
    st.sampled_from(["stretch", "crop"]),
    st.sampled_from(FILTERS),
    share=st.floats(0.3, 1),
    margin=st.sampled_from(["floor", "even"]),
) | st.builds(
    Framing,
    st.sampled_from(["stretch", "crop"]),
    st.sampled_from(FILTERS),
    st.integers(24, 60),
    margin=st.sampled_from(["floor", "even"]),
)


@settings(deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(24, 60),
    st.integers(1, 24),
    st.sampled_from(FILTERS),
    st.sampled_from(["RGB", "L", "P"]),
)
def test_a_crop_is_the_libraries_to_the_pixel(
    width: int, height: int, resized: int, side: int, name: Any, mode: str
) -> None:
    image = picture(width, height, mode)
    data = save(image)
    for margin, by_hand in (("floor", by_transformers), ("even", by_torchvision)):
        framing = Framing("crop", name, resized, margin=margin)  # type: ignore[arg-type]
        np.testing.assert_array_equal(decode(data, side, fit=framing), by_hand(image, resized, side, name))


@settings(deadline=None)
@given(st.floats(0.5, 1), st.integers(8, 40))
def test_a_share_is_timms(share: float, side: int) -> None:
    image = picture(71, 45)
    framing = Framing("crop", "bicubic", share=share, margin="even")
    expected = by_torchvision(image, math.floor(side / share), side, "bicubic")
    np.testing.assert_array_equal(decode(save(image), side, fit=framing), expected)


@pytest.mark.parametrize("name", FILTERS)
def test_stretching_is_one_resizing(name: Any) -> None:
    image = picture(300, 41)
    plain = np.asarray(image.resize((32, 32), Image.Resampling[name.upper()]))
    np.testing.assert_array_equal(decode(save(image), 32, fit=Framing("stretch", name)), plain)
    larger = np.asarray(image.resize((39, 39), Image.Resampling[name.upper()]))
    cut = decode(save(image), 32, fit=Framing("stretch", name, 39))
    np.testing.assert_array_equal(cut, larger[3:35, 3:35])
    cut = decode(save(image), 32, fit=Framing("stretch", name, 39, margin="even"))
    np.testing.assert_array_equal(cut, larger[4:36, 4:36])
    wide = np.asarray(image.resize((32, 20), Image.Resampling[name.upper()]))
    np.testing.assert_array_equal(decode(save(image), (20, 32), fit=Framing("stretch", name)), wide)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("framing", [Framing("crop", "bilinear", 37), Framing("stretch", "bicubic", 37)])
def test_pictures_are_turned_first(framing: Framing, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = save(picture(90, 50), exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode(data, 32, fit=framing), decode(save(upright), 32, fit=framing))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("framing", [Framing("crop", "bicubic", 40), Framing("stretch", "bilinear")])
def test_a_large_jpeg_is_nearly_the_same(framing: Framing, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = save(picture(901, 603), "JPEG", quality=95, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    off = np.abs(
        decode(data, 32, fit=framing).astype(int) - decode(save(upright), 32, fit=framing).astype(int)
    )
    assert Picture(data, 32, fit=framing)._scale > 1
    assert off.mean() < 1.5
    nearest = Framing("crop", "nearest", 40)
    np.testing.assert_array_equal(decode(data, 32, fit=nearest), decode(save(upright), 32, fit=nearest))


@pytest.mark.parametrize("margin", ["floor", "even"])
def test_a_long_strip_takes_no_more_memory_than_others(monkeypatch: pytest.MonkeyPatch, margin: Any) -> None:
    framing = Framing("crop", "bicubic", 40, margin=margin)
    strip = save(picture(200, 10).rotate(90, expand=True))
    whole = decode(strip, 32, fit=framing)
    monkeypatch.setattr(decoding, "MAX_RESIZED", 20_000)
    assert np.abs(decode(strip, 32, fit=framing).astype(int) - whole.astype(int)).max() <= 1
    monkeypatch.undo()
    assert decode(save(Image.new("RGB", (1, 60_000), "red")), 32, fit=framing)[0, 0].tolist() == [255, 0, 0]


@settings(deadline=None)
@given(framings)
def test_json_and_back_is_the_same_framing(framing: Framing) -> None:
    assert Framing.from_plain(json.loads(json.dumps(framing.to_plain()))) == framing


def test_topworks_own_ways_stay_words() -> None:
    for name in ("stretch", "crop"):
        assert framing_of(name) == Framing.from_plain(name) == Framing(name)  # type: ignore[arg-type]
        assert (framing_of(name).to_plain(), str(framing_of(name))) == (name, name)


@pytest.mark.parametrize(
    ("framing", "text"),
    [
        (Framing("stretch", "bilinear"), "stretch, bilinear"),
        (Framing("crop", "bicubic"), "crop, bicubic"),
        (Framing("crop", "bilinear", 256), "resize 256, crop, bilinear"),
        (Framing("stretch", "nearest", 346), "stretch to 346, crop, nearest"),
        (Framing("crop", "bicubic", share=0.875), "crop 87.5 %, bicubic"),
        (Framing("stretch", "bicubic", share=0.9), "stretch, crop 90 %, bicubic"),
    ],
)
def test_framings_in_words(framing: Framing, text: str) -> None:
    assert str(framing) == text


def test_another_size_keeps_the_proportions() -> None:
    assert Framing("crop", "bicubic", 256).scaled(224, 448) == Framing("crop", "bicubic", 512)
    assert Framing("crop", "bicubic", 224).scaled(224, 97).resized(97) == 97
    for framing in (Framing("crop"), Framing("crop", "bicubic", share=0.9), Framing("stretch", "bilinear")):
        assert framing.scaled(224, 300) == framing


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ("strech", "unknown fit 'strech'; did you mean 'stretch'? Known: crop, stretch"),
        (["crop"], "expected stretch, crop or a framing with fit, margin, resample, resized_px, share; got"),
        (
            {"fit": "crop"},
            "expected stretch, crop or a framing with fit, margin, resample, resized_px, share",
        ),
        ({"fit": "zoom"}, "unknown fit 'zoom'. Known: crop, stretch"),
        ({"resample": "cubic"}, "unknown resample 'cubic'; did you mean 'bicubic'?"),
        ({"resample": ["cubic"]}, "unknown resample"),
        ({"margin": "odd"}, "unknown margin 'odd'"),
        ({"resized_px": 0}, "`resized_px` must be an int from 1 to 10000; got 0"),
        ({"resized_px": True}, "`resized_px` must be an int from 1 to 10000; got True"),
        ({"share": 1.15}, "`share` must be a number from 0.01 to 1; got 1.15"),
        ({"share": float("nan")}, "`share` must be a number from 0.01 to 1; got nan"),
        ({"share": 0.9, "resized_px": 256}, "`resized_px` and `share` exclude each other; got 256 and 0.9"),
    ],
)
def test_what_is_no_framing_is_said(plain: Any, message: str) -> None:
    if isinstance(plain, dict) and len(plain) < 3 and plain != {"fit": "crop"}:
        plain = Framing("crop", "bicubic").to_plain() | plain  # type: ignore[operator]
    with pytest.raises(InputError) as told:
        Framing.from_plain(plain)
    assert str(told.value).startswith(message)


def test_own_ways_take_no_details() -> None:
    with pytest.raises(InputError, match="`resized_px`, `share` and `margin` need a `resample`; got None"):
        Framing("crop", resized_px=256)


def test_a_cut_larger_than_the_picture_is_refused() -> None:
    data = save(picture(9, 9))
    with pytest.raises(InputError) as told:
        decode(data, 32, fit=Framing("crop", "bicubic", 31))
    assert str(told.value) == (
        "expected pictures resized to at least 32 px, the size that is cut out; got 31 px"
    )
    with pytest.raises(InputError) as told:
        decode(data, (32, 30), fit=Framing("crop", "bicubic"))
    assert str(told.value) == (
        "`size_px` must be the side of a square for the framing crop, bicubic; got (32, 30)"
    )
