"""ConvNeXt, ResNet, RegNet, EfficientNet and MobileNet, against what timm and Transformers make of them.

`data/convolutional.npz` is by `benchmarks/parity/networks/cases_convolutional.py`, where timm and PyTorch are.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from topwork.backbones.weights.families import convnext, efficientnet, mobilenet, regnet, resnet
from topwork.backbones.weights.families.maps import Norm, convolved, norm_of, normed, symmetric, thinned
from topwork.backbones.weights.network import Network, Weights
from topwork.backbones.weights.safetensors import read_tensors
from topwork.errors import InputError

DATA = Path(__file__).parent / "data" / "convolutional.npz"
BUILDERS: dict[str, Callable[..., Network]] = {
    name: function
    for module in (convnext, efficientnet, mobilenet, regnet, resnet)
    for name, function in vars(module).items()
    if name.startswith("build_")
}


@cache
def cases() -> dict[str, dict[str, Any]]:
    with np.load(DATA) as data:
        told: dict[str, dict[str, Any]] = json.loads(bytes(data["cases"]))
        for name, case in told.items():
            case["expected"] = {
                key.partition("/")[2]: data[key] for key in data.files if key.startswith(f"{name}/")
            }
    return told


def random_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """As benchmarks/parity/networks/random_tensors.py draws them."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    rng = np.random.default_rng([0, zlib.crc32(name.encode())])
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    noise = rng.standard_normal(shape, np.float32)
    if "gamma" in name or "layer_scale" in name or "grn" in name:
        return np.float32(0.5) + np.float32(0.1) * noise
    if len(shape) > 1:
        return noise / np.float32(math.sqrt(math.prod(shape[1:])))
    return np.float32(0.1) * noise + np.float32(name.endswith("weight"))


def written(folder: Path, tensors: Mapping[str, np.ndarray]) -> Weights:
    """A .safetensors file of these, opened."""
    header, at = {}, 0
    for name, tensor in tensors.items():
        dtype, end = {"f": "F32", "i": "I64"}[tensor.dtype.kind], at + tensor.nbytes
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    data = b"".join(tensor.tobytes() for tensor in tensors.values())
    path = folder / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return Weights(read_tensors(path), shown="model.safetensors")


def random_weights(folder: Path, shapes: Mapping[str, list[int]]) -> Weights:
    return written(folder, {name: random_tensor(name, tuple(shape)) for name, shape in shapes.items()})


