"""ViT, DeiT, DINOv2, DINOv3, SigLIP, CLIP, EVA-02 and Swin, against what Transformers and timm make of them.

`data/transformers.npz` is by `benchmarks/parity/networks/fixtures_transformers.py`, where these libraries are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from exact import in_f32
from topwork.backbones.weights.build import build_network
from topwork.backbones.weights.network import Network
from topwork.errors import InputError
from topwork.recipe import Pool
from weight_files import drawn, random_pixels, small_transformers, write_repository

Array = np.ndarray[Any, Any]
CASES = small_transformers()
SWIN = [name for name in CASES if "swin_tiny" in name or name == "swin"]
VITS = [name for name in CASES if name not in SWIN]


def built(folder: Path, name: str, tensors: Mapping[str, Array] | None = None, **more: Any) -> Network:
    case = CASES[name]
    path = write_repository(folder, case["config"], drawn(case) if tensors is None else tensors)
    return build_network(path, shown=name, **more)[0]


def outputs(network: Network, size_px: int) -> dict[str, Array]:
    made = in_f32(network.graph)(random_pixels(size_px))
    return {name: np.array(made[name]) for name in (*network.stages, "last")}


def assert_equal(made: Array, expected: Array) -> None:
    """To 1e-5 of the largest number."""
    assert made.shape == expected.shape
    assert np.abs(made - expected).max() <= 1e-5 * np.abs(expected).max()


@cache
def before(name: str) -> int:
    """How many tokens stand before the patches."""
    case = CASES[name]
    patches = (case["sizes"][0] // 8) ** 2
    return len(case["tokens"]) - patches


@pytest.mark.parametrize(
    ("name", "size_px"), [(name, size) for name, case in CASES.items() for size in case["sizes"]]
)
def test_its_features_are_the_librarys(name: str, size_px: int, tmp_path: Path) -> None:
    network = built(tmp_path, name, size_px=size_px)
    made = outputs(network, size_px)
    assert_equal(made["last"][0], CASES[name][f"last{size_px}"])
    assert [made[stage].shape[0] for stage in network.stages] == [1] * len(network.stages)
    assert network.signed
    assert not network.rectified


def test_what_is_tested_is_not_zero_nor_without_difference() -> None:
    """Else the comparisons above would be empty."""
    for case in CASES.values():
        sizes = [case[f"last{size}"] for size in case["sizes"]]
        assert all(np.abs(last).max() > 0.1 and last.std() > 0.05 for last in sizes)
        assert all(np.abs(last - sizes[0]).max() > 1e-2 for last in sizes[1:])


@pytest.mark.parametrize("name", CASES)
def test_without_a_size_it_takes_the_one_that_it_was_trained_at(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    path = write_repository(tmp_path, case["config"], drawn(case))
    network, size_px = build_network(path, shown=name)
    if (
        "image_size" in case["config"]
        or "pretrained_cfg" in case["config"]
        or "vision_config" in case["config"]
    ):
        assert size_px == case["sizes"][0]
    else:  # SigLIP 2 takes any
        assert size_px == 224
    assert tuple(network.graph.input(0).shape) == (1, 3, size_px, size_px)


@pytest.mark.parametrize("name", VITS)
def test_every_block_is_a_stage_of_its_patches(name: str, tmp_path: Path) -> None:
    """The last one, normalised, is the mean of the library's tokens where the norm comes before pooling."""
    case = CASES[name]
    network = built(tmp_path, name, size_px=case["sizes"][0])
    assert network.stages == ("stage1", "stage2")
    made = outputs(network, case["sizes"][0])
    width = case["tokens"].shape[1]
    assert made["stage1"].shape == made["stage2"].shape == (1, width)
    assert np.abs(made["stage1"] - made["stage2"]).max() > 1e-2
    if any(key.startswith("fc_norm") for key in case["shapes"]):  # the library's tokens are not normalised
        assert_equal(made["stage2"][0], case["tokens"][before(name) :].mean(0))


