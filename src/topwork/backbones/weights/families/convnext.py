"""ConvNeXt, V1 and V2, of Transformers (DINOv3's, too) and of timm.

Liu et al. 2022, "A ConvNet for the 2020s" (arXiv:2201.03545): a depthwise convolution, a layer norm, and at each
place an MLP, four times as wide inside. Woo et al. 2023, "ConvNeXt V2" (arXiv:2301.00808): a global response
normalization in the MLP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from topwork.backbones.weights import layers
from topwork.backbones.weights.families.maps import (
    Spatial,
    activation_of,
    as_map,
    as_tokens,
    convolved,
    pooled,
    rectified,
    with_stages,
)
from topwork.backbones.weights.layers import Activation, activate, constant, dense, mean
from topwork.backbones.weights.network import Array, Config, Network, Weights, pixels_input


@dataclass(frozen=True, slots=True)
class _Names:
    """A library's names; of a stage and a block with their numbers, of the rest below these."""

    block: str
    depthwise: str
    norm: str
    expand: str
    response: str
    reduce: str
    scale: str


CONVNEXT = _Names(
    "encoder.stages.{}.layers.{}", "dwconv", "layernorm", "pwconv1", "grn", "pwconv2", "layer_scale_parameter"
)
DINOV3 = _Names(
    "stages.{}.layers.{}",
    "depthwise_conv",
    "layer_norm",
    "pointwise_conv1",
    "",
    "pointwise_conv2",
    "gamma",
)
TIMM = _Names("stages.{}.blocks.{}", "conv_dw", "norm", "mlp.fc1", "mlp.grn", "mlp.fc2", "gamma")


@dataclass(frozen=True, slots=True)
class _Rules:
    """What the tensors don't tell.

    `norm`: "layer", "rms" (arXiv:1910.07467) or "simple". `hidden`: timm's head has a layer before its classifier.
    """

    names: _Names
    activation: Activation
    epsilon: float
    norm: str = "layer"
    hidden: bool = False


def build_convnext(config: Config, weights: Weights, *, size_px: int) -> Network:
    """Transformers' ConvNextModel and ConvNextV2Model: `config` is their config.json.

    Raises:
        InputError: a tensor is missing or has another shape than it should.
    """
    # The norms inside have an epsilon of their own, whatever the configuration says.
    rules = _Rules(CONVNEXT, activation_of(config, "gelu"), 1e-6)
    pixels = pixels_input(size_px)
    x = _patches(pixels, weights, "embeddings.patch_embeddings")
    x = _normed_map(x, weights, "embeddings.layernorm", rules)
    spatial: list[Spatial] = []
    for stage, depth in enumerate(config.get("depths") or (3, 3, 9, 3)):
        before = f"encoder.stages.{stage}.downsampling_layer"
        x = _stage(x, weights, stage, depth, (f"{before}.0", f"{before}.1"), rules, spatial)
    weights.skip("classifier.")
    epsilon = config.get("layer_norm_eps", 1e-12)
    last = layers.layer_norm(pooled(x), *_affine(weights, "layernorm", x.shape[1]), epsilon)
    return with_stages(pixels, last, spatial, rectified=False)


def build_dinov3_convnext(config: Config, weights: Weights, *, size_px: int) -> Network:
    """Transformers' DINOv3ConvNextModel (Siméoni et al. 2025, arXiv:2508.10104): `config` is its config.json.

    Raises:
        InputError: a tensor is missing or has another shape than it should.
    """
    under = "model." if weights.under("model.stages.") else ""  # as saved by Transformers 5, and 4
    names = replace(DINOV3, block=under + DINOV3.block)
    epsilon = config.get("layer_norm_eps", 1e-6)
    rules = _Rules(names, activation_of(config, "gelu"), epsilon)
    pixels = x = pixels_input(size_px)
    spatial: list[Spatial] = []
    for stage, depth in enumerate(config.get("depths") or (3, 3, 9, 3)):
        first, second = (f"{under}stages.{stage}.downsample_layers.{i}" for i in range(2))
        if stage == 0:
            x = _normed_map(_patches(x, weights, first), weights, second, rules)
        x = _stage(x, weights, stage, depth, (first, second), rules, spatial)
    last = layers.layer_norm(pooled(x), *_affine(weights, "layer_norm", x.shape[1]), epsilon)
    return with_stages(pixels, last, spatial, rectified=False)


def build_timm_convnext(config: Config, weights: Weights, *, size_px: int) -> Network:
    """timm's: `config` has the facts of its table.

    Raises:
        InputError: a tensor is missing or has another shape than it should.
    """
    rules = _Rules(
        TIMM,
        config.get("activation", "gelu"),
        config.get("epsilon", 1e-6),
        config.get("norm", "layer"),
        bool(config.get("hidden")),
    )
    pixels = pixels_input(size_px)
    spatial: list[Spatial] = []
    x = _timm_stem(pixels, weights, rules)
    for stage, depth in enumerate(config["depths"]):
        before = f"stages.{stage}.downsample"
        x = _stage(x, weights, stage, depth, (f"{before}.0", f"{before}.1"), rules, spatial)
    weights.skip("head.fc.")
    return with_stages(pixels, _timm_head(x, weights, rules), spatial, rectified=False)


