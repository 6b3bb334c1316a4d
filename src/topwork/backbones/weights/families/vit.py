"""Vision transformers: ViT, DeiT, DINOv2, DINOv3, SigLIP, CLIP and EVA-02, by whichever names their tensors have.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words" (arXiv:2010.11929), and what came after it: layer scale
(arXiv:2103.17239), SwiGLU (arXiv:2002.05202), pooling by attention (arXiv:2303.15343), registers (arXiv:2309.16588).
Depth, widths and which parts there are is read off the tensors; `Vit` has the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from topwork.backbones.weights import layers
from topwork.backbones.weights.families.positions import Rope, positions_for, rotate
from topwork.backbones.weights.layers import Activation, attend, constant, dense, mean, part, split_heads
from topwork.backbones.weights.network import Array, Network, Weights, network, pixels_input
from topwork.errors import InputError
from topwork.graphs.resampling import Resampling
from topwork.recipe import Pool

# The names of each part in the libraries; the first that is there is taken.
PATCH = (
    *("embeddings.patch_embeddings.projection", "embeddings.patch_embeddings", "embeddings.patch_embedding"),
    "patch_embed.proj",
)
BEFORE = (  # the tokens before the patches
    ("embeddings.cls_token", "embeddings.class_embedding", "cls_token"),
    ("embeddings.distillation_token", "dist_token"),
    ("embeddings.register_tokens", "reg_token"),
)
POSITIONS = ("embeddings.position_embeddings", "embeddings.position_embedding.weight", "pos_embed")
NORM_FIRST = ("pre_layrnorm", "norm_pre")
NORM_LAST = ("layernorm", "post_layernorm", "norm")
NORM_POOLED = ("fc_norm",)
BLOCKS = ("encoder.layer.{}.", "encoder.layers.{}.", "model.layer.{}.", "layer.{}.", "blocks.{}.")
BLOCK: dict[str, tuple[str, ...]] = {
    "norm1": ("layernorm_before", "layer_norm1", "norm1"),
    "norm2": ("layernorm_after", "layer_norm2", "norm2"),
    "qkv": ("attn.qkv",),
    "q": ("attention.attention.query", "attention.q_proj", "self_attn.q_proj", "attn.q_proj"),
    "k": ("attention.attention.key", "attention.k_proj", "self_attn.k_proj", "attn.k_proj"),
    "v": ("attention.attention.value", "attention.v_proj", "self_attn.v_proj", "attn.v_proj"),
    "q_norm": ("attn.q_norm",),
    "k_norm": ("attn.k_norm",),
    "attention_norm": ("attn.norm",),
    "proj": ("attention.output.dense", "attention.o_proj", "self_attn.out_proj", "attn.proj"),
    "scale1": ("layer_scale1.lambda1", "ls1.gamma", "gamma_1"),
    "scale2": ("layer_scale2.lambda1", "ls2.gamma", "gamma_2"),
    "fc1": ("intermediate.dense", "mlp.fc1", "mlp.up_proj", "mlp.weights_in", "mlp.fc1_x"),
    "gate": ("mlp.gate_proj", "mlp.fc1_g"),
    "mlp_norm": ("mlp.norm",),
    "fc2": ("output.dense", "mlp.fc2", "mlp.down_proj", "mlp.weights_out"),
}
# What features need not: classifiers, poolers that few checkpoints trained, and what only training uses.
SKIPPED = (
    *(
        "embeddings.mask_token",
        "embeddings.position_ids",
        "pooler.",
        "visual_projection.",
        "rope.",
        "rope_embeddings.",
    ),
    *("classifier.", "cls_classifier.", "distillation_classifier.", "head_dist.", "head.weight", "head.bias"),
)


@dataclass(frozen=True, slots=True)
class Vit:
    """What the shapes of the tensors don't say. `pool`: how the library makes features of the last tokens."""

    heads: int
    epsilon: float
    activation: Activation
    pool: Pool
    resampling: Resampling = "bicubic"
    rope: Rope | None = None
    rms: bool = False  # whether its norms are RMS norms
    gate: Activation = "silu"  # of an MLP with a gate
    prefix_in_mean: bool = False
    depth: int = 0  # how many blocks its settings say; 0 where they don't
    distilled: bool = False  # whether the class token and the distillation token behind it are averaged


