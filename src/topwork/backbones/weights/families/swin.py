"""Swin transformers: attention inside windows, which are shifted in every second block.

Liu et al. 2021, "Swin Transformer" (arXiv:2103.14030), by the names of Transformers and of timm. Depths, widths and
the windows' size are read off the tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from topwork.backbones.weights import layers
from topwork.backbones.weights.families.vit import found
from topwork.backbones.weights.layers import (
    Activation,
    attend,
    constant,
    dense,
    layer_norm,
    mean,
    split_heads,
)
from topwork.backbones.weights.network import Array, Network, Weights, network, pixels_input
from topwork.errors import InputError

PATCH = ("embeddings.patch_embeddings.projection", "patch_embed.proj")
PATCH_NORM = ("embeddings.norm", "patch_embed.norm")
STAGES = ("encoder.layers.{}.", "layers.{}.")
NORM_LAST = ("layernorm", "norm")
BLOCK = {
    "norm1": ("layernorm_before", "norm1"),
    "norm2": ("layernorm_after", "norm2"),
    "q": ("attention.self.query",),
    "k": ("attention.self.key",),
    "v": ("attention.self.value",),
    "qkv": ("attn.qkv",),
    "bias": ("attention.self.relative_position_bias_table", "attn.relative_position_bias_table"),
    "proj": ("attention.output.dense", "attn.proj"),
    "fc1": ("intermediate.dense", "mlp.fc1"),
    "fc2": ("output.dense", "mlp.fc2"),
}
# What can be computed again, as the libraries do, and classifiers.
SKIPPED = ("classifier.", "head.", "embeddings.mask_token", "pooler.")
APART = np.float32(-100)  # added where two patches of a shifted window are no neighbours in the picture


@dataclass(frozen=True, slots=True)
class Swin:
    """What the shapes of the tensors don't say; `heads` of each stage."""

    heads: tuple[int, ...]
    epsilon: float
    activation: Activation


def build_swin(swin: Swin, weights: Weights, *, size_px: int) -> Network:
    """The graph; `last` is the mean of the last tokens, normalised, as both libraries have it.

    Raises:
        InputError: a tensor is missing or misshapen, or the windows don't fit in a picture of this size.
    """
    pixels = pixels_input(size_px)
    name = found(weights, PATCH)
    below = next((one for one in STAGES if weights.under(one.format(0))), None)
    if name is None or below is None:
        raise InputError(
            f"{weights.shown}: expected the tensors of a Swin transformer; it has no patch embedding"
        )
    shape = weights.shape(f"{name}.weight")
    width, patch = (shape[0], shape[-1]) if shape else (0, 0)
    kernel = weights(f"{name}.weight", width, 3, patch, patch)
    if size_px % patch:
        raise InputError(
            f"{weights.shown}: it takes pictures in patches of {patch} px; {size_px} px is no multiple of it: "
            "--size a multiple of 32"
        )
    x = layers.convolve(pixels, kernel, weights.get(f"{name}.bias", width), stride=patch)
    x = layers.transpose(x, (0, 2, 3, 1))  # (1, H, W, C), as it stays
    x = _norm(weights, found(weights, PATCH_NORM), x, swin.epsilon)
    stages: dict[str, Any] = {}
    for number, heads in enumerate(swin.heads):
        at = below.format(number)
        if at.startswith("layers."):  # timm: first halved, then the blocks
            x = _halved(weights, f"{at}downsample", x, swin.epsilon)
        for block in range(_count(weights, f"{at}blocks.")):
            x = _block(swin, weights, f"{at}blocks.{block}.", x, heads, shifted=bool(block % 2))
            stages[f"stage{len(stages) + 1}"] = mean(x, 1, 2)
        if at.startswith("encoder."):
            x = _halved(weights, f"{at}downsample", x, swin.epsilon)
    last = mean(_norm(weights, found(weights, NORM_LAST), x, swin.epsilon), 1, 2)
    weights.skip(*SKIPPED)
    weights.skip(*(n for n in weights.left() if n.endswith(("relative_position_index", "attn_mask"))))
    outputs = stages | {"last": last}
    return network(pixels, outputs, stages=tuple(stages), signed=True, pooled="the mean of its patches")


def _count(weights: Weights, below: str) -> int:
    count = 0
    while weights.under(f"{below}{count}."):
        count += 1
    return count


def _norm(weights: Weights, name: str | None, x: Any, epsilon: float) -> Any:
    if name is None:
        return x
    width = list(x.shape)[-1]
    return layer_norm(x, weights(f"{name}.weight", width), weights(f"{name}.bias", width), epsilon)