def outputs(network: Network, size_px: int) -> dict[str, np.ndarray]:
    import openvino as ov

    pixels = np.random.default_rng([0, size_px]).standard_normal((1, 3, size_px, size_px), np.float32)
    made = ov.compile_model(network.graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(pixels)
    return {name: np.array(made[name]) for name in (*network.stages, "last")}


def built(folder: Path, case: Mapping[str, Any], **changed: Any) -> Network:
    weights = random_weights(folder, case["shapes"])
    config = case["config"] | changed
    network = BUILDERS[case["build"]](config, weights, size_px=case["size_px"])
    assert weights.left() == []
    return network


@pytest.mark.parametrize("name", cases())
def test_its_features_are_the_librarys(name: str, tmp_path: Path) -> None:
    case = cases()[name]
    network = built(tmp_path, case)
    made, expected = outputs(network, case["size_px"]), case["expected"]
    assert made["last"].shape == (1, len(expected["last"]))
    assert np.abs(made["last"][0] - expected["last"]).max() <= 1e-5 * np.abs(expected["last"]).max()
    assert network.rectified == (expected["last"].min() >= 0)
    for stage in network.stages:
        assert made[stage].ndim == 4
        assert made[stage].min() >= 0
        if len(expected) > 1:  # of the families whose stages follow depthwise convolutions
            means = made[stage].mean((2, 3))[0]
            np.testing.assert_allclose(means, expected[stage], atol=1e-5 * means.max())


@pytest.mark.parametrize("name", [name for name, case in cases().items() if len(case["expected"]) > 1])
def test_there_is_a_stage_after_each_depthwise_convolution(name: str, tmp_path: Path) -> None:
    network = built(tmp_path, cases()[name])
    assert {*network.stages, "last"} == set(cases()[name]["expected"])


@pytest.mark.parametrize("name", cases())
def test_a_network_without_its_second_kernel_is_refused(name: str, tmp_path: Path) -> None:
    case = cases()[name]
    kernels = [key for key, shape in case["shapes"].items() if key.endswith(".weight") and len(shape) == 4]
    weights = random_weights(tmp_path, {key: s for key, s in case["shapes"].items() if key != kernels[1]})
    with pytest.raises(InputError, match=r"^model\.safetensors: expected "):
        BUILDERS[case["build"]](case["config"], weights, size_px=64)


def test_the_message_names_the_tensor(tmp_path: Path) -> None:
    case = cases()["resnet_basic"]
    shapes = {name: shape for name, shape in case["shapes"].items() if name != "layer2.1.bn1.bias"}
    with pytest.raises(
        InputError,
        match=r"model\.safetensors: expected a tensor layer2\.1\.bn1\.bias, as networks of this kind",
    ):
        resnet.build_timm_resnet(case["config"], random_weights(tmp_path, shapes), size_px=64)


@pytest.mark.parametrize(
    ("name", "tensor", "shape", "message"),
    [
        (
            "resnet_basic",
            "layer2.0.conv1.weight",
            [8, 5, 3, 3],
            r"to be a kernel for 8 channels; it is \[8, 5, 3",
        ),
        ("resnet_basic", "layer2.0.bn1.weight", [7], r"bn1\.weight with the shape \[8\]; it is \[7\]"),
        ("resnext_eca", "layer1.0.se.conv.weight", [1, 2, 3], r"\(1, 1, k\); it is \[1, 2, 3\]"),
        ("convnext", "stages.1.blocks.0.gamma", [9], r"gamma with the shape \[16\]; it is \[9\]"),
        ("convnext", "stages.0.blocks.0.mlp.fc2.weight", [8, 16], r"fc2\.weight with the shape \[8, 32\]"),
        (
            "mixnet",
            "blocks.0.0.conv_dw.0.weight",
            [3, 1, 3, 3],
            r"kernels of blocks\.0\.0\.conv_dw to be for",
        ),
        ("mobilenet_v4", "blocks.1.0.layer_scale.gamma", [9], r"with the shape \[16\]; it is \[9\]"),
    ],
)
def test_a_tensor_of_another_shape_is_refused(
    name: str, tensor: str, shape: list[int], message: str, tmp_path: Path
) -> None:
    case = cases()[name]
    assert tensor in case["shapes"]
    weights = random_weights(tmp_path, case["shapes"] | {tensor: shape})
    with pytest.raises(InputError, match=message):
        BUILDERS[case["build"]](case["config"], weights, size_px=64)


def test_more_blocks_than_it_should_have_are_left_over(tmp_path: Path) -> None:
    case = cases()["resnet_basic"]
    weights = random_weights(tmp_path, case["shapes"])
    resnet.build_timm_resnet(case["config"] | {"depths": [1, 1, 1, 1]}, weights, size_px=64)
    assert {name[:9] for name in weights.left()} == {"layer2.1."}


def test_settings_of_transformers_that_are_not_built_are_refused(tmp_path: Path) -> None:
    none = written(tmp_path, {"none": np.zeros(1, np.float32)})
    with pytest.raises(InputError, match="expected pooling_type mean; got 'max'"):
        mobilenet.build_efficientnet({"pooling_type": "max"}, none, size_px=64)
    with pytest.raises(InputError, match="expected output_stride 32; got 16"):
        mobilenet.build_mobilenet_v2({"output_stride": 16}, none, size_px=64)
    with pytest.raises(InputError, match=r"expected hidden_act to be one of relu, .*; got 'snake'"):
        resnet.build_resnet({"hidden_act": "snake"}, none, size_px=64)


def test_a_masked_autoencoder_has_no_head_but_its_norm_is_applied(tmp_path: Path) -> None:
    case = cases()["convnext_v2"]
    shapes = {
        name: shape for name, shape in case["shapes"].items() if not name.startswith(("norm_", "head."))
    }
    weights = random_weights(tmp_path, shapes)
    network = convnext.build_timm_convnext(case["config"], weights, size_px=64)
    assert weights.left() == []
    last = outputs(network, 64)["last"]
    np.testing.assert_allclose(last.mean(), 0, atol=1e-6)
    np.testing.assert_allclose(last.std(), 1, atol=0.05)  # its epsilon is large


def table() -> list[list[str]]:
    place = files("topwork.backbones.weights") / "timm_convolutional.tsv"
    return [line.split("\t") for line in place.read_text(encoding="utf-8").splitlines()]


def test_the_table_has_the_known_architectures() -> None:
    head, titles, *lines = table()
    assert head[0].startswith("# timm ")
    assert titles == ["architecture", "family", "facts"]
    facts = {name: (family, json.loads(told)) for name, family, told in lines}
    assert len(facts) == len(lines) > 250
    assert {f"build_timm_{family}" for family, _ in facts.values()} <= BUILDERS.keys()
    assert facts["resnet50"] == ("resnet", {"depths": [3, 4, 6, 3]})
    assert facts["convnext_xxlarge"] == ("convnext", {"depths": [3, 4, 30, 3], "epsilon": 1e-5})
    assert facts["tf_efficientnet_b0"][1] == {
        "depths": [1, 2, 2, 3, 3, 4, 1],
        "strides": "1222121",
        "epsilon": 0.001,
        "activation": "silu",
        "same": True,
    }
    assert facts["mobilenetv3_large_100"][1]["gate"] == "hard_sigmoid"


@pytest.mark.parametrize(
    ("kernel_px", "stride", "expected"), [(1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (5, 2, 2), (7, 2, 3)]
)
def test_symmetric_padding(kernel_px: int, stride: int, expected: int) -> None:
    assert symmetric(kernel_px, stride) == expected


def test_a_convolution_and_its_norm_by_hand(tmp_path: Path) -> None:
    import openvino as ov
    from openvino import opset13 as op

    names = ("weight", "bias", "running_mean", "running_var")
    values = {
        f"norm.{name}": np.array([value], np.float32) for name, value in zip(names, (3, 5, 1, 3), strict=True)
    }
    kernel = np.array([2, 1], np.float32).reshape(1, 2, 1, 1)
    weights = written(tmp_path, {"conv.weight": kernel} | values)
    x = op.parameter([1, 2, 1, 1], ov.Type.f32)
    y = convolved(x, weights, "conv", "norm", Norm(epsilon=1.0))
    made = ov.compile_model(ov.Model([y], [x]), "CPU")(np.array([4, 1], np.float32).reshape(1, 2, 1, 1))
    assert made[0].item() == pytest.approx((2 * 4 + 1 - 1) / math.sqrt(3 + 1) * 3 + 5)


def test_a_norm_of_groups_by_hand(tmp_path: Path) -> None:
    import openvino as ov
    from openvino import opset13 as op

    gain, shift = np.array([1, 2, 3, 4], np.float32), np.array([0, 1, 0, 1], np.float32)
    weights = written(tmp_path, {"norm.weight": gain, "norm.bias": shift})
    x = op.parameter([1, 4, 2, 2], ov.Type.f32)
    y = normed(x, weights, "norm", norm_of({"norm": "group", "groups": 2, "epsilon": 0.5}))
    given = np.random.default_rng(0).standard_normal((1, 4, 2, 2)).astype(np.float32)
    rows = given.reshape(2, -1)
    rows = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 0.5)
    expected = rows.reshape(1, 4, 2, 2) * gain.reshape(1, 4, 1, 1) + shift.reshape(1, 4, 1, 1)
    np.testing.assert_allclose(ov.compile_model(ov.Model([y], [x]), "CPU")(given)[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("avg", [[2.5, 4.5], [10.5, 12.5]]),
        # 4 r + c, which a blur doesn't change but at the mirrored edge, where r and c are (1 + 0 + 0 + 1) / 4
        ("blur", [[4 * 0.5 + 0.5, 4 * 0.5 + 2], [4 * 2 + 0.5, 4 * 2 + 2]]),
    ],
)
def test_less_of_a_map_smoothly(kind: str, expected: list[list[float]]) -> None:
    import openvino as ov
    from openvino import opset13 as op

    x = op.parameter([1, 1, 4, 4], ov.Type.f32)
    graph = ov.Model([thinned(x, kind)], [x])
    made = ov.compile_model(graph, "CPU")(np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4))[0]
    np.testing.assert_allclose(made[0, 0], expected)
