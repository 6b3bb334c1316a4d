"""Modules of which there are only weights and settings: from a folder, a file, shards and the Hugging Face hub.

What is expected is computed with Pillow and NumPy, as Transformers and timm preprocess pictures, and by the network
that `tests/backbones/weights` compares with these libraries.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exact import in_f32
from hf_hub import REPO, Hub, hf_hub
from onnx_transformer import SIZE_PX, write_onnx
from topwork.backbones.backbone import LAST, load_backbone
from topwork.backbones.module import Module, license_of, load_module
from topwork.backbones.weights.build import build_network
from topwork.errors import InputError
from topwork.images.decode import decode
from topwork.images.framing import Framing
from weight_files import NAMES, drawn, safetensors_bytes, small_transformers, write_repository

Array = np.ndarray[Any, Any]
CASES = small_transformers()
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
CARD = "---\ntags:\n- image-classification\nlicense: apache-2.0\n---\n# A network\n\nlicense: mit\n"


def photo() -> Image.Image:
    """Smooth colours and noise, wider than high."""
    random = np.random.default_rng(3)
    small = random.integers(0, 256, (9, 12, 3)).astype(np.uint8)
    rough = np.asarray(Image.fromarray(small).resize((97, 71), Image.Resampling.BICUBIC), np.int64)
    return Image.fromarray((rough + random.integers(-20, 20, rough.shape)).clip(0, 255).astype(np.uint8))


def photo_bytes() -> bytes:
    file = io.BytesIO()
    photo().save(file, "PNG")
    return file.getvalue()


def normalised(image: Image.Image, mean: list[float], deviation: list[float]) -> Array:
    """(1, 3, S, S)."""
    pixels = np.asarray(image, np.float32) / 255
    return ((pixels - np.float32(mean)) / np.float32(deviation)).transpose(2, 0, 1)[None]


def stretched() -> Array:
    """ViTImageProcessor."""
    return normalised(photo().resize((48, 48), Image.Resampling.BILINEAR), [0.5] * 3, [0.5] * 3)


def cropped() -> Array:
    """BitImageProcessor: the shorter side to 56 px, the centre of 48."""
    image = photo().resize((int(56 * 97 / 71), 56), Image.Resampling.BICUBIC)
    left, top = (image.width - 48) // 2, (56 - 48) // 2
    return normalised(image.crop((left, top, left + 48, top + 48)), *IMAGENET)


def by_timm() -> Array:
    """Resize(floor(48 / 0.9)), CenterCrop(48), of torchvision, as timm calls them."""
    side = int(48 / 0.9)
    image = photo().resize((int(side * 97 / 71), side), Image.Resampling.BICUBIC)
    left, top = (round((n - 48) / 2) for n in image.size)
    return normalised(image.crop((left, top, left + 48, top + 48)), *IMAGENET)


VIT = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 48, "width": 48},
    "resample": 2,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
BIT = {
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": 56},
    "crop_size": {"height": 48, "width": 48},
    "resample": 3,
    "image_mean": IMAGENET[0],
    "image_std": IMAGENET[1],
}
TIMM = {"input_size": [3, 48, 48], "crop_pct": 0.9, "interpolation": "bicubic", "crop_mode": "center"}
STATED: dict[str, tuple[dict[str, Any] | None, Callable[[], Array], str]] = {
    "vit": (VIT, stretched, "stretch, bilinear"),
    "dinov2": (BIT, cropped, "resize 56, crop, bicubic"),
    "timm_vit_tiny_patch16_224": (None, by_timm, "crop 90 %, bicubic"),
}


def config_of(name: str) -> dict[str, Any]:
    config: dict[str, Any] = CASES[name]["config"]
    if "pretrained_cfg" in config:
        stated = config["pretrained_cfg"] | TIMM | {"mean": IMAGENET[0], "std": IMAGENET[1]}
        return config | {"pretrained_cfg": stated}
    return config


def repository(folder: Path, name: str, *, card: str = CARD) -> Path:
    write_repository(folder, config_of(name), drawn(CASES[name]))
    if (processor := STATED[name][0]) is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "README.md").write_text(card)
    return folder


def shards(folder: Path, name: str) -> Path:
    """Its weights in two files, by an index; returned."""
    tensors = drawn(CASES[name])
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    where = {}
    for number, some in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        stored = [(n, NAMES[tensors[n].dtype.name], tensors[n].shape, tensors[n].tobytes()) for n in some]
        (folder / file).write_bytes(safetensors_bytes(stored))
        where |= dict.fromkeys(some, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return index


def assert_same(made: Array, expected: Array, share: float = 1e-4) -> None:
    assert made.shape == expected.shape
    assert np.abs(made - expected).max() <= share * np.abs(expected).max()


def features(module: Module, image: Array) -> dict[str, Array]:
    made = in_f32(module.graph)(image[None])
    return {name: np.array(made[name]) for name in (*module.stages, "last")}


@pytest.mark.parametrize("name", STATED)
@pytest.mark.parametrize("form", ["folder", "file", "index", "folder of shards"])
def test_stated_pixels_and_framing_are_followed(form: str, name: str, tmp_path: Path) -> None:
    folder = repository(tmp_path / "net", name)
    network, size_px = build_network(folder / "model.safetensors", shown=name)
    assert size_px == 48
    made = in_f32(network.graph)(STATED[name][1]())
    expected = {output: np.array(made[output]) for output in (*network.stages, "last")}
    handle = folder
    if form == "file":
        handle = folder / "model.safetensors"
    elif form == "index":
        handle = shards(folder, name)
    elif form == "folder of shards":
        shards(folder, name)

    module = load_module(str(handle))
    assert (module.size_px, module.size_fixed, str(module.framing)) == (48, False, STATED[name][2])
    assert module.pixels.how == "stated"
    assert (module.license, module.source, module.assumed) == ("apache-2.0", str(handle), ())
    assert module.notes == ("its features are the class token",)
    assert (module.stages, module.signed, module.rectified) == (("stage1", "stage2"), True, False)
    assert module.framing is not None
    for output, value in features(module, decode(photo_bytes(), 48, fit=module.framing)).items():
        assert_same(value, expected[output])

    backbone = load_backbone(str(handle), precision="f32")
    facts = backbone.facts
    assert facts.fit == module.framing
    assert [(b.name, b.stop - b.start) for b in facts.blocks] == [
        (block, expected["last"].shape[1]) for block in ("stage1", "stage2", LAST)
    ]
    image = decode(photo_bytes(), facts.size_px, fit=facts.fit)
    whole = np.array(in_f32(backbone.graph)(image[None])["features"])
    assert_same(whole[:, facts.columns((LAST,))], expected["last"])
    assert_same(whole[:, facts.columns(("stage2",))], expected["stage2"])


def test_what_it_is_told_from_is_no_part_of_its_fingerprint(tmp_path: Path) -> None:
    """A folder, its file and its shards are one network."""
    folder = repository(tmp_path / "net", "vit")
    prints = [
        load_backbone(str(p), precision="f32").facts.fingerprint
        for p in (folder, folder / "model.safetensors")
    ]
    shards(folder, "vit")
    prints.append(load_backbone(str(folder), precision="f32").facts.fingerprint)
    assert len(set(prints)) == 1
    mean = load_backbone(str(folder), precision="f32", pool="mean")
    assert mean.facts.fingerprint not in prints


def test_another_size_pool_and_range(tmp_path: Path) -> None:
    folder = repository(tmp_path / "net", "dinov2")
    module = load_module(str(folder), size_px=64, pool="cls+mean", range="0..1")
    assert (module.size_px, module.framing) == (64, Framing("crop", "bicubic", resized_px=56 * 64 // 48))
    assert (module.pixels.range, module.pixels.how) == ("0..1", "chosen")
    assert module.notes[0] == "its features are the class token and the mean of its patches"
    image = decode(photo_bytes(), 64)
    network, _ = build_network(folder / "model.safetensors", size_px=64, pool="cls+mean", shown="x")
    expected = np.array(in_f32(network.graph)((image / np.float32(255)).transpose(2, 0, 1)[None])["last"])
    assert_same(features(module, image)["last"], expected)
    with pytest.raises(InputError, match=re.escape("50 px is no multiple of it: --size 48")):
        load_module(str(folder), size_px=50)


def test_what_nothing_states_is_assumed_and_told(tmp_path: Path) -> None:
    folder = repository(tmp_path / "net", "vit", card="# No licence\n")
    (folder / "preprocessor_config.json").unlink()
    module = load_module(str(folder))
    assumed = "pixels imagenet are assumed, as is usual for its format: --pixels chooses"
    assert module.notes == ("its features are the class token", assumed)
    assert module.assumed == (assumed,)
    assert (module.size_px, module.framing, module.license) == (48, None, "see its source")


def test_weights_in_half_precision_give_the_same_features_nearly(tmp_path: Path) -> None:
    folder = repository(tmp_path / "net", "vit")
    image = decode(photo_bytes(), 48)
    whole = features(load_module(str(folder)), image)["last"]
    tensors = {name: value.astype(np.float16) for name, value in drawn(CASES["vit"]).items()}
    write_repository(folder, CASES["vit"]["config"], tensors)
    half = features(load_module(str(folder)), image)["last"]
    assert half.dtype == np.float32
    assert 0 < np.abs(half - whole).max() < 5e-3 * np.abs(whole).max()


@pytest.mark.parametrize(
    ("card", "license_"),
    [
        (CARD, "apache-2.0"),
        ('---\nlicense: "cc-by-nc-4.0"\n---\n', "cc-by-nc-4.0"),
        ("---\nlicense:   mit\nlicense_link: x\n---\n", "mit"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nlicense_name: mit\n---\n", "see its source"),
        ("---\ntags: x\n---\nlicense: mit\n", "see its source"),
        ("license: mit\n", "see its source"),
        ("---\nlicense: " + "x" * 41 + "\n---\n", "see its source"),
        ("---\n" + "tags: x\n" * 5000 + "license: mit\n---\n", "see its source"),
        ("", "see its source"),
    ],
)
def test_the_licence_is_the_cards(card: str, license_: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(card.encode())
    assert license_of(tmp_path / "model.safetensors") == license_
    assert license_of(tmp_path / "onnx" / "model.onnx") == license_
    assert license_of(tmp_path / "other" / "model.onnx") == "see its source"


def test_a_card_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"---\n\xff\xfe: 1\nlicense: mit\n---\n")
    assert license_of(tmp_path / "model.safetensors") == "mit"


# --- from the hub -------------------------------------------------------------------------------------------


@pytest.fixture
def hub(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hf_hub(tmp_path, monkeypatch) as hub:
        yield hub


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


HANDLE = f"hf:{REPO}"


@pytest.mark.parametrize("sharded", [False, True])
def test_a_repository_of_weights(hub: Hub, sharded: bool, tmp_path: Path) -> None:
    folder = repository(tmp_path / "local", "dinov2")
    if sharded:
        shards(folder, "dinov2")
    hub.files = content(folder) | {"pytorch_model.bin": b"x", "training_args.bin": b"x"}
    image = decode(photo_bytes(), 48)
    expected = features(load_module(str(folder)), image)

    module = load_module(HANDLE)
    taken = "model.safetensors.index.json" if sharded else "model.safetensors"
    assert module.notes == (
        "its features are the class token",
        f"of its repository's files, {taken} was taken",
    )
    assert (module.handle, module.source) == (HANDLE, f"https://huggingface.co/{REPO}")
    assert (module.license, str(module.framing), module.size_px) == (
        "apache-2.0",
        "resize 56, crop, bicubic",
        48,
    )
    assert sorted(set(hub.downloads())) == sorted(content(folder))
    for name, value in features(module, image).items():
        np.testing.assert_array_equal(value, expected[name])

    asked = len(hub.asked)
    again = load_module(HANDLE, offline=True)
    assert len(hub.asked) == asked
    np.testing.assert_array_equal(features(again, image)["last"], expected["last"])
    named = load_module(f"{HANDLE}@main/{taken}")
    assert named.notes == ("its features are the class token",)
    np.testing.assert_array_equal(features(named, image)["last"], expected["last"])


@pytest.mark.parametrize("graph", ["onnx/model.onnx", "onnx/vision_model.onnx", "model.onnx"])
def test_weights_of_a_kind_that_is_not_built_give_way_to_the_graph(
    hub: Hub, graph: str, tmp_path: Path
) -> None:
    folder = tmp_path / "local"
    write_repository(folder, {"model_type": "beit"}, {"x": np.zeros(1000, np.float32)})
    write_onnx(folder / graph)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(VIT | {"size": {"height": SIZE_PX, "width": SIZE_PX}})
    )
    hub.files = content(folder) | {"onnx/model_quantized.onnx": b"x"}
    module = load_module(HANDLE)
    assert f"of its repository's files, {graph} was taken" in module.notes
    assert (module.size_px, str(module.framing), module.pixels.range) == (
        SIZE_PX,
        "stretch, bilinear",
        "-1..1",
    )
    assert "model.safetensors" not in hub.downloads()
    assert load_module(HANDLE, offline=True).notes == module.notes
    with pytest.raises(
        InputError, match=re.escape(f"{HANDLE}/model.safetensors: unknown kind of network 'beit'")
    ):
        load_module(f"{HANDLE}/model.safetensors")


def test_weights_that_are_built_come_before_the_graph(hub: Hub, tmp_path: Path) -> None:
    folder = repository(tmp_path / "local", "vit")
    hub.files = content(folder) | {"onnx/model.onnx": b"x" * 2000, "model.onnx": b"x"}
    assert "of its repository's files, model.safetensors was taken" in load_module(HANDLE).notes
    assert not [name for name in hub.downloads() if name.endswith(".onnx")]


def test_weights_of_an_unknown_kind_alone(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "local"
    write_repository(folder, {"model_type": "beit"}, {"x": np.zeros(1000, np.float32)})
    hub.files = content(folder)
    message = f"{HANDLE}: unknown kind of network 'beit'"
    with pytest.raises(InputError, match=re.escape(message) + ".*; take its ONNX file instead"):
        load_module(HANDLE)


def test_weights_without_settings(hub: Hub, tmp_path: Path) -> None:
    folder = repository(tmp_path / "local", "vit")
    hub.files = {name: data for name, data in content(folder).items() if name != "config.json"}
    with pytest.raises(
        InputError, match=re.escape(f"{HANDLE}: expected config.json beside the weights, which says")
    ):
        load_module(HANDLE)


def test_weights_that_were_cut(hub: Hub, tmp_path: Path) -> None:
    folder = repository(tmp_path / "local", "vit")
    hub.files = content(folder)
    hub.files["model.safetensors"] = hub.files["model.safetensors"][:-4]
    with pytest.raises(
        InputError, match=r"model\.safetensors: expected [\d,]+ bytes by its header; it has [\d,]+: fetch"
    ):
        load_module(HANDLE)


def test_a_folder_that_lacks_its_settings(tmp_path: Path) -> None:
    folder = repository(tmp_path / "net", "vit")
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=re.escape(f"{folder}: expected config.json beside the weights")):
        load_module(str(folder))
