"""The layers of today's networks as OpenVINO operators: (1, C, H, W) maps and (1, N, D) tokens, float32.

Each follows PyTorch's layer of the same name (https://docs.pytorch.org/docs/stable/nn.html), in evaluation mode.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Activation = Literal[
    "relu", "relu6", "gelu", "gelu_tanh", "quick_gelu", "silu", "hard_swish", "tanh", "identity"
]


def constant(value: Any) -> Any:
    from openvino import opset13 as op

    value = np.asarray(value)
    return op.constant(np.array(value, np.float32 if value.dtype.kind == "f" else np.int64, order="C"))


def dense(x: Any, weight: Array, bias: Array | None = None) -> Any:
    """x Wᵀ + b, with W (out, in)."""
    from openvino import opset13 as op

    y = op.matmul(x, constant(weight), False, True)
    return y if bias is None else op.add(y, constant(bias))


def convolve(
    x: Any,
    kernel: Array,
    bias: Array | None = None,
    *,
    stride: int = 1,
    padding: int | str = 0,
    dilation: int = 1,
) -> Any:
    """Convolution, the kernel (out, in / groups, k, k). `padding`: zeros on each side, or "same" as in TensorFlow."""
    from openvino import opset13 as op

    groups = x.shape[1] // kernel.shape[1]
    auto = "same_upper" if padding == "same" else "explicit"
    pads = [0, 0] if isinstance(padding, str) else [padding, padding]
    where = [stride, stride], pads, pads, [dilation, dilation]
    if groups == 1:
        y = op.convolution(x, constant(kernel), *where, auto_pad=auto)
    else:
        grouped = kernel.reshape(groups, kernel.shape[0] // groups, *kernel.shape[1:])
        y = op.group_convolution(x, constant(grouped), *where, auto_pad=auto)
    return y if bias is None else op.add(y, constant(bias.reshape(1, -1, 1, 1)))


def layer_norm(x: Any, weight: Array | None, bias: Array | None, epsilon: float) -> Any:
    """Over the last axis. Ba, Kiros and Hinton 2016, "Layer Normalization" (arXiv:1607.06450)."""
    from openvino import opset13 as op

    x = op.mvn(x, constant(np.array([-1])), True, float(epsilon), "inside_sqrt")
    if weight is not None:
        x = op.multiply(x, constant(weight))
    return x if bias is None else op.add(x, constant(bias))


def activate(x: Any, kind: Activation) -> Any:
    from openvino import opset13 as op

    if kind in ("gelu", "gelu_tanh"):
        return op.gelu(x, "tanh" if kind == "gelu_tanh" else "erf")
    if kind == "quick_gelu":  # x · sigmoid(1.702 x)
        return op.swish(x, constant(np.float32(1.702)))
    if kind == "relu6":
        return op.clamp(x, 0.0, 6.0)
    if kind == "identity":
        return x
    return {"relu": op.relu, "silu": op.swish, "hard_swish": op.hswish, "tanh": op.tanh}[kind](x)


def attend(q: Any, k: Any, v: Any, *, scale: float, bias: Array | None = None) -> Any:
    """softmax(scale · q kᵀ + bias) v, with q (1, heads, M, d), k and v (1, heads, N, d).

    `bias`: (1, heads, M, N), or (windows, heads, M, N) where the first axis of q holds the windows of each picture.

    Vaswani et al. 2017, "Attention Is All You Need" (arXiv:1706.03762).
    """
    from openvino import opset13 as op

    scores = op.matmul(op.multiply(q, constant(np.float32(scale))), k, False, True)
    if bias is not None and len(bias) > 1:
        shape = tuple(scores.shape)
        apart = op.add(reshape(scores, (1, len(bias), *shape[1:])), constant(bias[None]))
        scores = reshape(apart, shape)
    elif bias is not None:
        scores = op.add(scores, constant(bias))
    return op.matmul(op.softmax(scores, -1), v, False, False)


def split_heads(x: Any, heads: int) -> Any:
    """(B, N, D) → (B, heads, N, D / heads)."""
    batch, count, width = x.shape
    return transpose(reshape(x, (batch, count, heads, width // heads)), (0, 2, 1, 3))


def join_heads(x: Any) -> Any:
    """(B, heads, N, d) → (B, N, heads · d)."""
    batch, heads, count, width = x.shape
    return reshape(transpose(x, (0, 2, 1, 3)), (batch, count, heads * width))


def reshape(x: Any, shape: tuple[int, ...]) -> Any:
    """The first axis is what the others leave: several pictures go through a graph that was built for one."""
    from openvino import opset13 as op

    return op.reshape(x, constant(np.array((-1, *shape[1:]))), False)


def transpose(x: Any, order: tuple[int, ...]) -> Any:
    from openvino import opset13 as op

    return op.transpose(x, constant(np.array(order)))


def part(x: Any, axis: int, start: int, stop: int) -> Any:
    """x[…, start:stop, …] along `axis`."""
    from openvino import opset13 as op

    begin, end, step, along = (constant(np.array([n])) for n in (start, stop, 1, axis))
    return op.slice(x, begin, end, step, along)


def mean(x: Any, *axes: int, keep: bool = False) -> Any:
    from openvino import opset13 as op

    return op.reduce_mean(x, constant(np.array(axes)), keep)


def norm_gain(weights: Any, name: str, epsilon: float) -> tuple[Array, Array]:
    """A batch norm's scale and shift: g/√(σ² + ε) and b − μ·g/√(σ² + ε)."""
    gain = weights(f"{name}.weight") / np.sqrt(weights(f"{name}.running_var") + np.float32(epsilon))
    weights.skip(f"{name}.num_batches_tracked")
    return gain, weights(f"{name}.bias") - weights(f"{name}.running_mean") * gain


def convolve_norm(
    x: Any,
    weights: Any,
    name: str,
    norm: str,
    *,
    epsilon: float = 1e-5,
    stride: int = 1,
    padding: int | str = 0,
    dilation: int = 1,
) -> Any:
    """A convolution and the batch norm that follows it, in one: the norm's scale is folded into the kernel."""
    gain, shift = norm_gain(weights, norm, epsilon)
    kernel = weights(f"{name}.weight")
    bias = weights.get(f"{name}.bias")
    shift = shift if bias is None else shift + bias * gain
    folded = kernel * gain.reshape(-1, *[1] * (kernel.ndim - 1))
    return convolve(x, folded, shift, stride=stride, padding=padding, dilation=dilation)


def rms_norm(x: Any, weight: Array, epsilon: float) -> Any:
    """x / √(mean(x²) + ε) · w, over the last axis. Zhang and Sennrich 2019 (arXiv:1910.07467)."""
    from openvino import opset13 as op

    squares = mean(op.multiply(x, x), len(x.shape) - 1, keep=True)
    root = op.sqrt(op.add(squares, constant(np.float32(epsilon))))
    return op.multiply(op.divide(x, root), constant(weight))