@pytest.mark.parametrize("name", VITS)
@pytest.mark.parametrize("pool", get_args(Pool))
def test_pools_are_those_of_the_tokens(name: str, pool: Pool, tmp_path: Path) -> None:
    case, tokens, first = CASES[name], CASES[name]["tokens"], before(name)
    size_px, tensors = case["sizes"][0], drawn(case)
    everything = name == "timm_test_vit3"  # the mean is that of all tokens, registers too
    expected = {"mean": tokens[0 if everything else first :].mean(0)}
    if {"cls_token", "embeddings.cls_token", "vit.embeddings.cls_token"} & set(tensors) or "clip" in name:
        expected["cls"] = tokens[0]
        if "distilled" in name:
            expected["cls"] = tokens[:2].mean(0)
        expected["cls+mean"] = np.concatenate([expected["cls"], expected["mean"]])
    if "fc_norm.weight" in tensors:
        gain, shift = tensors["fc_norm.weight"], tensors["fc_norm.bias"]
        parts = {key: value.reshape(-1, tokens.shape[1]) for key, value in expected.items()}
        expected = {
            key: (
                (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6) * gain + shift
            ).ravel()
            for key, x in parts.items()
        }
    expected["auto"] = case[f"last{size_px}"]
    if "siglip" in name or everything:
        expected["pooler"] = expected["auto"]
    if pool in expected:
        network = built(tmp_path, name, size_px=size_px, pool=pool)
        assert_equal(outputs(network, size_px)["last"][0], expected[pool])
        words = {
            "cls": "class token",
            "mean": "mean of its patches",
            "pooler": "by attention",
            "cls+mean": " and the",
        }
        assert words.get(pool, "") in network.pooled
    else:
        missing = "no pooler of its own; --pool mean" if pool == "pooler" else "no class token; --pool mean"
        with pytest.raises(InputError, match=re.escape(f"{name}: it has {missing}")):
            built(tmp_path, name, size_px=size_px, pool=pool)


# --- what doesn't fit ---------------------------------------------------------------------------------------

UNUSED = r"pooler\.|mask_token|classifier|^head\.(weight|bias|fc)|head_dist|text_|^logit_|visual_projection"
# What not every network of a kind has, so that its absence tells nothing.
OPTIONAL = r"bias|gamma|lambda1|(pos_embed|token|tokens)$|norm|position_embedding|class_embedding|q\.weight"


def needed(name: str) -> list[str]:
    """Of the tensors that its features depend on, one of each kind: the last."""
    names = [key for key in CASES[name]["shapes"] if not re.search(UNUSED, key)]
    return list({re.sub(r"\d+", "N", key): key for key in names}.values())


@pytest.mark.parametrize("name", CASES)
def test_a_tensor_that_is_missing_is_named(name: str, tmp_path: Path) -> None:
    tensors = drawn(CASES[name])
    for key in needed(name):
        if re.search(OPTIONAL, key):
            continue
        rest = {k: v for k, v in tensors.items() if k != key}
        with pytest.raises(InputError, match=rf"^{name}: ") as told:
            built(tmp_path, name, rest, size_px=CASES[name]["sizes"][0])
        words = ["expected a tensor ", "have no place in a", "no patch embedding", "no pooler of its own"]
        words += ["with the shape"] * ("downsample" in key)  # then it is the next stage that doesn't fit
        assert any(word in str(told.value) for word in words), (key, str(told.value))


def refusal(folder: Path, name: str, tensors: Mapping[str, Array]) -> str:
    """What is said of them; "" if a network is built."""
    try:
        built(folder, name, tensors, size_px=CASES[name]["sizes"][0])
    except InputError as error:
        return str(error)
    return ""


def misshapen(value: Array, key: str) -> list[Array]:
    """The same numbers, or fewer, in shapes that no network of its kind has."""
    made = [
        np.concatenate([value, value[..., :1]], -1),  # longer rows
        np.concatenate([value, value[:1]]) if value.ndim > 1 else value[None],  # more rows
        value[None, None],
        value.ravel()[:1],
        value[..., :0],
    ]
    if value.ndim > 1 and value.shape[0] != value.shape[-1]:
        made.append(np.ascontiguousarray(value.T))
    one = (
        value[None, None] if value.ndim == 1 and "embedding" in key else None
    )  # a vector, however it is written
    return [
        shape for shape in made if shape is not one and not (one is not None and shape.shape == one.shape)
    ]


@pytest.mark.parametrize("name", CASES)
def test_a_tensor_of_another_shape_is_refused(name: str, tmp_path: Path) -> None:
    tensors = drawn(CASES[name])
    for number, key in enumerate(needed(name)):
        shapes = misshapen(tensors[key], key)
        value = shapes[(number + len(name)) % len(shapes)]
        told = refusal(tmp_path, name, tensors | {key: value})
        assert told.startswith(f"{name}: "), f"{key} {value.shape}: {told}"
        assert len(told) < 300