def build_vit(vit: Vit, weights: Weights, *, size_px: int, pool: Pool = "auto") -> Network:
    """A transformer as a graph; `pool` "auto" is the library's own.

    Raises:
        InputError: a tensor is missing or misshapen; the size doesn't fit its patches; it can't be pooled so.
    """
    pixels = pixels_input(size_px)
    tokens, prefix, side = _embedded(vit, weights, pixels)
    if vit.heads < 1 or tokens.shape[2] % vit.heads:
        raise InputError(
            f"{weights.shown}: expected its width to be a multiple of its heads; it has {vit.heads} heads and a "
            f"width of {tokens.shape[2]}"
        )
    if vit.rope and (vit.rope.width % 4 or vit.rope.width * vit.heads != tokens.shape[2]):
        raise InputError(
            f"{weights.shown}: expected rotary positions for {vit.heads} heads of a width of {tokens.shape[2]}, each "
            f"a multiple of 4; they are for {vit.rope.width}"
        )
    rotation = vit.rope.angles(side) if vit.rope else None
    below = next((name for name in BLOCKS if weights.under(name.format(0))), None)
    if below is None:
        raise InputError(f"{weights.shown}: expected the tensors of a transformer's blocks; there are none")
    stages: dict[str, Any] = {}
    while weights.under(below.format(len(stages))):
        tokens = _Block(vit, weights, below.format(len(stages)))(tokens, prefix, rotation)
        stages[f"stage{len(stages) + 1}"] = mean(part(tokens, 1, prefix, tokens.shape[1]), 1)
    if vit.depth not in (0, len(stages)):
        raise InputError(
            f"{weights.shown}: expected {vit.depth} blocks, as its settings say; its tensors are of {len(stages)}"
        )
    tokens = _norm(vit, weights, found(weights, NORM_LAST), tokens)
    last, how = _pooled(vit, weights, tokens, prefix, vit.pool if pool == "auto" else pool)
    weights.skip(*SKIPPED)
    outputs = stages | {"last": last}
    return network(pixels, outputs, stages=tuple(stages), signed=True, pooled=how)


def found(weights: Weights, names: Sequence[str], suffix: str = ".weight", *, below: str = "") -> str | None:
    """The first of the names that the network has, with `below` before it."""
    return next((below + name for name in names if f"{below}{name}{suffix}" in weights), None)


