"""RegNet X, Y and Z, of Transformers and of timm.

Radosavovic et al. 2020, "Designing Network Design Spaces" (arXiv:2003.13678): bottlenecks that don't narrow, with
convolutions in groups; Y's squeeze and excite. V norms before it convolves; Z's blocks end without an activation
(Dollár et al. 2021, "Fast and Accurate Model Scaling", arXiv:2103.06877).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from topwork.backbones.weights.families.maps import (
    NON_NEGATIVE,
    Norm,
    Spatial,
    activation_of,
    average_pool,
    convolved,
    norm_of,
    normed,
    pooled,
    rectified,
    squeeze_excite,
    with_stages,
)
from topwork.backbones.weights.layers import Activation, activate
from topwork.backbones.weights.network import Config, Network, Weights, pixels_input


@dataclass(frozen=True, slots=True)
class _Names:
    """The names of a block's convolutions and their norms, in order, of its gate, and of its shortcut."""

    convolutions: tuple[tuple[str, str], tuple[str, str], tuple[str, str]]
    gate: tuple[str, str]
    shortcut: tuple[str, str]


TIMM = _Names(
    (("conv1.conv", "conv1.bn"), ("conv2.conv", "conv2.bn"), ("conv3.conv", "conv3.bn")),
    ("se.fc1", "se.fc2"),
    ("downsample.conv", "downsample.bn"),
)
Y = _Names(
    (
        ("layer.0.convolution", "layer.0.normalization"),
        ("layer.1.convolution", "layer.1.normalization"),
        ("layer.3.convolution", "layer.3.normalization"),
    ),
    ("layer.2.attention.0", "layer.2.attention.2"),
    ("shortcut.convolution", "shortcut.normalization"),
)
X = replace(Y, convolutions=(*Y.convolutions[:2], ("layer.2.convolution", "layer.2.normalization")))


@dataclass(frozen=True, slots=True)
class _Rules:
    """What the tensors don't tell. `linear`: Z's blocks, without an activation at the end or a convolved shortcut."""

    names: _Names
    norm: Norm
    activation: Activation
    linear: bool = False


def build_regnet(config: Config, weights: Weights, *, size_px: int) -> Network:
    """Transformers' RegNetModel: `config` is its config.json.

    Raises:
        InputError: a tensor is missing or has another shape than it should.
    """
    activation = activation_of(config, "relu")
    rules = _Rules(X if config.get("layer_type", "y") == "x" else Y, Norm(), activation)
    pixels = pixels_input(size_px)
    stem = ("embedder.embedder.convolution", "embedder.embedder.normalization")
    x = activate(convolved(pixels, weights, *stem, stride=2), activation)
    spatial: list[Spatial] = [(False, rectified(x, activation))]
    for stage, depth in enumerate(config.get("depths") or (2, 6, 12, 2)):
        for block in range(depth):
            stride = 2 if block == 0 and (stage > 0 or config.get("downsample_in_first_stage", True)) else 1
            x = _block(x, weights, f"encoder.stages.{stage}.layers.{block}", rules, stride, spatial)
    weights.skip("classifier.")
    return with_stages(pixels, pooled(x), spatial, rectified=activation in NON_NEGATIVE)


def build_timm_regnet(config: Config, weights: Weights, *, size_px: int) -> Network:
    """timm's: `config` has the facts of its table.

    Raises:
        InputError: a tensor is missing or has another shape than it should.
    """
    activation: Activation = config.get("activation", "relu")
    rules = _Rules(TIMM, norm_of(config), activation, bool(config.get("linear")))
    pixels = pixels_input(size_px)
    first_norm = weights.under("s1.b1.norm1.")  # it norms before it convolves
    spatial: list[Spatial] = []
    if first_norm:
        x = convolved(pixels, weights, "stem", stride=2)
    else:
        x = activate(convolved(pixels, weights, "stem.conv", "stem.bn", rules.norm, stride=2), activation)
        spatial.append((False, rectified(x, activation)))
    block = _block_normed_first if first_norm else _block
    for stage, depth in enumerate(config["depths"], 1):
        for i in range(1, depth + 1):
            x = block(x, weights, f"s{stage}.b{i}", rules, 2 if i == 1 else 1, spatial)
    if weights.under("final_conv."):
        x = activate(convolved(x, weights, "final_conv.conv", "final_conv.bn", rules.norm), activation)
    elif first_norm or rules.linear:
        x = activate(x, activation)
    weights.skip("head.fc.")
    return with_stages(pixels, pooled(x), spatial, rectified=activation in NON_NEGATIVE)


def _block(x: Any, weights: Weights, at: str, rules: _Rules, stride: int, spatial: list[Spatial]) -> Any:
    from openvino import opset13 as op

    def apply(z: Any, names: tuple[str, str], step: int = 1) -> Any:
        return convolved(z, weights, f"{at}.{names[0]}", f"{at}.{names[1]}", rules.norm, stride=step)

    first, second, third = rules.names.convolutions
    y = activate(apply(x, first), rules.activation)
    y = activate(apply(y, second, stride), rules.activation)
    spatial.append((True, rectified(y, rules.activation)))
    y = apply(_excited(y, weights, at, rules), third)
    alike = stride == 1 and x.shape[1] == y.shape[1]
    if weights.under(f"{at}.{rules.names.shortcut[0]}.") or not (alike or rules.linear):
        y = op.add(y, apply(x, rules.names.shortcut, stride))
    elif alike:
        y = op.add(y, x)
    return y if rules.linear else activate(y, rules.activation)


def _block_normed_first(
    x: Any, weights: Weights, at: str, rules: _Rules, stride: int, spatial: list[Spatial]
) -> Any:
    """He et al. 2016, "Identity Mappings in Deep Residual Networks" (arXiv:1603.05027)."""
    from openvino import opset13 as op

    x = activate(normed(x, weights, f"{at}.norm1", rules.norm), rules.activation)
    y = convolved(x, weights, f"{at}.conv1", f"{at}.norm2", rules.norm)
    y = convolved(activate(y, rules.activation), weights, f"{at}.conv2", stride=stride)
    y = normed(_excited(y, weights, at, rules), weights, f"{at}.norm3", rules.norm)
    y = activate(y, rules.activation)
    spatial.append((True, rectified(y, rules.activation)))
    y = convolved(y, weights, f"{at}.conv3")
    if f"{at}.downsample.1.weight" in weights:
        x = average_pool(x) if stride > 1 else x
        return op.add(y, convolved(x, weights, f"{at}.downsample.1"))
    if f"{at}.downsample.weight" in weights or stride > 1 or x.shape[1] != y.shape[1]:
        return op.add(y, convolved(x, weights, f"{at}.downsample", stride=stride))
    return op.add(y, x)


def _excited(x: Any, weights: Weights, at: str, rules: _Rules) -> Any:
    reduce, expand = (f"{at}.{name}" for name in rules.names.gate)
    if not weights.under(f"{reduce}."):
        return x
    # Transformers' gate has its own activation, ReLU; timm's the network's.
    activation = rules.activation if rules.names is TIMM else "relu"
    return squeeze_excite(x, weights, reduce, expand, activation=activation)
