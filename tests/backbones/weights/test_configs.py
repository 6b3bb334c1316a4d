"""What a `config.json` says of a network: which kinds are built, what is usual where it is silent, and nonsense."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exact import in_f32
from topwork.backbones.weights.build import build_network, read_config
from topwork.backbones.weights.configs import ACTIVATIONS, FAMILIES, plan_of, timm_facts
from topwork.errors import InputError
from weight_files import drawn, random_pixels, small_transformers, write_repository

CASES = small_transformers()
# Transformers 5.24: what `config.json` need not say, since it is its class's default.
USUAL: dict[str, dict[str, Any]] = {
    "vit": {"hidden_act": "gelu", "layer_norm_eps": 1e-12},
    "vit_msn": {"hidden_act": "gelu", "layer_norm_eps": 1e-6},
    "ijepa": {"hidden_act": "gelu", "layer_norm_eps": 1e-12},
    "deit": {"hidden_act": "gelu", "layer_norm_eps": 1e-12},
    "dinov2": {"hidden_act": "gelu", "layer_norm_eps": 1e-6},
    "dinov2_registers": {"hidden_act": "gelu", "layer_norm_eps": 1e-6},
    "dinov3": {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "rope_theta": 100.0, "use_gated_mlp": False},
    "siglip": {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
    "siglip2": {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
    "clip": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    "swin": {"hidden_act": "gelu", "layer_norm_eps": 1e-5},
}


def built(folder: Path, config: Any, name: str, *, size_px: int | None = None) -> np.ndarray:
    path = write_repository(folder, config, drawn(CASES[name]))
    network, size = build_network(path, size_px=size_px, shown=name)
    return np.array(in_f32(network.graph)(random_pixels(size))["last"])[0]


@pytest.mark.parametrize("name", USUAL)
def test_what_is_usual_need_not_be_said(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    for key, value in USUAL[name].items():
        assert case["config"][key] == value, "the fixture says what is usual"
    silent = {key: value for key, value in case["config"].items() if key not in USUAL[name]}
    expected = case[f"last{case['sizes'][0]}"]
    made = built(tmp_path, silent, name, size_px=case["sizes"][0])
    assert np.abs(made - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("vit", "hidden_act", "relu"),
        ("vit", "layer_norm_eps", 0.3),
        ("vit", "num_attention_heads", 2),
        ("clip", "hidden_act", "gelu"),
        ("dinov3", "rope_theta", 10.0),
        ("dinov3_gated", "hidden_act", "relu"),
        ("swin", "num_heads", [2, 1, 4][::-1]),
        ("swin", "layer_norm_eps", 0.3),
    ],
)
def test_what_is_said_is_followed(name: str, key: str, value: Any, tmp_path: Path) -> None:
    case = CASES[name]
    size_px = case["sizes"][0]
    if key == "num_heads":  # the tables of biases have a column for each head
        with pytest.raises(
            InputError, match=r"relative_position_bias_table with the shape \[\d+, 4\]; it is"
        ):
            built(tmp_path, case["config"] | {key: value}, name, size_px=size_px)
        return
    made = built(tmp_path, case["config"] | {key: value}, name, size_px=size_px)
    assert np.abs(made - case[f"last{size_px}"]).max() > 1e-3


def test_each_activation_is_the_librarys() -> None:
    """transformers/activations.py: the names that stand for each function."""
    assert (
        ACTIVATIONS["gelu_new"] == ACTIVATIONS["gelu_pytorch_tanh"] == ACTIVATIONS["gelu_fast"] == "gelu_tanh"
    )
    assert ACTIVATIONS["silu"] == ACTIVATIONS["swish"] == "silu"
    assert ACTIVATIONS["gelu"] == "gelu"
    assert ACTIVATIONS["quick_gelu"] == "quick_gelu"


@pytest.mark.parametrize("name", ["siglip_with_words", "clip_with_words"])
def test_the_tower_for_pictures_has_settings_of_its_own(name: str, tmp_path: Path) -> None:
    config = CASES[name]["config"]
    plan = plan_of(config, shown=name)
    assert plan.size_px == config["vision_config"]["image_size"] == 48
    # as SigLIP's repositories have it: what is usual isn't repeated
    nested = {k: v for k, v in config["vision_config"].items() if k not in ("hidden_act", "layer_norm_eps")}
    if name.startswith("siglip"):
        made = built(tmp_path, config | {"vision_config": nested}, name)
        expected = CASES[name]["last48"]
        assert np.abs(made - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    "kind", ["siglip_vision_model", "siglip", "siglip2_vision_model", "clip_vision_model", "clip"]
)
def test_a_tower_alone_is_of_its_kind(kind: str) -> None:
    assert plan_of({"model_type": kind}, shown="x").family.startswith(kind.removesuffix("_vision_model"))


def test_a_tag_is_no_part_of_the_architecture(tmp_path: Path) -> None:
    name = "timm_vit_tiny_patch16_224"
    config = CASES[name]["config"] | {"architecture": "vit_tiny_patch16_224.augreg_in21k_ft_in1k"}
    expected = CASES[name]["last48"]
    assert np.abs(built(tmp_path, config, name) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_wrapper_of_timm_in_transformers(tmp_path: Path) -> None:
    """Its tensors lie below `timm_model.`, and its config names an architecture beside its model_type."""
    name = "timm_vit_tiny_patch16_224"
    case = CASES[name]
    tensors = {f"timm_model.{key}": value for key, value in drawn(case).items()}
    config = case["config"] | {"model_type": "timm_wrapper"}
    network, size_px = build_network(write_repository(tmp_path, config, tensors), shown=name)
    made = np.array(in_f32(network.graph)(random_pixels(size_px))["last"])[0]
    assert np.abs(made - case["last48"]).max() <= 1e-5 * np.abs(case["last48"]).max()


@pytest.mark.parametrize(("told", "place"), [("token", 0), ("avg", slice(1, None))])
def test_timm_pools_as_its_config_says(told: str, place: Any, tmp_path: Path) -> None:
    name = "timm_vit_tiny_patch16_224"
    tokens = CASES[name]["tokens"]
    expected = np.atleast_2d(tokens[place]).mean(0)
    made = built(tmp_path, CASES[name]["config"] | {"global_pool": told}, name)
    assert np.abs(made - expected).max() <= 1e-5 * np.abs(expected).max()


# --- what is wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "x: expected a model_type (Transformers) or an architecture (timm) in config.json"),
        (
            {"model_type": 3},
            "x: expected a model_type (Transformers) or an architecture (timm) in config.json",
        ),
        (
            {"model_type": "vitt"},
            "x: unknown kind of network 'vitt'; did you mean 'vit'? Known: clip, convnext, ",
        ),
        ({"model_type": "llama"}, "x: unknown kind of network 'llama'. Known: clip, "),
        (
            {"architecture": "vit_tiny_patch16_225"},
            "x: unknown architecture of timm 'vit_tiny_patch16_225'; did you mean 'vit_tiny_patch16_224'? Its ONNX",
        ),
        (
            {"architecture": "zzz"},
            "x: unknown architecture of timm 'zzz'. Its ONNX file can be read, if there is one",
        ),
        (
            {"pretrained_cfg": {}},
            "x: unknown architecture of timm ''. Its ONNX file can be read, if there is one",
        ),
        (
            {"model_type": "vit", "hidden_act": "gleu"},
            "unknown hidden_act in config.json 'gleu'; did you mean 'gelu'? Known: gelu, gelu_fast, ",
        ),
        ({"model_type": "vit", "hidden_act": 5}, "config.json: hidden_act: expected text; got 5"),
        (
            {"model_type": "vit", "num_attention_heads": 0},
            "config.json: num_attention_heads: expected a number from 1 to 1024; got 0",
        ),
        (
            {"model_type": "vit", "num_attention_heads": "12"},
            "config.json: num_attention_heads: expected a number from 1 to 1024; got '12'",
        ),
        (
            {"model_type": "vit", "image_size": -224},
            "config.json: image_size: expected a number from 1 to 2048; got -224",
        ),
        (
            {"model_type": "vit", "image_size": [[1], 2]},
            "config.json: image_size: expected a number from 1 to 2048; got [1]",
        ),
        (
            {"model_type": "vit", "layer_norm_eps": float("nan")},
            "config.json: layer_norm_eps: expected a number from 0 to 1; got nan",
        ),
        (
            {"model_type": "dinov3_vit", "use_gated_mlp": "no"},
            "config.json: use_gated_mlp: expected true or false; got 'no'",
        ),
        (
            {"model_type": "swin", "num_heads": 3},
            "config.json: num_heads: expected how many heads each stage has; got 3",
        ),
        (
            {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {"input_size": [3, "a", 224]}},
            "config.json: input_size: expected 3 whole numbers from 1 to 10000; got [3, 'a', 224]",
        ),
    ],
)
def test_a_config_that_makes_no_sense(config: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InputError, match="^" + re.escape(message)):
        plan_of(config, shown="x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "x: expected config.json beside the weights, which says what network they are"),
        (b"", "config.json: expected JSON; it can't be read (Expecting value: line 1 column 1 (char 0))"),
        (b"{'model_type': 1}", "config.json: expected JSON; it can't be read (Expecting property name"),
        (b"\xff\xfe{}", "config.json: expected JSON; it can't be read ('utf-8' codec can't decode byte 0xff"),
        (b"[" * 100_000, "config.json: expected JSON; it can't be read (maximum recursion depth exceeded"),
        (b"[1]", "config.json: expected a table of settings; got list"),
        (b"null", "config.json: expected a table of settings; got NoneType"),
        (b" " * 10_000_001, "config.json: expected JSON; it can't be read (too large)"),
    ],
)
def test_a_config_that_is_no_table(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = write_repository(tmp_path, None, {"x": np.zeros(1, np.float32)})
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)):
        build_network(path, shown="x")


def test_a_folder_of_the_name_of_the_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(InputError, match=re.escape("x: expected config.json beside the weights")):
        read_config(tmp_path / "config.json", shown="x")


def test_a_file_without_tensors(tmp_path: Path) -> None:
    path = write_repository(tmp_path, {"model_type": "vit"}, {})
    with pytest.raises(InputError, match=re.escape("x: expected tensors; it has none")):
        build_network(path, shown="x")


def test_tensors_of_another_network(tmp_path: Path) -> None:
    path = write_repository(
        tmp_path, {"model_type": "vit"}, {"conv1.weight": np.zeros((1, 3, 3, 3), np.float32)}
    )
    with pytest.raises(
        InputError, match=re.escape("x: expected the tensors of a vision transformer; it has no patch")
    ):
        build_network(path, shown="x")
    path = write_repository(
        tmp_path, {"model_type": "swin"}, {"conv1.weight": np.zeros((1, 3, 3, 3), np.float32)}
    )
    with pytest.raises(
        InputError, match=re.escape("x: expected the tensors of a Swin transformer; it has no patch")
    ):
        build_network(path, shown="x")
    path = write_repository(
        tmp_path, CASES["timm_vit_tiny_patch16_224"]["config"], {"x": np.zeros(1, np.float32)}
    )
    with pytest.raises(
        InputError, match=re.escape("x: expected a tensor patch_embed.proj.weight, as networks of this")
    ):
        build_network(path, shown="x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"num_attention_heads": 5},
            "vit: expected its width to be a multiple of its heads; it has 5 heads and a width",
        ),
        ({"num_attention_heads": 64}, "it has 64 heads and a width of 32"),
    ],
)
def test_heads_that_do_not_divide_the_width(change: Mapping[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        built(tmp_path, CASES["vit"]["config"] | change, "vit")


@pytest.mark.parametrize("change", [{"hidden_size": 64}, {"num_attention_heads": 16}, {"hidden_size": 3}])
def test_rotary_positions_of_another_width(change: Mapping[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"dinov3: expected rotary positions for .* heads of a width of 32, each a mul"
    ):
        built(tmp_path, CASES["dinov3"]["config"] | change, "dinov3")


NUMBERS = st.one_of(st.integers(-3, 70), st.integers(), st.floats(), st.booleans())
VALUES = st.recursive(
    st.one_of(st.none(), NUMBERS, st.text(max_size=8), st.sampled_from(["gelu", "avg", "clip", "token"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
FUZZED = [
    "vit",
    "dinov3_gated",
    "siglip_with_words",
    "swin",
    "timm_eva02_tiny_patch14_224",
    "timm_beit3_base_patch16_224",
]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("repositories")
    return {name: write_repository(root / name, None, drawn(CASES[name])) for name in FUZZED}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_value_of_any_setting_is_followed_or_refused(
    repositories: dict[str, Path], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(FUZZED))
    config = json.loads(json.dumps(CASES[name]["config"]))
    tables = [config, *(value for value in config.values() if isinstance(value, dict))]
    table = data.draw(st.sampled_from(tables))
    key = data.draw(
        st.sampled_from([*table, "image_size", "architecture", "model_type", "global_pool", "vision_config"])
    )
    table[key] = data.draw(VALUES)
    path = repositories[name]
    (path.parent / "config.json").write_text(json.dumps(config))
    with suppress(InputError):
        network, size_px = build_network(path, shown=name)
        assert tuple(network.graph.input(0).shape) == (1, 3, size_px, size_px)
        assert size_px <= 2048


# --- the tables ---------------------------------------------------------------------------------------------


def test_every_architecture_of_timms_has_a_plan() -> None:
    assert len(timm_facts()) > 400
    for name in timm_facts():
        told = {"architecture": name, "pretrained_cfg": {"input_size": [3, 96, 96]}}
        plan = plan_of(told, shown=name)
        assert (plan.size_px, plan.family) == (96, name)
        assert plan_of({"architecture": f"{name}.tag"}, shown=name).size_px == 224


def test_facts_of_timms_that_are_known_from_papers() -> None:
    """ViT-Ti, -S and -B have 3, 6 and 12 heads (arXiv:2012.12877), Swin-T 3 to 24 (arXiv:2103.14030)."""
    facts = {name: told for name, (_, told) in timm_facts().items()}
    heads = [facts[f"vit_{size}_patch16_224"]["heads"] for size in ("tiny", "small", "base", "large")]
    assert heads == [3, 6, 12, 16]
    assert facts["swin_tiny_patch4_window7_224"]["heads"] == [3, 6, 12, 24]
    assert facts["vit_base_patch16_siglip_224"]["pool"] == "pooler"
    assert facts["vit_base_patch16_clip_quickgelu_224"]["activation"] == "quick_gelu"
    assert facts["deit_tiny_distilled_patch16_224"]["distilled"]


def test_every_kind_of_transformers_has_a_plan() -> None:
    for kind in FAMILIES:
        assert plan_of({"model_type": kind}, shown=kind).size_px == 224


@pytest.mark.parametrize("depths", ["3, 3", {"a": 1}, [None, 2], 7, [2.5, "x"]])
def test_settings_of_the_wrong_kind_make_no_convolutional_network(depths: object, tmp_path: Path) -> None:
    config = {"model_type": "convnext", "depths": depths, "hidden_sizes": [8, 16]}
    tensors = {"embeddings.patch_embeddings.weight": np.zeros((8, 3, 4, 4), np.float32)}
    write_repository(tmp_path, config, tensors)
    with pytest.raises(InputError, match=r"^[^\n]+$"):
        build_network(tmp_path / "model.safetensors", shown="here")
