"""timm's networks of inverted residuals: EfficientNet V1 and V2, MobileNet V1 to V4, MixNet, MNASNet, FBNet, LCNet …

Sandler et al. 2018, "MobileNetV2" (arXiv:1801.04381): widen, convolve each channel, narrow. Tan and Le 2019,
"EfficientNet" (arXiv:1905.11946), and 2021, "EfficientNetV2" (arXiv:2104.00298), whose first blocks widen as they
convolve; Howard et al. 2019, "MobileNetV3" (arXiv:1905.02244); Qin et al. 2024, "MobileNetV4" (arXiv:2404.10518); Tan
and Le 2019, "MixConv" (arXiv:1907.09595). A block's kind is read off the names of its tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from topwork.backbones.weights.families.attention2d import mobile_attention
from topwork.backbones.weights.families.maps import (
    NON_NEGATIVE,
    Gate,
    Norm,
    Spatial,
    convolved,
    global_context,
    norm_of,
    normed,
    pooled,
    rectified,
    squeeze_excite,
    thinned,
    with_stages,
)
from topwork.backbones.weights.layers import Activation, activate, constant, mean, part
from topwork.backbones.weights.network import Config, Network, Weights, pixels_input
from topwork.errors import InputError


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a network's tensors don't tell.

    `same`: TensorFlow's padding. `thin`: what makes less of a map, if not the stride. `reduce`: the activation in a
    gate, if not the block's. `pointwise_activation`: blocks that don't widen end with an activation, and add nothing.
    """

    norm: Norm
    activation: Activation
    same: bool
    thin: str | None
    reduce: Activation | None
    gate: Gate
    pointwise_activation: bool

    def padding(self, kernel_px: int) -> str | None:
        return "same" if self.same or kernel_px % 2 == 0 else None


@dataclass(frozen=True, slots=True)
class _Block:
    """A block being built: where its tensors are, and what holds in it."""

    weights: Weights
    at: str
    rules: _Rules
    stride: int
    spatial: list[Spatial]

    def has(self, name: str) -> bool:
        return self.weights.under(f"{self.at}.{name}.")

    def convolve(self, x: Any, name: str, norm: str, *, stride: int = 1, activated: bool = True) -> Any:
        """A convolution, its norm, and its activation; if it looks beyond a pixel, this is a stage."""
        weights, rules = self.weights, self.rules
        names, thin = (f"{self.at}.{name}", f"{self.at}.{norm}"), rules.thin if stride > 1 else None
        stride = 1 if thin else stride
        if f"{names[0]}.0.weight" in weights:
            depthwise = name == "conv_dw"
            y, kernel_px = self._mixed(x, *names, stride=stride, depthwise=depthwise), 3 * depthwise
        else:
            shape = weights(f"{names[0]}.weight").shape
            kernel_px, depthwise = shape[-1], shape[1] < x.shape[1]
            y = convolved(x, weights, *names, rules.norm, stride=stride, padding=rules.padding(kernel_px))
        if activated:
            y = activate(y, rules.activation)
            if kernel_px > 1:
                self.spatial.append((depthwise, rectified(y, rules.activation)))
        return thinned(y, thin) if thin else y

    def _mixed(self, x: Any, name: str, norm: str, *, stride: int, depthwise: bool) -> Any:
        """Kernels of several sizes, each for some of the channels."""
        from openvino import opset13 as op

        parts, i, start = [], 0, 0
        while f"{name}.{i}.weight" in self.weights:
            shape = self.weights(f"{name}.{i}.weight").shape
            stop = start + shape[0 if depthwise else 1]
            padding = self.rules.padding(shape[-1])
            taken = part(x, 1, start, min(stop, x.shape[1]))
            parts.append(convolved(taken, self.weights, f"{name}.{i}", stride=stride, padding=padding))
            start, i = stop, i + 1
        if start != x.shape[1]:
            raise InputError(
                f"{self.weights.shown}: expected the kernels of {name} to be for {x.shape[1]} channels; "
                f"they are for {start}"
            )
        return normed(op.concat(parts, 1), self.weights, norm, self.rules.norm)

    def excite(self, x: Any) -> Any:
        """The gate, if it has one."""
        if self.has("se.conv_attn"):
            return global_context(x, self.weights, f"{self.at}.se", activation=self.rules.activation)
        if not self.has("se"):
            return x
        return squeeze_excite(
            x,
            self.weights,
            f"{self.at}.se.conv_reduce",
            f"{self.at}.se.conv_expand",
            activation=self.rules.reduce or self.rules.activation,
            gate=self.rules.gate,
        )