@pytest.mark.parametrize(
    ("name", "key", "shape", "message"),
    [
        ("vit", "layernorm.weight", (31,), "expected layernorm.weight with the shape [32]; it is [31]"),
        (
            "vit",
            "encoder.layer.1.output.dense.weight",
            (32, 47),
            "expected encoder.layer.1.output.dense.weight with the shape [32, 48]; it is [32, 47]",
        ),
        (
            "vit",
            "embeddings.position_embeddings",
            (1, 36 + 2, 32),
            "expected positions that form a square; it has 38",
        ),
        (
            "dinov2",
            "embeddings.cls_token",
            (1, 1, 31),
            "expected embeddings.cls_token with the shape [1, 1, 32]; it",
        ),
        (
            "siglip",
            "head.attention.in_proj_weight",
            (95, 32),
            "expected head.attention.in_proj_weight with the shape [96, 32]; it is [95, 32]",
        ),
        (
            "swin",
            "encoder.layers.0.blocks.1.attention.self.relative_position_bias_table",
            (48, 2),
            "relative_position_bias_table with the shape [25, 2]; it is [48, 2]",
        ),
        ("timm_vit_tiny_patch16_224", "norm.bias", (0,), "expected norm.bias with the shape [24]; it is [0]"),
    ],
)
def test_the_message_tells_both_shapes(
    name: str, key: str, shape: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    tensors = drawn(CASES[name]) | {key: np.zeros(shape, np.float32)}
    with pytest.raises(InputError, match=re.escape(f"{name}: ") + ".*" + re.escape(message)):
        built(tmp_path, name, tensors)


@pytest.mark.parametrize("name", ["vit", "swin", "timm_eva02_tiny_patch14_224"])
def test_tensors_that_have_no_place_are_told(name: str, tmp_path: Path) -> None:
    more = {"adapter.down": np.ones(3, np.float32), "adapter.up": np.ones(3, np.float32)}
    family = CASES[name]["config"].get("model_type") or CASES[name]["config"]["architecture"]
    message = (
        f"{name}: 2 of its tensors have no place in a {family} network, such as adapter.down, adapter.up"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        built(tmp_path, name, drawn(CASES[name]) | more)


def test_a_block_that_is_missing_leaves_those_behind_it(tmp_path: Path) -> None:
    rest = {key: value for key, value in drawn(CASES["vit"]).items() if ".layer.0." not in key}
    with pytest.raises(
        InputError, match=re.escape("vit: expected the tensors of a transformer's blocks; there are")
    ):
        built(tmp_path, "vit", rest)
    more = {key.replace(".1.", ".3."): v for key, v in drawn(CASES["vit"]).items() if ".layer.1." in key}
    with pytest.raises(
        InputError, match=re.escape("16 of its tensors have no place in a vit network, such as enc")
    ):
        built(tmp_path, "vit", drawn(CASES["vit"]) | more)


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    """As a quantised network has them; it would need scales."""
    tensors = drawn(CASES["vit"])
    key = "encoder.layer.0.intermediate.dense.weight"
    message = f"vit: expected {key} as floating-point numbers; it is [48, 32] of I64"
    with pytest.raises(InputError, match=re.escape(message)):
        built(tmp_path, "vit", tensors | {key: tensors[key].astype(np.int64)})


@pytest.mark.parametrize(
    ("name", "size_px", "message"),
    [
        ("vit", 50, "it takes pictures in patches of 8 px; 50 px is no multiple of it: --size 48"),
        ("vit", 7, "it takes pictures in patches of 8 px; 7 px is no multiple of it: --size 8"),
        (
            "timm_vit_tiny_patch16_224",
            63,
            "it takes pictures in patches of 8 px; 63 px is no multiple of it: --size 56",
        ),
        (
            "swin",
            66,
            "it takes pictures in patches of 4 px; 66 px is no multiple of it: --size a multiple of 32",
        ),
        (
            "swin",
            72,
            "its windows of 4 patches don't fit in a map of 18 x 18; leave --size out, or take a multiple",
        ),
        ("vit", 4096, "it is made for pictures of 4096 px; expected at most 2048: --size"),
    ],
)
def test_sizes_that_do_not_fit(name: str, size_px: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(f"{name}: {message}")):
        built(tmp_path, name, size_px=size_px)


@pytest.mark.parametrize("name", ["swin", "timm_swin_tiny_patch4_window7_224"])
def test_windows_are_pooled_in_no_other_way(name: str, tmp_path: Path) -> None:
    assert_equal(outputs(built(tmp_path, name, pool="mean"), 64)["last"][0], CASES[name]["tokens"].mean(0))
    with pytest.raises(
        InputError, match=f"{name}: a .* network has no class token or pooler; leave --pool out"
    ):
        built(tmp_path, name, pool="cls")
