"""MobileNetV4's attention: many queries share one key and one value, taken from a smaller map.

Shazeer 2019, "Fast Transformer Decoding" (arXiv:1911.02150); Qin et al. 2024, "MobileNetV4" (arXiv:2404.10518).
"""

from __future__ import annotations

from typing import Any

from topwork.backbones.weights.families.maps import Norm, as_map, convolved, normed
from topwork.backbones.weights.layers import attend, join_heads, reshape, transpose
from topwork.backbones.weights.network import Weights


def mobile_attention(x: Any, weights: Weights, at: str, norm: Norm) -> Any:
    """What a block at `at` adds to a map (1, C, H, W): normed, and attended to."""
    y = normed(x, weights, f"{at}.norm", norm)
    q, k, v = (_projected(y, weights, f"{at}.attn.{name}", norm) for name in ("query", "key", "value"))
    width = k.shape[1]  # of a head
    q, k, v = (_heads(z, width) for z in (q, k, v))  # (1, heads, places, width), of k and v one head
    attended = join_heads(attend(q, k, v, scale=width**-0.5))  # (1, H·W, heads · width)
    return convolved(as_map(attended, x.shape[2]), weights, f"{at}.attn.output.proj")


def _heads(x: Any, width: int) -> Any:
    """(1, heads · width, H, W) → (1, heads, H·W, width).

    The transposition is of four axes: OpenVINO 2026.4 computes other numbers for one of three that `attend` follows.
    """
    _, channels, height, columns = x.shape
    return transpose(reshape(x, (1, channels // width, width, height * columns)), (0, 1, 3, 2))


def _projected(x: Any, weights: Weights, name: str, norm: Norm) -> Any:
    """A projection of each place, perhaps of a map with half as many on each side."""
    if weights.under(f"{name}.down_conv."):
        x = convolved(x, weights, f"{name}.down_conv", f"{name}.norm", norm, stride=2)
    return convolved(x, weights, f"{name}.proj")
