"""Transformers' EfficientNet, MobileNetV1 and MobileNetV2.

Tan and Le 2019, "EfficientNet" (arXiv:1905.11946); Howard et al. 2017, "MobileNets" (arXiv:1704.04861);
Sandler et al. 2018, "MobileNetV2" (arXiv:1801.04381).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from topwork.backbones.weights.families.maps import (
    NON_NEGATIVE,
    Norm,
    Spatial,
    activation_of,
    convolved,
    pooled,
    rectified,
    squeeze_excite,
    with_stages,
)
from topwork.backbones.weights.layers import Activation, activate, constant
from topwork.backbones.weights.network import Config, Network, Weights, pixels_input
from topwork.errors import InputError

# EfficientNet-B0's stages; the library's own defaults are these, for B7's width and depth.
REPEATS, STRIDES, KERNELS = (1, 2, 2, 3, 3, 4, 1), (1, 2, 2, 2, 1, 2, 1), (3, 3, 5, 3, 5, 5, 3)
V1_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
V2_STRIDES = (2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)


@dataclass(frozen=True, slots=True)
class _Rules:
    """What holds in a whole network. `same`: TensorFlow's padding."""

    norm: Norm
    activation: Activation
    same: bool = False


def build_efficientnet(config: Config, weights: Weights, *, size_px: int) -> Network:
    """Transformers' EfficientNetModel: `config` is its config.json.

    Raises:
        InputError: a tensor is missing or has another shape than it should; it pools by the maximum.
    """
    if config.get("pooling_type", "mean") != "mean":
        raise InputError(f"config.json: expected pooling_type mean; got {config['pooling_type']!r}")
    rules = _Rules(Norm(config.get("batch_norm_eps", 0.001)), activation_of(config, "swish"))
    pixels = pixels_input(size_px)
    stem = ("embeddings.convolution", "embeddings.batchnorm")
    x = convolved(_padded(pixels, 0, 1), weights, *stem, rules.norm, stride=2, padding=0)
    x = activate(x, rules.activation)
    spatial: list[Spatial] = [(False, rectified(x, rules.activation))]
    square = config.get("depthwise_padding") or ()
    stages = zip(
        config.get("num_block_repeats", REPEATS),
        config.get("strides", STRIDES),
        config.get("kernel_sizes", KERNELS),
        strict=True,
    )
    number = 0
    for repeats, stride, kernel_px in stages:
        for i in range(math.ceil(config.get("depth_coefficient", 3.1) * repeats)):
            before = kernel_px // 2 - (number not in square)
            step = 1 if i else stride
            at = f"encoder.blocks.{number}"
            x = _efficientnet_block(x, weights, at, rules, step, (before, kernel_px // 2), i > 0, spatial)
            number += 1
    x = activate(convolved(x, weights, "encoder.top_conv", "encoder.top_bn", rules.norm), rules.activation)
    weights.skip("classifier.")
    return with_stages(pixels, pooled(x), spatial, rectified=rules.activation in NON_NEGATIVE)


def _efficientnet_block(
    x: Any,
    weights: Weights,
    at: str,
    rules: _Rules,
    stride: int,
    ends: tuple[int, int],
    adds: bool,
    spatial: list[Spatial],
) -> Any:
    from openvino import opset13 as op

    y = x
    if weights.under(f"{at}.expansion."):
        y = convolved(y, weights, f"{at}.expansion.expand_conv", f"{at}.expansion.expand_bn", rules.norm)
        y = activate(y, rules.activation)
    names = (f"{at}.depthwise_conv.depthwise_conv", f"{at}.depthwise_conv.depthwise_norm")
    if stride == 2:
        y = convolved(_padded(y, *ends), weights, *names, rules.norm, stride=2, padding=0)
    else:
        y = convolved(y, weights, *names, rules.norm)
    y = activate(y, rules.activation)
    spatial.append((True, rectified(y, rules.activation)))
    gate = (f"{at}.squeeze_excite.reduce", f"{at}.squeeze_excite.expand")
    y = squeeze_excite(y, weights, *gate, activation=rules.activation)
    y = convolved(y, weights, f"{at}.projection.project_conv", f"{at}.projection.project_bn", rules.norm)
    return op.add(y, x) if adds and stride == 1 else y


def build_mobilenet_v1(config: Config, weights: Weights, *, size_px: int) -> Network:
    """Transformers' MobileNetV1Model: `config` is its config.json.

    Raises:
        InputError: a tensor is missing or has another shape than it should.
    """
    rules = _mobilenet_rules(config)
    pixels = pixels_input(size_px)
    spatial: list[Spatial] = []
    x = _convolution(pixels, weights, "conv_stem", rules, 2, spatial)
    for i, stride in enumerate(V1_STRIDES):
        x = _convolution(x, weights, f"layer.{2 * i}", rules, stride, spatial)
        x = _convolution(x, weights, f"layer.{2 * i + 1}", rules, 1, spatial)
    weights.skip("classifier.")
    return with_stages(pixels, pooled(x), spatial, rectified=rules.activation in NON_NEGATIVE)


def build_mobilenet_v2(config: Config, weights: Weights, *, size_px: int) -> Network:
    """Transformers' MobileNetV2Model: `config` is its config.json.

    Raises:
        InputError: a tensor is missing or has another shape than it should; it dilates its convolutions.
    """
    from openvino import opset13 as op

    if config.get("output_stride", 32) != 32:
        raise InputError(f"config.json: expected output_stride 32; got {config['output_stride']}")
    rules = _mobilenet_rules(config)
    pixels = pixels_input(size_px)
    spatial: list[Spatial] = []
    x = _convolution(pixels, weights, "conv_stem.first_conv", rules, 2, spatial)
    for name in ("expand_1x1", "conv_3x3", "reduce_1x1"):
        if name != "expand_1x1" or weights.under("conv_stem.expand_1x1."):
            linear = name == "reduce_1x1"
            x = _convolution(x, weights, f"conv_stem.{name}", rules, 1, spatial, linear=linear)
    for i, stride in enumerate(V2_STRIDES):
        y = _convolution(x, weights, f"layer.{i}.expand_1x1", rules, 1, spatial)
        y = _convolution(y, weights, f"layer.{i}.conv_3x3", rules, stride, spatial)
        y = _convolution(y, weights, f"layer.{i}.reduce_1x1", rules, 1, spatial, linear=True)
        x = op.add(y, x) if stride == 1 and y.shape[1] == x.shape[1] else y
    x = _convolution(x, weights, "conv_1x1", rules, 1, spatial)
    weights.skip("classifier.")
    return with_stages(pixels, pooled(x), spatial, rectified=rules.activation in NON_NEGATIVE)


def _mobilenet_rules(config: Config) -> _Rules:
    norm = Norm(config.get("layer_norm_eps", 0.001))
    return _Rules(norm, activation_of(config, "relu6"), bool(config.get("tf_padding", True)))


def _convolution(
    x: Any,
    weights: Weights,
    at: str,
    rules: _Rules,
    stride: int,
    spatial: list[Spatial],
    *,
    linear: bool = False,
) -> Any:
    """A convolution, its norm, and, unless it is linear, its activation."""
    kernel = weights(f"{at}.convolution.weight")
    names = (f"{at}.convolution", f"{at}.normalization")
    padding = "same" if rules.same else (kernel.shape[-1] - 1) // 2
    y = convolved(x, weights, *names, rules.norm, stride=stride, padding=padding)
    if linear:
        return y
    y = activate(y, rules.activation)
    if kernel.shape[-1] > 1:
        spatial.append((kernel.shape[1] < x.shape[1], rectified(y, rules.activation)))
    return y


def _padded(x: Any, begin: int, end: int) -> Any:
    """Zeros above and to the left, and below and to the right."""
    from openvino import opset13 as op

    begins, ends = (constant(np.array([0, 0, n, n])) for n in (begin, end))
    return op.pad(x, begins, ends, "constant", constant(np.float32(0)))