def _halved(weights: Weights, name: str, x: Any, epsilon: float) -> Any:
    """Four neighbours side by side, columns before rows, normalised and projected; if there is such a layer."""
    if f"{name}.reduction.weight" not in weights:
        return x
    _, height, width, channels = x.shape
    if height % 2 or width % 2:
        raise InputError(
            f"{weights.shown}: a map of {height} x {width} can't be halved; --size a multiple of 32"
        )
    x = layers.reshape(x, (1, height // 2, 2, width // 2, 2, channels))
    x = layers.reshape(layers.transpose(x, (0, 1, 3, 4, 2, 5)), (1, height // 2, width // 2, 4 * channels))
    return dense(
        _norm(weights, f"{name}.norm", x, epsilon), *weights.dense(f"{name}.reduction", 4 * channels)
    )


def _block(swin: Swin, weights: Weights, below: str, x: Any, heads: int, *, shifted: bool) -> Any:
    from openvino import opset13 as op

    def name(part: str) -> str:
        return found(weights, BLOCK[part], below=below) or below + BLOCK[part][0]

    y = _norm(weights, name("norm1"), x, swin.epsilon)
    x = op.add(x, _windows(weights, below, y, heads, shifted=shifted))
    y = _norm(weights, name("norm2"), x, swin.epsilon)
    width = x.shape[3]
    y = layers.activate(dense(y, *weights.dense(name("fc1"), width)), swin.activation)
    return op.add(x, dense(y, *weights.dense(name("fc2"), y.shape[3], width)))


def _windows(weights: Weights, below: str, x: Any, heads: int, *, shifted: bool) -> Any:
    """Attention among the patches of each window, x (1, H, W, C)."""
    table_name = found(weights, BLOCK["bias"], "", below=below) or below + BLOCK["bias"][0]
    window = (math.isqrt(next(iter(weights.shape(table_name)), 0)) + 1) // 2
    table = weights(table_name, (2 * window - 1) ** 2, heads)
    _, height, width, channels = x.shape
    if heads < 1 or channels % heads:
        raise InputError(
            f"{weights.shown}: expected its width to be a multiple of its heads; it has {heads} heads and a width of "
            f"{channels}"
        )
    if height % window or width % window:
        raise InputError(
            f"{weights.shown}: its windows of {window} patches don't fit in a map of {height} x {width}; "
            "leave --size out, or take a multiple of its own size"
        )
    down, across = height // window, width // window
    shift = window // 2 if shifted and height > window else 0
    if shift:
        x = _rolled(x, -shift)
    x = layers.reshape(x, (1, down, window, across, window, channels))
    x = layers.reshape(layers.transpose(x, (0, 1, 3, 2, 4, 5)), (down * across, window * window, channels))
    q, k, v = (split_heads(y, heads) for y in _queries_keys_values(weights, below, x))
    bias = table[_relative(window)].transpose(2, 0, 1)[None]  # (1, heads, w², w²)
    if shift:
        bias = bias + _mask(height, width, window, shift)[:, None]
    y = layers.join_heads(attend(q, k, v, scale=q.shape[3] ** -0.5, bias=bias))
    proj = found(weights, BLOCK["proj"], below=below) or below + BLOCK["proj"][0]
    y = dense(y, *weights.dense(proj, channels, channels))
    y = layers.reshape(y, (1, down, across, window, window, channels))
    y = layers.reshape(layers.transpose(y, (0, 1, 3, 2, 4, 5)), (1, height, width, channels))
    return _rolled(y, shift) if shift else y


def _queries_keys_values(weights: Weights, below: str, x: Any) -> list[Any]:
    fused, width = found(weights, BLOCK["qkv"], below=below), x.shape[2]
    if fused is None:
        names = (below + BLOCK[part][0] for part in ("q", "k", "v"))
        return [dense(x, *weights.dense(name, width, width)) for name in names]
    kernel, bias = weights.dense(fused, width, 3 * width)
    kernels = kernel.reshape(3, width, width)
    biases = [None] * 3 if bias is None else list(bias.reshape(3, -1))
    return [dense(x, *both) for both in zip(kernels, biases, strict=True)]


def _rolled(x: Any, by: int) -> Any:
    """x (1, H, W, C) rolled by so many rows and columns: a gather, which every format has."""
    from openvino import opset13 as op

    for axis in (1, 2):
        order = np.roll(np.arange(x.shape[axis]), by)
        x = op.gather(x, constant(order), op.constant(np.int64(axis)))
    return x


def _relative(window: int) -> Array:
    """The row of the table of biases for each pair of patches in a window, (w², w²)."""
    rows, columns = np.divmod(np.arange(window * window), window)
    down, across = rows[:, None] - rows + window - 1, columns[:, None] - columns + window - 1
    return np.asarray(down * (2 * window - 1) + across)


def _mask(height: int, width: int, window: int, shift: int) -> Array:
    """(windows, w², w²): `APART` between patches that came together only because the map was rolled."""
    region = np.zeros((height, width), np.int64)
    cuts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for number, (rows, columns) in enumerate((r, c) for r in cuts for c in cuts):
        region[rows, columns] = number
    windows = region.reshape(height // window, window, width // window, window).transpose(0, 2, 1, 3)
    parts = windows.reshape(-1, window * window)
    return np.where(parts[:, :, None] == parts[:, None, :], np.float32(0), APART)