def _embedded(vit: Vit, weights: Weights, pixels: Any) -> tuple[Any, int, int]:
    """The first tokens (1, N, D), how many stand before the patches, and the side of the grid of patches."""
    from openvino import opset13 as op

    name = found(weights, PATCH)
    if name is None:
        raise InputError(
            f"{weights.shown}: expected the tensors of a vision transformer; it has no patch embedding"
        )
    shape, size_px = weights.shape(f"{name}.weight"), pixels.shape[2]
    if len(shape) == 2:  # SigLIP 2: a dense layer on a patch's pixels, with the channels last
        patch = math.isqrt(shape[1] // 3)
        kernel = weights(f"{name}.weight", shape[0], patch * patch * 3)
        kernel = kernel.reshape(-1, patch, patch, 3).transpose(0, 3, 1, 2)
    else:
        patch = shape[-1] if shape else 0
        kernel = weights(f"{name}.weight", next(iter(shape), 0), 3, patch, patch)
    if size_px % patch:
        raise InputError(
            f"{weights.shown}: it takes pictures in patches of {patch} px; {size_px} px is no multiple of it: "
            f"--size {size_px // patch * patch or patch}"
        )
    side, width = size_px // patch, kernel.shape[0]
    x = layers.convolve(pixels, kernel, weights.get(f"{name}.bias", width), stride=patch)
    x = layers.transpose(layers.reshape(x, (1, width, side * side)), (0, 2, 1))
    tokens = [_rows(weights, n, width) for names in BEFORE if (n := found(weights, names, ""))]
    prefix, patches = sum(map(len, tokens)), np.zeros((side * side, width), np.float32)
    if (where := found(weights, POSITIONS, "")) is not None:
        learnt = _rows(weights, where, width)
        first, patches = positions_for(learnt, side, prefix, vit.resampling, shown=weights.shown)
        start = 0
        for number, token in enumerate(tokens):
            stop = start + len(token)
            if first is not None and stop <= len(first):
                tokens[number] = token + first[start:stop]
            start = stop
    if prefix:  # room before the patches, to which the tokens are added: as many as there are pictures
        begin, end = constant(np.array([0, prefix, 0])), constant(np.array([0, 0, 0]))
        x = op.pad(x, begin, end, "constant", op.constant(np.float32(0)))
    if prefix or where is not None:
        x = op.add(x, constant(np.concatenate([*tokens, patches])[None]))
    return _norm(vit, weights, found(weights, NORM_FIRST), x), prefix, side


def _rows(weights: Weights, name: str, width: int) -> Array:
    """A tensor of vectors, (D,), (N, D) or (1, N, D), as (N, D)."""
    shape = weights.shape(name)
    return weights(name, *{1: (), 3: (1, *shape[1:2])}.get(len(shape), shape[:1]), width).reshape(-1, width)


class _Block:
    """A transformer's block: attention, then an MLP, each on the normalised tokens and added to them."""

    def __init__(self, vit: Vit, weights: Weights, below: str) -> None:
        self._vit, self._weights, self._below = vit, weights, below

    def __call__(self, x: Any, prefix: int, rotation: tuple[Array, Array] | None) -> Any:
        from openvino import opset13 as op

        x = op.add(x, self._scaled("scale1", self._attention(self._normed("norm1", x), prefix, rotation)))
        return op.add(x, self._scaled("scale2", self._mlp(self._normed("norm2", x))))

    def _attention(self, x: Any, prefix: int, rotation: tuple[Array, Array] | None) -> Any:
        each = x.shape[2] // self._vit.heads
        q, k, v = (split_heads(y, y.shape[2] // each) for y in self._queries_keys_values(x))
        q, k = self._normed("q_norm", q), self._normed("k_norm", k)
        if rotation is not None and self._vit.rope is not None:
            q, k = (rotate(y, rotation, prefix, halves=self._vit.rope.halves) for y in (q, k))
        k, v = (self._shared(y) for y in (k, v))
        y = layers.join_heads(attend(q, k, v, scale=q.shape[3] ** -0.5))
        return self._dense("proj", self._normed("attention_norm", y), x.shape[2])

    def _queries_keys_values(self, x: Any) -> list[Any]:
        name, width = self._found("qkv"), x.shape[2]
        if name is None:
            keys = width // self._key_groups(width)
            return [self._dense(one, x, size) for one, size in (("q", width), ("k", keys), ("v", keys))]
        kernel, bias = self._weights.dense(name, width, 3 * width)
        kernels = kernel.reshape(3, width, width)
        if bias is not None:
            biases: list[Array | None] = list(bias.reshape(3, -1))
        else:  # EVA: the keys have none
            some = (
                self._weights.get(f"{self._below}attn.q_bias", width),
                self._weights.get(f"{self._below}attn.v_bias", width),
            )
            biases = [some[0], None, some[1]]
        return [dense(x, *both) for both in zip(kernels, biases, strict=True)]

    def _key_groups(self, width: int) -> int:
        """How many heads share their keys and values (Ainslie et al. 2023, arXiv:2305.13245)."""
        name = self._found("k")
        rows = next(iter(self._weights.shape(f"{name}.weight")), 0) if name else 0
        shared = width // rows if rows else 1
        return shared if shared and self._vit.heads % shared == 0 else 1

    def _shared(self, x: Any) -> Any:
        """Keys or values (1, heads / groups, N, d) as (1, heads, N, d)."""
        from openvino import opset13 as op

        if x.shape[1] == self._vit.heads:
            return x
        order = np.repeat(np.arange(x.shape[1]), self._vit.heads // x.shape[1])
        return op.gather(x, constant(order), op.constant(np.int64(1)))

    def _mlp(self, x: Any) -> Any:
        from openvino import opset13 as op

        y, down = self._dense("fc1", x), self._found("fc2")
        hidden = self._weights.shape(f"{down}.weight")[-1] if down else y.shape[2]
        if self._found("gate") is not None:
            y = op.multiply(layers.activate(self._dense("gate", x, y.shape[2]), self._vit.gate), y)
        elif y.shape[2] == 2 * hidden:  # the gate, and what it lets through, in one
            gate = layers.activate(part(y, 2, 0, hidden), self._vit.gate)
            y = op.multiply(gate, part(y, 2, hidden, 2 * hidden))
        else:
            y = layers.activate(y, self._vit.activation)
        return self._dense("fc2", self._normed("mlp_norm", y), x.shape[2])

    def _found(self, part_name: str) -> str | None:
        return found(self._weights, BLOCK[part_name], below=self._below)

    def _dense(self, part_name: str, x: Any, outputs: int | None = None) -> Any:
        name = (
            self._found(part_name) or self._below + BLOCK[part_name][-1]
        )  # the latter is then said to be missing
        return dense(x, *self._weights.dense(name, x.shape[2], outputs))

    def _normed(self, part_name: str, x: Any) -> Any:
        return _norm(self._vit, self._weights, self._found(part_name), x)

    def _scaled(self, part_name: str, x: Any) -> Any:
        from openvino import opset13 as op

        name = found(self._weights, BLOCK[part_name], "", below=self._below)
        return x if name is None else op.multiply(x, constant(self._weights(name, x.shape[2])))


def _norm(vit: Vit, weights: Weights, name: str | None, x: Any) -> Any:
    """The norm of this name; without one, nothing changes."""
    if name is None:
        return x
    width = list(x.shape)[-1]
    if vit.rms:
        return layers.rms_norm(x, weights(f"{name}.weight", width), vit.epsilon)
    gain, shift = weights(f"{name}.weight", width), weights.get(f"{name}.bias", width)
    return layers.layer_norm(x, gain, shift, vit.epsilon)


def _pooled(vit: Vit, weights: Weights, tokens: Any, prefix: int, pool: Pool) -> tuple[Any, str]:
    """The tokens (1, N, D) as one vector (1, D), normalised where the norm comes after pooling; and how, in words."""
    from openvino import opset13 as op

    norm = found(weights, NORM_POOLED)
    latent = found(weights, ("head.probe", "attn_pool.latent"), "")
    classed = found(weights, BEFORE[0], "") is not None  # registers alone are none
    if pool == "pooler":
        if latent is None:
            raise InputError(
                f"{weights.shown}: it has no pooler of its own; --pool mean" + " or cls" * classed
            )
        x = tokens if vit.prefix_in_mean else part(tokens, 1, prefix, tokens.shape[1])
        return _norm(vit, weights, norm, _attention_pool(vit, weights, x)), "pooled by attention"
    if latent is not None:
        weights.skip("attn_pool.", "head.")
    if pool in ("cls", "cls+mean") and not classed:
        raise InputError(f"{weights.shown}: it has no class token; --pool mean" + " or pooler" * bool(latent))
    first = _norm(vit, weights, norm, mean(part(tokens, 1, 0, 2 if vit.distilled else 1), 1))
    if pool == "cls":
        return first, "the class token" + " and the distillation token, averaged" * vit.distilled
    patches = mean(tokens if vit.prefix_in_mean else part(tokens, 1, prefix, tokens.shape[1]), 1)
    patches = _norm(vit, weights, norm, patches)
    if pool == "mean":
        return patches, "the mean of its patches"
    return op.concat([first, patches], 1), "the class token and the mean of its patches"


def _attention_pool(vit: Vit, weights: Weights, x: Any) -> Any:
    """One learnt query attends to all tokens, and an MLP follows (Zhai et al. 2022, arXiv:2106.04560)."""
    from openvino import opset13 as op

    width = x.shape[2]
    if "head.probe" in weights:  # Transformers' names
        query, name, out, norm, mlp = "head.probe", "head.attention", "out_proj", "head.layernorm", "head.mlp"
        kernels = weights(f"{name}.in_proj_weight", 3 * width, width).reshape(3, width, width)
        biases = weights(f"{name}.in_proj_bias", 3 * width).reshape(3, width)
        asked = dense(constant(weights(query, 1, 1, width)), kernels[0], biases[0])
        keys, values = (dense(x, kernels[i], biases[i]) for i in (1, 2))
    else:
        query, name, out, norm, mlp = (
            "attn_pool.latent",
            "attn_pool",
            "proj",
            "attn_pool.norm",
            "attn_pool.mlp",
        )
        asked = constant(weights(query, 1, 1, width))
        if "attn_pool.q.weight" in weights:
            asked = dense(asked, *weights.dense("attn_pool.q", width, width))
        both = dense(x, *weights.dense("attn_pool.kv", width, 2 * width))
        keys, values = part(both, 2, 0, width), part(both, 2, width, 2 * width)
    q, k, v = (split_heads(y, vit.heads) for y in (asked, keys, values))
    y = layers.join_heads(attend(q, k, v, scale=q.shape[3] ** -0.5))
    y = dense(y, *weights.dense(f"{name}.{out}", width, width))
    z = _norm(vit, weights, norm if f"{norm}.weight" in weights else None, y)
    z = layers.activate(dense(z, *weights.dense(f"{mlp}.fc1", width)), vit.activation)
    y = op.add(y, dense(z, *weights.dense(f"{mlp}.fc2", z.shape[2], width)))
    return layers.reshape(part(y, 1, 0, 1), (1, width))
