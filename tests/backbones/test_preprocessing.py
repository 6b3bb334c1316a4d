"""What Transformers' and timm's files state, against the pixels that Transformers' own code makes of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from topwork.backbones.preprocessing import (
    Preprocessing,
    parse_timm,
    parse_transformers,
    read_preprocessing,
)
from topwork.errors import InputError
from topwork.graphs.pixels import IMAGENET_DEVIATION, IMAGENET_MEAN, pixels
from topwork.images.decode import decode
from topwork.images.framing import Framing

DATA = Path(__file__).parent / "data"
STATED: dict[str, dict[str, Any]] = json.loads((DATA / "processors.json").read_text(encoding="utf-8"))
TIMM = {
    "input_size": [3, 224, 224],
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
}


def picture(height: int, width: int) -> bytes:
    """As in `data/make_processors.py`, as a file."""
    y, x = np.mgrid[:height, :width]
    red, green, blue = x * 7 + y * 3, x * x // 5 + y * 11, x * 5 + y * y // 3
    file = io.BytesIO()
    Image.fromarray((np.stack([red, green, blue], axis=-1) % 256).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def made(found: Preprocessing, data: bytes) -> np.ndarray:
    assert found.size_px is not None
    assert found.framing is not None
    assert found.pixels is not None
    x = decode(data, found.size_px, fit=found.framing).astype(np.float32)
    x = x * np.array(found.pixels.scale, np.float32) + np.array(found.pixels.offset, np.float32)
    return x[..., ::-1] if found.pixels.bgr else x


@pytest.mark.parametrize("case", STATED)
def test_pixels_are_those_of_transformers(case: str) -> None:
    found = parse_transformers(STATED[case], name="preprocessor_config.json")
    assert found.notes == ()
    expected = np.load(DATA / "processors.npz")
    sizes = [key for key in expected.files if key.startswith(f"{case}/")]
    assert len(sizes) == 4
    for key in sizes:
        height, width = map(int, key.split("/")[1].split("x"))
        own = made(found, picture(height, width))
        step = 7 if len(own) < 100 else 29
        np.testing.assert_allclose(
            own[step // 7 :: step, step // 7 :: step], expected[key], atol=2e-6, rtol=1e-5
        )


@pytest.mark.parametrize(
    ("plain", "size_px", "framing", "range_"),
    [
        # As published, a few of each family.
        (
            {"feature_extractor_type": "ViTFeatureExtractor", "do_resize": True, "resample": 2, "size": 224,
             "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_normalize": True},
            224, "stretch, bilinear", "-1..1",
        ),
        (
            {"image_processor_type": "BitImageProcessor", "crop_size": {"height": 224, "width": 224},
             "do_center_crop": True, "resample": 3, "size": {"shortest_edge": 256},
             "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_DEVIATION)},
            224, "resize 256, crop, bicubic", "imagenet",
        ),
        (
            {"feature_extractor_type": "ConvNextFeatureExtractor", "crop_pct": 0.875, "resample": 3, "size": 224,
             "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_DEVIATION)},
            224, "crop 87.5 %, bicubic", "imagenet",
        ),
        (
            {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": 224, "width": 224},
             "resample": 2, "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_DEVIATION),
             "do_center_crop": None, "crop_size": None, "data_format": "channels_first"},
            224, "stretch, bilinear", "imagenet",
        ),
        ({"image_processor_type": "SiglipImageProcessor"}, 224, "stretch, bicubic", "-1..1"),
        ({"image_processor_type": "LevitImageProcessor"}, 224, "resize 256, crop, bicubic", "imagenet"),
        ({"image_processor_type": "ConvNextImageProcessor"}, 384, "stretch, bicubic", "-1..1"),
        ({"image_processor_type": "DeiTImageProcessor"}, 224, "stretch to 256, crop, bicubic", "-1..1"),
        ({"image_processor_type": "ViTImageProcessor", "do_rescale": False, "do_normalize": False}, 224,
         "stretch, bilinear", "0..255"),
        ({"image_processor_type": "CLIPImageProcessorPil"}, 224, "resize 224, crop, bicubic",
         "mean 0.48145466 0.4578275 0.40821073, deviation 0.26862954 0.26130258 0.27577711"),
    ],
)  # fmt: skip
def test_what_is_published(plain: dict[str, Any], size_px: int, framing: str, range_: str) -> None:
    found = parse_transformers(plain, name="somewhere/preprocessor_config.json")
    assert (found.size_px, str(found.framing), found.source) == (size_px, framing, "preprocessor_config.json")
    assert found.pixels is not None
    assert (found.pixels.range, found.pixels.how, found.notes) == (range_, "stated", ())


def test_timm_at_the_size_it_was_trained_at() -> None:
    found = parse_timm({"pretrained_cfg": TIMM | {"test_input_size": [3, 288, 288]}}, name="config.json")
    assert found == Preprocessing(
        224, Framing("crop", "bicubic", share=0.9, margin="even"), pixels("-1..1", "stated"), "config.json"
    )
    assert found.framing is not None
    assert found.framing.resized(224) == 248  # floor(224 / 0.9)
    squashed = parse_timm(
        {"pretrained_cfg": TIMM | {"crop_mode": "squash", "crop_pct": 1.0}}, name="config.json"
    )
    assert str(squashed.framing) == "stretch, bicubic"
    plain = parse_timm(
        {"pretrained_cfg": {"input_size": [3, 256, 256], "crop_pct": None}}, name="config.json"
    )
    assert plain == Preprocessing(
        256,
        Framing("crop", "bicubic", share=0.875, margin="even"),
        pixels("imagenet", "stated"),
        "config.json",
    )


@pytest.mark.parametrize(
    ("changed", "size_px", "note"),
    [
        ({"crop_mode": "border"}, 224, "its crop mode is 'border': how it frames pictures is not followed"),
        ({"interpolation": "random"}, 224, "its interpolation is 'random': how"),
        ({"crop_pct": 1.15}, 224, "it cuts out 1.15 times the resized picture: how"),
        ({"input_size": [3, 224, 288]}, None, "it takes pictures of 224 x 288 px, not squares: how"),
        ({"input_size": [1, 224, 224]}, None, "it takes pictures of 1 channels: how"),
    ],
)
def test_what_of_timm_is_not_followed_is_noted(
    changed: dict[str, Any], size_px: int | None, note: str
) -> None:
    found = parse_timm({"pretrained_cfg": TIMM | changed}, name="config.json")
    assert (found.size_px, found.framing) == (size_px, None)
    (told,) = found.notes
    assert told.startswith(note)


@pytest.mark.parametrize(
    ("plain", "size_px", "note"),
    [
        ({"image_processor_type": "Siglip2ImageProcessor", "size": "?"}, None,
         "its image processor 'Siglip2ImageProcessor' is unknown: how it frames pictures is not followed"),
        ({"size": 224}, None, "its image processor isn't named: how it frames pictures is not followed"),
        ({"image_processor_type": "ViTImageProcessor", "size": [384, 192]}, None,
         "it resizes pictures to 384 x 192 px, not squares: that is not followed"),
        ({"image_processor_type": "ViTImageProcessor", "do_resize": False}, None,
         "it doesn't resize pictures: how it frames them is not followed"),
        ({"image_processor_type": "CLIPImageProcessor", "size": {"longest_edge": 448}}, 224,
         "it resizes pictures to a longest edge of 448 px, not squares"),
        ({"image_processor_type": "CLIPImageProcessor", "crop_size": [224, 200]}, None,
         "it crops pictures to 224 x 200 px, not squares"),
        ({"image_processor_type": "CLIPImageProcessor", "crop_size": 336}, 336,
         "it pads pictures of 224 px to 336 px: that is not followed"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": 224, "crop_pct": 1.1}, 224,
         "it cuts out 1.1 times the resized picture: that is not followed"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": 224, "crop_size": 192, "do_center_crop": True},
         192, "it crops pictures twice, to 224 and 192 px: that is not followed"),
    ],
)  # fmt: skip
def test_what_of_transformers_is_not_followed_is_noted(
    plain: dict[str, Any], size_px: int | None, note: str
) -> None:
    found = parse_transformers(plain, name="x/preprocessor_config.json")
    assert (found.size_px, found.framing) == (size_px, None)
    (told,) = found.notes
    assert told.startswith(note)
    assert told.endswith(" (preprocessor_config.json)")


def test_a_processor_that_keeps_the_shape_is_cropped_to_squares() -> None:
    plain = {"image_processor_type": "CLIPImageProcessor", "do_center_crop": False}
    found = parse_transformers(plain, name="preprocessor_config.json")
    assert (found.size_px, found.framing) == (224, Framing("crop", "bicubic", 224))
    assert found.notes[0].startswith("it keeps the shape of pictures; here they are cropped to their centre")


def test_an_unknown_processor_still_tells_its_mean() -> None:
    plain = {"image_processor_type": "NewImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    assert parse_transformers(plain, name="p.json").pixels == pixels("-1..1", "stated")
    assert parse_transformers(plain | {"image_std": None}, name="p.json").pixels is None


def test_another_size_is_framed_alike() -> None:
    plain = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}}
    found = parse_transformers(plain, name="p.json")
    assert found.framing_at(224) == found.framing
    assert found.framing_at(448) == Framing("crop", "bicubic", 512)
    assert Preprocessing(None, None, None, "p.json").framing_at(448) is None


def test_the_first_file_that_states_something_decides(tmp_path: Path) -> None:
    def write(name: str, plain: object) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(plain), encoding="utf-8")
        return path

    nested = write(
        "processor_config.json", {"image_processor": {"image_processor_type": "SiglipImageProcessor"}}
    )
    own = write("preprocessor_config.json", {"size": 192})
    config = write("config.json", {"model_type": "vit"})
    files = {path.name: path for path in (own, config)}
    found = read_preprocessing(files)
    assert found is not None
    assert (found.size_px, str(found.framing)) == (192, "stretch, bilinear")  # as a ViT's
    found = read_preprocessing(files | {nested.name: nested})
    assert found is not None
    assert (found.size_px, found.source) == (224, "processor_config.json")
    assert read_preprocessing({config.name: config}) is None
    assert read_preprocessing({}) is None
    write("processor_config.json", {"processor_class": "CLIPProcessor"})
    found = read_preprocessing(files | {nested.name: nested})
    assert found is not None
    assert found.source == "preprocessor_config.json"
    # timm's, with Transformers' wrapper and without; and as its first versions wrote it
    timm = {"architecture": "resnet50", "pretrained_cfg": TIMM}
    write("config.json", timm)
    write("preprocessor_config.json", {"image_processor_type": "TimmWrapperImageProcessor"})
    for given in ({config.name: config}, files):
        assert read_preprocessing(given) == parse_timm(timm, name="config.json")
    write("preprocessor_config.json", {"pretrained_cfg": TIMM})
    found = read_preprocessing(files)
    assert found is not None
    assert (found.size_px, found.source) == (224, "preprocessor_config.json")
    write("config.json", {"architecture": "resnet50", **TIMM})
    assert read_preprocessing({config.name: config}) == parse_timm(timm, name="config.json")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("do_resize", 1, "do_resize: expected true or false; got 1"),
        ("do_center_crop", "yes", "do_center_crop: expected true or false; got 'yes'"),
        ("size", 0, "size: expected sides in pixels, whole numbers from 1 to 10000; got 0"),
        ("size", 10**400, "size: expected sides in pixels, whole numbers from 1 to 10000; got 1000"),
        ("size", 224.5, "size: expected sides"),
        ("size", True, "size: expected sides"),
        ("size", {}, "size: expected sides"),
        ("size", {"height": "224"}, "size: expected sides"),
        ("size", [224, 224, 3], "size: expected sides"),
        ("crop_size", -1, "crop_size: expected sides"),
        ("resample", 6, "resample: expected a number from 0 to 5; got 6"),
        ("resample", 2.5, "resample: expected a whole number from 0 to 5; got 2.5"),
        ("resample", "bicubic", "resample: expected a number from 0 to 5; got 'bicubic'"),
        ("rescale_factor", 0, "rescale_factor: expected a number from 1e-09 to 1e+09; got 0"),
        ("rescale_factor", float("nan"), "rescale_factor: expected a number"),
        (
            "image_mean",
            [0.5, 0.5],
            "image_mean: expected three numbers for red, green and blue; got [0.5, 0.5]",
        ),
        ("image_mean", [0.5, 0.5, float("inf")], "image_mean: expected three numbers"),
        ("image_mean", [0.5, 0.5, 10**400], "image_mean: expected three numbers"),
        ("image_mean", {"r": 1}, "image_mean: expected three numbers"),
        ("image_std", [0.2, 0.2, 0], "image_std: expected three numbers above 0; got [0.2, 0.2, 0]"),
        ("image_std", -1, "image_std: expected three numbers above 0; got -1"),
        ("image_processor_type", 7, "image_processor_type: expected text; got 7"),
        ("do_flip_channel_order", [], "do_flip_channel_order: expected true or false; got []"),
    ],
)
def test_odd_values_are_refused(tmp_path: Path, key: str, value: object, expected: str) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"image_processor_type": "CLIPImageProcessor", key: value}), encoding="utf-8")
    with pytest.raises(InputError) as told:
        read_preprocessing({path.name: path})
    assert str(told.value).startswith(f"{path}: {expected}")
    assert len(str(told.value)) < len(str(path)) + 250


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("input_size", [3, 224], "input_size: expected 3 whole numbers from 1 to 10000; got [3, 224]"),
        ("input_size", 224, "input_size: expected 3 whole numbers"),
        ("crop_pct", -0.5, "crop_pct: expected a number from 0 to 100; got -0.5"),
        ("crop_pct", "0.9", "crop_pct: expected a number"),
        ("crop_mode", 1, "crop_mode: expected text; got 1"),
        ("interpolation", ["bicubic"], "interpolation: expected text; got ['bicubic']"),
        ("mean", ["a", "b", "c"], "mean: expected three numbers"),
        ("std", [0, 0, 0], "std: expected three numbers above 0"),
    ],
)
def test_odd_values_of_timm_are_refused(key: str, value: object, expected: str) -> None:
    with pytest.raises(InputError) as told:
        parse_timm({"pretrained_cfg": TIMM | {key: value}}, name="config.json")
    assert str(told.value).startswith(f"config.json: {expected}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"{", "expected JSON; "),
        (b"\xff\xfe", "expected JSON; "),
        (b"[" * 100_000, "expected JSON; "),
        (b'{"size": ' + b"1" * 5000 + b"}", "expected JSON; "),
        (b"[1]", "expected an object; got [1]"),
        (b'{"a": "' + b"x" * 1_000_000 + b'"}', "expected less than 1,000,000 bytes; got 1,000,0"),
        (b'{"pretrained_cfg": 3}', "pretrained_cfg: expected an object; got 3"),
    ],
)
def test_files_that_are_no_objects_are_refused(tmp_path: Path, text: bytes, expected: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(InputError) as told:
        read_preprocessing({path.name: path})
    assert str(told.value).startswith(f"{path}: {expected}")


def test_a_file_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        read_preprocessing({"config.json": tmp_path / "config.json"})
    path = tmp_path / "processor_config.json"
    path.write_text('{"image_processor": []}', encoding="utf-8")
    with pytest.raises(InputError, match="image_processor: expected an object"):
        read_preprocessing({path.name: path})