def _timm_stem(x: Any, weights: Weights, rules: _Rules) -> Any:
    """A convolution of patches, or two that overlap, perhaps with an activation between; then the norm."""
    if "stem.1.weight" in weights and len(weights.shape("stem.1.weight")) > 1:
        second, norm = "stem.1", "stem.2"
    elif "stem.3.weight" in weights:
        second, norm = "stem.2", "stem.3"
    else:
        return _normed_map(_patches(x, weights, "stem.0"), weights, "stem.1", rules)
    x = convolved(x, weights, "stem.0", stride=2)
    if norm == "stem.3":
        x = activate(x, rules.activation)
    return _normed_map(convolved(x, weights, second, stride=2), weights, norm, rules)


def _timm_head(x: Any, weights: Weights, rules: _Rules) -> Any:
    if "norm_pre.weight" in weights:
        return pooled(_normed_map(x, weights, "norm_pre", rules))
    if weights.under("head.norm.") or not weights.under("stages.0.blocks.0.mlp.grn."):
        last = _normed(pooled(x), weights, "head.norm", rules)
    else:  # trained as a masked autoencoder, which has no head: timm leaves the norm as it is made
        last = layers.layer_norm(pooled(x), None, None, rules.epsilon)
    if not rules.hidden:
        return last
    return activate(dense(last, *weights.dense("head.pre_logits.fc", x.shape[1])), "gelu")


def _patches(x: Any, weights: Weights, name: str) -> Any:
    """A convolution whose stride is the side of its kernel."""
    return convolved(x, weights, name, stride=weights(f"{name}.weight").shape[-1], padding=0)


def _stage(
    x: Any,
    weights: Weights,
    stage: int,
    depth: int,
    downsample: tuple[str, str],
    rules: _Rules,
    spatial: list[Spatial],
) -> Any:
    if stage > 0:
        norm, convolution = downsample
        x = _patches(_normed_map(x, weights, norm, rules), weights, convolution)
    for block in range(depth):
        x = _block(x, weights, rules.names.block.format(stage, block), rules, spatial)
    return x


def _block(x: Any, weights: Weights, at: str, rules: _Rules, spatial: list[Spatial]) -> Any:
    from openvino import opset13 as op

    names, channels, side = rules.names, x.shape[1], x.shape[2]
    y = as_tokens(convolved(x, weights, f"{at}.{names.depthwise}"))
    y = _normed(y, weights, f"{at}.{names.norm}", rules)
    y = activate(_pointwise(y, weights, f"{at}.{names.expand}"), rules.activation)
    spatial.append((True, as_map(rectified(y, rules.activation), side)))
    if names.response and weights.under(f"{at}.{names.response}."):
        y = _response_norm(y, weights, f"{at}.{names.response}")
    y = _pointwise(y, weights, f"{at}.{names.reduce}", channels)
    if f"{at}.{names.scale}" in weights:
        y = op.multiply(y, constant(weights(f"{at}.{names.scale}", channels)))
    return op.add(as_map(y, side), x)


def _pointwise(x: Any, weights: Weights, name: str, width: int = 0) -> Any:
    """A dense layer at each place; timm's is a convolution of 1 × 1 in some networks."""
    shape = weights.shape(f"{name}.weight")
    width = width or shape[0]
    kernel = weights(f"{name}.weight", width, x.shape[2], *(1 for _ in shape[2:]))
    return dense(x, kernel.reshape(width, -1), weights.get(f"{name}.bias", width))


def _response_norm(x: Any, weights: Weights, name: str) -> Any:
    """Each channel, weighted by its size beside the others'. x: (1, N, C)."""
    from openvino import opset13 as op

    shape = (*(1 for _ in weights.shape(f"{name}.weight")[1:]), x.shape[2])  # (C,) or (1, 1, 1, C)
    gain, shift = (weights(f"{name}.{part}", *shape).reshape(-1) for part in ("weight", "bias"))
    size = op.reduce_l2(x, constant([1]), True)
    beside = op.divide(size, op.add(mean(size, 2, keep=True), constant(1e-6)))
    return op.add(x, op.add(op.multiply(op.multiply(x, beside), constant(gain)), constant(shift)))


def _normed_map(x: Any, weights: Weights, name: str, rules: _Rules) -> Any:
    return as_map(_normed(as_tokens(x), weights, name, rules), x.shape[2])


def _normed(x: Any, weights: Weights, name: str, rules: _Rules) -> Any:
    """The norm over the last axis."""
    width = x.shape[-1]
    if rules.norm == "rms":
        return layers.rms_norm(x, weights(f"{name}.weight", width), rules.epsilon)
    if rules.norm == "simple":
        return _simple_norm(x, weights(f"{name}.weight", width), rules.epsilon)
    return layers.layer_norm(x, *_affine(weights, name, width), rules.epsilon)


def _simple_norm(x: Any, weight: Array, epsilon: float) -> Any:
    """x / √(var(x) + ε) · w: it scales as a layer norm does, and shifts nothing."""
    from openvino import opset13 as op

    width = x.shape[-1]
    centred = op.subtract(x, mean(x, len(x.shape) - 1, keep=True))
    squares = mean(op.multiply(centred, centred), len(x.shape) - 1, keep=True)
    variance = op.multiply(squares, constant(width / (width - 1)))  # PyTorch's, of a sample
    root = op.sqrt(op.add(variance, constant(epsilon)))
    return op.multiply(op.divide(x, root), constant(weight))


def _affine(weights: Weights, name: str, width: int) -> tuple[Array, Array]:
    return weights(f"{name}.weight", width), weights(f"{name}.bias", width)
