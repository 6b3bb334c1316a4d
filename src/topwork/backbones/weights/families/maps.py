"""What convolutional networks do with maps (1, C, H, W) beyond `layers`: norms, gates, pools, and their stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from topwork.backbones.weights import layers
from topwork.backbones.weights.layers import Activation, constant, convolve, mean, reshape
from topwork.backbones.weights.network import Array, Config, Network, Weights, network
from topwork.errors import InputError
from topwork.graphs.trunk import LAST, MOST_STAGES

Gate = Literal["sigmoid", "hard_sigmoid"]
Spatial = tuple[bool, Any]  # whether a convolution has groups; the activation after it, not negative
NON_NEGATIVE = ("relu", "relu6")
ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu", "relu6": "relu6", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu", "silu": "silu", "swish": "silu", "hardswish": "hard_swish", "tanh": "tanh",
    "linear": "identity",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Norm:
    """The norm after a convolution.

    `kind`: "batch", with stored statistics (arXiv:1502.03167); "group" (arXiv:1803.08494), of `groups` groups or of
    groups of `width` channels; "layer", over the channels of each place.
    """

    epsilon: float = 1e-5
    kind: Literal["batch", "group", "layer"] = "batch"
    groups: int = 0
    width: int = 0


BATCH_NORM = Norm()


def norm_of(facts: Config) -> Norm:
    """The norm that a line of the table of timm's architectures tells of."""
    return Norm(
        epsilon=facts.get("epsilon", 1e-5),
        kind=facts.get("norm", "batch"),
        groups=facts.get("groups", 0),
        width=facts.get("group_width", 0),
    )


def activation_of(config: Config, default: str) -> Activation:
    """The activation that a config.json of Transformers names.

    Raises:
        InputError: there is none of this name.
    """
    named = config.get("hidden_act", default)
    if named not in ACTIVATIONS:
        raise InputError(
            f"config.json: expected hidden_act to be one of {', '.join(ACTIVATIONS)}; got {named!r}"
        )
    return ACTIVATIONS[named]


def symmetric(kernel_px: int, stride: int = 1, dilation: int = 1) -> int:
    """Zeros on each side, so that a map of even side is divided by the stride."""
    return (stride - 1 + dilation * (kernel_px - 1)) // 2


