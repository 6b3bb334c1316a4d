"""ResNet and its kin, of Transformers and of timm: ResNeXt, Wide, SE-, ECA-, anti-aliased, and ResNet-RS.

He et al. 2016, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385). What followed: groups
(arXiv:1611.05431), squeeze and excitation (arXiv:1709.01507), stems of three convolutions and shortcuts that average
(arXiv:1812.01187), pools that blur (arXiv:1904.11486), attention to channels (arXiv:1910.03151).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from topwork.backbones.weights.families.maps import (
    BATCH_NORM,
    NON_NEGATIVE,
    Norm,
    Spatial,
    activation_of,
    average_pool,
    channel_attention,
    convolved,
    max_blur_pool,
    max_pool,
    norm_of,
    pooled,
    rectified,
    squeeze_excite,
    thinned,
    with_stages,
)
from topwork.backbones.weights.layers import Activation, activate
from topwork.backbones.weights.network import Config, Network, Weights, pixels_input


@dataclass(frozen=True, slots=True)
class Residual:
    """What a library calls the parts of a block, and what its tensors don't tell.

    `convolution`: the name of the n-th, and of its norm, n from `first` on. `shortcut`: its convolution and norm.
    `inside`: the activation in the block; `activation`: after it. `thin`: what makes less of a map, if not the
    stride; "avg" or "blur".
    """

    convolution: tuple[str, str]
    first: int
    shortcut: tuple[str, str]
    norm: Norm = BATCH_NORM
    inside: Activation = "relu"
    activation: Activation = "relu"
    thin: str | None = None
    stride_first: bool = False  # the stride is the first convolution's, not the 3 × 3's


def build_resnet(config: Config, weights: Weights, *, size_px: int) -> Network:
    """Transformers' ResNetModel: `config` is its config.json.

    Raises:
        InputError: a tensor is missing or has another shape than it should.
    """
    activation = activation_of(config, "relu")
    basic = config.get("layer_type", "bottleneck") == "basic"
    rules = Residual(
        ("layer.{}.convolution", "layer.{}.normalization"),
        0,
        ("shortcut.convolution", "shortcut.normalization"),
        # The library leaves a basic block's first activation as it is, whatever the configuration says.
        inside="relu",
        activation=activation,
        stride_first=bool(config.get("downsample_in_bottleneck")) and not basic,
    )
    pixels = pixels_input(size_px)
    stem = ("embedder.embedder.convolution", "embedder.embedder.normalization")
    x = activate(convolved(pixels, weights, *stem, stride=2), activation)
    spatial: list[Spatial] = [(False, rectified(x, activation))]
    x = max_pool(x)
    for stage, depth in enumerate(config.get("depths") or (3, 4, 6, 3)):
        for block in range(depth):
            stride = 2 if block == 0 and (stage > 0 or config.get("downsample_in_first_stage")) else 1
            at = f"encoder.stages.{stage}.layers.{block}"
            x = residual(x, weights, at, rules, stride, spatial)
    weights.skip("classifier.")
    return with_stages(pixels, pooled(x), spatial, rectified=activation in NON_NEGATIVE)


def build_timm_resnet(config: Config, weights: Weights, *, size_px: int) -> Network:
    """timm's: `config` has the facts of its table.

    Raises:
        InputError: a tensor is missing or has another shape than it should.
    """
    activation, norm, thin = config.get("activation", "relu"), norm_of(config), config.get("thin")
    averaged = weights.under("layer2.0.downsample.2.")
    rules = Residual(
        ("conv{}", "bn{}"),
        1,
        ("downsample.1", "downsample.2") if averaged else ("downsample.0", "downsample.1"),
        norm,
        activation,
        activation,
        thin,
    )
    pixels = pixels_input(size_px)
    spatial: list[Spatial] = []
    x = _timm_stem(pixels, weights, rules, spatial)
    for stage, depth in enumerate(config["depths"], 1):
        for block in range(depth):
            stride = 2 if block == 0 and stage > 1 else 1
            x = residual(x, weights, f"layer{stage}.{block}", rules, stride, spatial)
    weights.skip("fc.")
    return with_stages(pixels, pooled(x), spatial, rectified=activation in NON_NEGATIVE)


def _timm_stem(x: Any, weights: Weights, rules: Residual, spatial: list[Spatial]) -> Any:
    """A convolution of 7 × 7, or three of 3 × 3; then a pool, or a fourth convolution."""
    if "conv1.weight" in weights:
        x = activate(convolved(x, weights, "conv1", "bn1", rules.norm, stride=2), rules.activation)
        spatial.append((False, rectified(x, rules.activation)))
    else:
        names = (("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1"))
        for i, (name, norm_name) in enumerate(names):
            x = convolved(x, weights, name, norm_name, rules.norm, stride=1 if i else 2)
            x = activate(x, rules.activation)
            spatial.append((False, rectified(x, rules.activation)))
    if not weights.under("maxpool."):
        if rules.thin == "avg":
            return thinned(x, "avg")
        return max_pool(x) if rules.thin is None else max_blur_pool(x, rules.thin)
    x = activate(convolved(x, weights, "maxpool.0", "maxpool.1", rules.norm, stride=2), rules.activation)
    spatial.append((False, rectified(x, rules.activation)))
    return x


def residual(x: Any, weights: Weights, at: str, rules: Residual, stride: int, spatial: list[Spatial]) -> Any:
    """Two convolutions of 3 × 3, or one between two of 1 × 1; what came in is added to what they make."""
    from openvino import opset13 as op

    y, count = x, 3 if weights.under(f"{at}.{rules.convolution[0].format(rules.first + 2)}.") else 2
    for i in range(count):
        name, norm_name = (f"{at}.{name.format(rules.first + i)}" for name in rules.convolution)
        kernel = weights(f"{name}.weight")
        where = 0 if rules.stride_first or count == 2 else 1
        step = stride if i == where else 1
        thin = rules.thin if step > 1 else None
        grouped = kernel.shape[1] < y.shape[1]
        y = convolved(y, weights, name, norm_name, rules.norm, stride=1 if thin else step)
        if i + 1 == count:
            break
        y = activate(y, rules.inside)
        if kernel.shape[-1] > 1:
            spatial.append((grouped, rectified(y, rules.inside)))
        y = thinned(y, thin) if thin else y
    if weights.under(f"{at}.se.fc1."):
        y = squeeze_excite(y, weights, f"{at}.se.fc1", f"{at}.se.fc2")
    elif weights.under(f"{at}.se.conv."):
        y = channel_attention(y, weights, f"{at}.se.conv")
    return activate(op.add(y, _shortcut(x, weights, at, rules, stride, y)), rules.activation)


def _shortcut(x: Any, weights: Weights, at: str, rules: Residual, stride: int, y: Any) -> Any:
    name, norm_name = (f"{at}.{name}" for name in rules.shortcut)
    if stride == 1 and x.shape[1] == y.shape[1] and not weights.under(f"{name}."):
        return x
    if rules.shortcut[0] == "downsample.1" and stride > 1:  # the mean of 2 × 2, then a convolution of 1 × 1
        x, stride = average_pool(x), 1
    return convolved(x, weights, name, norm_name, rules.norm, stride=stride)