def build_timm_efficientnet(config: Config, weights: Weights, *, size_px: int) -> Network:
    """timm's EfficientNet and MobileNetV3, and what is made of their blocks: `config` has the facts of its table.

    Raises:
        InputError: a tensor is missing or has another shape than it should.
    """
    rules = _Rules(
        norm_of(config),
        config["activation"],
        bool(config.get("same")),
        config.get("thin"),
        config.get("reduce"),
        config.get("gate", "sigmoid"),
        bool(config.get("pointwise_activation")),
    )
    pixels = pixels_input(size_px)
    spatial: list[Spatial] = []
    # Only blocks thin their maps smoothly, not what comes before and after them.
    outside = _Block(weights, "", replace(rules, thin=None), 1, spatial)
    x = _outer(outside, pixels, "conv_stem", "bn1", stride=2)
    activations = config.get("activations")
    apart = {tuple(where) for where in config.get("no_skip", ())}
    for stage, (depth, stride) in enumerate(zip(config["depths"], config["strides"], strict=True)):
        of_stage = replace(rules, activation=activations[stage]) if activations else rules
        for i in range(depth):
            step = 1 if i else int(stride)
            block = _Block(weights, f"blocks.{stage}.{i}", of_stage, step, spatial)
            x = _block(block, x, adds=(stage, i) not in apart)
    weights.skip("classifier.")
    last, head = _head(outside, x)
    return with_stages(pixels, last, spatial, rectified=head and rules.activation in NON_NEGATIVE)


def _outer(block: _Block, x: Any, name: str, norm: str, *, stride: int = 1) -> Any:
    """A convolution outside the blocks, its norm, and the network's activation."""
    weights, rules = block.weights, block.rules
    padding = rules.padding(weights(f"{name}.weight").shape[-1])
    y = activate(
        convolved(x, weights, name, norm, rules.norm, stride=stride, padding=padding), rules.activation
    )
    if stride > 1:
        block.spatial.append((False, rectified(y, rules.activation)))
    return y


def _head(outside: _Block, x: Any) -> tuple[Any, bool]:
    """The features, and whether a convolution with an activation made them."""
    weights = outside.weights
    if not weights.under("conv_head."):
        return pooled(x), False
    if weights.under("bn2."):  # EfficientNet: then the mean
        return pooled(_outer(outside, x, "conv_head", "bn2")), True
    means = mean(x, 2, 3, keep=True)  # MobileNetV3 and V4: the mean first
    if weights.under("norm_head."):
        return pooled(_outer(outside, means, "conv_head", "norm_head")), True
    return pooled(activate(convolved(means, weights, "conv_head"), outside.rules.activation)), True


def _block(block: _Block, x: Any, *, adds: bool) -> Any:
    from openvino import opset13 as op

    if block.has("attn"):
        y = mobile_attention(x, block.weights, block.at, block.rules.norm)
    elif block.has("pw_exp"):
        y = _universal(block, x)
    elif block.has("conv_exp"):
        y = block.convolve(x, "conv_exp", "bn1", stride=block.stride)
        y = block.convolve(block.excite(y), "conv_pwl", "bn2", activated=False)
    elif block.has("conv_pwl"):
        y = _inverted(block, x)
    elif block.has("conv_dw"):
        y = _separable(block, x)
        adds = adds and not block.rules.pointwise_activation
    elif block.has("conv"):
        y = block.convolve(x, "conv", "bn1", stride=block.stride)
    else:
        raise InputError(f"{block.weights.shown}: expected the tensors of a block {block.at}; there are none")
    if f"{block.at}.layer_scale.gamma" in block.weights:
        gamma = block.weights(f"{block.at}.layer_scale.gamma", y.shape[1])
        y = op.multiply(y, constant(gamma.reshape(1, -1, 1, 1)))
    return op.add(y, x) if adds and block.stride == 1 and tuple(x.shape) == tuple(y.shape) else y


def _inverted(block: _Block, x: Any) -> Any:
    """Widen, convolve each channel, weigh the channels, narrow."""
    y = block.convolve(_space_to_depth(block, x), "conv_pw", "bn1")
    y = block.convolve(y, "conv_dw", "bn2", stride=block.stride)
    return block.convolve(block.excite(y), "conv_pwl", "bn3", activated=False)


def _separable(block: _Block, x: Any) -> Any:
    """Convolve each channel, weigh the channels, mix them (Howard et al. 2017, arXiv:1704.04861)."""
    y = block.convolve(_space_to_depth(block, x), "conv_dw", "bn1", stride=block.stride)
    return block.convolve(block.excite(y), "conv_pw", "bn2", activated=block.rules.pointwise_activation)


def _space_to_depth(block: _Block, x: Any) -> Any:
    """EfficientNet-X: four places become one of more channels (Li et al. 2021, arXiv:2102.05610)."""
    if not block.has("conv_s2d"):
        return x
    y = convolved(
        x,
        block.weights,
        f"{block.at}.conv_s2d",
        f"{block.at}.bn_s2d",
        block.rules.norm,
        stride=2,
        padding="same",
    )
    return activate(y, block.rules.activation)


def _universal(block: _Block, x: Any) -> Any:
    """MobileNetV4's: channels may be convolved before they are widened, between, and after they are narrowed."""
    start, middle = block.has("dw_start"), block.has("dw_mid")
    y, stride = x, block.stride
    if start:
        step = 1 if middle else stride
        y = block.convolve(y, "dw_start.conv", "dw_start.bn", stride=step, activated=False)
    y = block.convolve(y, "pw_exp.conv", "pw_exp.bn")
    if middle:
        y = block.convolve(y, "dw_mid.conv", "dw_mid.bn", stride=stride)
    y = block.convolve(block.excite(y), "pw_proj.conv", "pw_proj.bn", activated=False)
    if block.has("dw_end"):
        step = 1 if start or middle else stride
        y = block.convolve(y, "dw_end.conv", "dw_end.bn", stride=step, activated=False)
    return y