def kernel_of(x: Any, weights: Weights, name: str) -> Array:
    """The kernel (out, in / groups, k, k) of a convolution of x.

    Raises:
        InputError: there is none, or it doesn't fit the channels of x.
    """
    kernel, channels = weights(f"{name}.weight"), x.shape[1]
    fits = kernel.ndim == 4 and kernel.shape[2] == kernel.shape[3] and channels % kernel.shape[1] == 0
    if not fits or kernel.shape[0] % (channels // kernel.shape[1]):
        raise InputError(
            f"{weights.shown}: expected {name}.weight to be a kernel for {channels} channels; "
            f"it is {list(kernel.shape)}"
        )
    return kernel


def convolved(
    x: Any,
    weights: Weights,
    name: str,
    norm_name: str | None = None,
    norm: Norm = BATCH_NORM,
    *,
    stride: int = 1,
    padding: int | str | None = None,
) -> Any:
    """A convolution of x and the norm after it. `padding`: symmetric unless told."""
    kernel = kernel_of(x, weights, name)
    padding = symmetric(kernel.shape[-1], stride) if padding is None else padding
    if norm_name is None:
        return convolve(x, kernel, weights.get(f"{name}.bias", len(kernel)), stride=stride, padding=padding)
    if norm.kind == "batch":
        weights.get(f"{name}.bias", len(kernel))
        for part in ("weight", "bias", "running_mean", "running_var"):
            weights(f"{norm_name}.{part}", len(kernel))
        return layers.convolve_norm(
            x, weights, name, norm_name, epsilon=norm.epsilon, stride=stride, padding=padding
        )
    y = convolve(x, kernel, weights.get(f"{name}.bias", len(kernel)), stride=stride, padding=padding)
    return normed(y, weights, norm_name, norm)


def normed(x: Any, weights: Weights, name: str, norm: Norm) -> Any:
    """A norm that doesn't follow a convolution at once."""
    from openvino import opset13 as op

    channels, side = x.shape[1:3]
    gain, shift = weights(f"{name}.weight", channels), weights(f"{name}.bias", channels)
    if norm.kind == "layer":
        return as_map(layers.layer_norm(as_tokens(x), gain, shift, norm.epsilon), side)
    if norm.kind == "group":
        groups = norm.groups or channels // norm.width
        rows = reshape(x, (1, groups, channels // groups * side * side))
        x = reshape(layers.layer_norm(rows, None, None, norm.epsilon), (1, channels, side, side))
    else:
        for part in ("running_mean", "running_var"):
            weights(f"{name}.{part}", channels)
        gain, shift = layers.norm_gain(weights, name, norm.epsilon)
    gain, shift = gain.reshape(1, -1, 1, 1), shift.reshape(1, -1, 1, 1)
    return op.add(op.multiply(x, constant(gain)), constant(shift))


def as_tokens(x: Any) -> Any:
    """(1, C, H, W) → (1, H·W, C)."""
    _, channels, height, width = x.shape
    return layers.transpose(reshape(x, (1, channels, height * width)), (0, 2, 1))


def as_map(x: Any, side: int) -> Any:
    """(1, H·H, C) → (1, C, H, H)."""
    return reshape(layers.transpose(x, (0, 2, 1)), (1, x.shape[2], side, side))


def squeeze_excite(
    x: Any,
    weights: Weights,
    reduce: str,
    expand: str,
    *,
    activation: Activation = "relu",
    gate: Gate = "sigmoid",
) -> Any:
    """Each channel, weighted by what the means of all say. Hu et al. 2018 (arXiv:1709.01507)."""
    squeezed = convolved(mean(x, 2, 3, keep=True), weights, reduce)
    return _gated(x, convolved(layers.activate(squeezed, activation), weights, expand), gate)


def channel_attention(x: Any, weights: Weights, name: str) -> Any:
    """Each channel, weighted by what its mean and its neighbours' say. Wang et al. 2020 (arXiv:1910.03151)."""
    from openvino import opset13 as op

    kernel, channels = weights(f"{name}.weight"), x.shape[1]  # (1, 1, k)
    if kernel.ndim != 3 or kernel.shape[:2] != (1, 1):
        raise InputError(f"{weights.shown}: expected {name}.weight (1, 1, k); it is {list(kernel.shape)}")
    half = [kernel.shape[2] // 2]
    means = reshape(x=mean(x, 2, 3), shape=(1, 1, channels))
    score = op.convolution(means, constant(kernel), [1], half, half, [1])
    return _gated(x, reshape(score, (1, channels, 1, 1)), "sigmoid")


def global_context(
    x: Any, weights: Weights, name: str, *, activation: Activation = "relu", gate: Gate = "sigmoid"
) -> Any:
    """Each channel, weighted by what all say at the places attended to. Cao et al. 2019 (arXiv:1904.11492)."""
    from openvino import opset13 as op

    places = x.shape[2] * x.shape[3]
    scores = reshape(convolved(x, weights, f"{name}.conv_attn"), (1, 1, places))
    context = op.matmul(op.softmax(scores, -1), as_tokens(x), False, False)  # (1, 1, C)
    y = convolved(as_map(context, 1), weights, f"{name}.mlp_scale.fc1")
    y = normed(y, weights, f"{name}.mlp_scale.norm", Norm(1e-6, "layer"))
    return _gated(x, convolved(layers.activate(y, activation), weights, f"{name}.mlp_scale.fc2"), gate)


def _gated(x: Any, score: Any, gate: Gate) -> Any:
    from openvino import opset13 as op

    return op.multiply(x, op.hsigmoid(score) if gate == "hard_sigmoid" else op.sigmoid(score))


def max_pool(x: Any) -> Any:
    """The maximum of 3 × 3, at every other place."""
    from openvino import opset13 as op

    return op.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3]).output(0)


def max_blur_pool(x: Any, blur: str) -> Any:
    """The maximum of 3 × 3, at each place, and then less of them, smoothly."""
    from openvino import opset13 as op

    return thinned(op.max_pool(x, [1, 1], [1, 1], [1, 1], [1, 1], [3, 3]).output(0), blur)


def average_pool(x: Any, side: int = 2) -> Any:
    """The mean of 2 × 2; at an odd edge, of those that there are."""
    from openvino import opset13 as op

    return op.avg_pool(x, [side, side], [0, 0], [0, 0], [side, side], True, "ceil")


def thinned(x: Any, kind: str) -> Any:
    """Every other place, smoothed: "avg" of 2 × 2, an odd edge left out; or "blur" of 3 × 3 (arXiv:1904.11486).

    Beyond the edge, "blur" takes a mirrored map, "blur_zero" zeros.
    """
    from openvino import opset13 as op

    if kind == "avg":
        return op.avg_pool(x, [2, 2], [0, 0], [0, 0], [2, 2], True, "floor")
    binomial = np.array([0.25, 0.5, 0.25], np.float32)
    kernel = np.broadcast_to(np.outer(binomial, binomial), (x.shape[1], 1, 3, 3))
    if kind == "blur_zero":
        return convolve(x, kernel, stride=2, padding=1)
    ends = constant(np.array([0, 0, 1, 1]))
    return convolve(op.pad(x, ends, ends, "reflect"), kernel, stride=2)


def pooled(x: Any) -> Any:
    """(1, C, H, W) → (1, C)."""
    return mean(x, 2, 3)


def rectified(x: Any, activation: Activation) -> Any:
    """x, the output of an activation, or what of it is positive."""
    from openvino import opset13 as op

    return x if activation in NON_NEGATIVE else op.relu(x)


def with_stages(pixels: Any, last: Any, spatial: Sequence[Spatial], *, rectified: bool) -> Network:
    """The network, its stages chosen as `graphs/trunk.py` does: after convolutions with groups, if there are any."""
    stages = [node for grouped, node in spatial if grouped] or [node for _, node in spatial]
    if len(stages) > MOST_STAGES:
        stages = [stages[i] for i in np.linspace(0, len(stages) - 1, MOST_STAGES).round().astype(int)]
    outputs = {f"stage{i}": node for i, node in enumerate(stages, 1)}
    return network(pixels, outputs | {LAST: last}, stages=tuple(outputs), rectified=rectified)
