"""Where a patch lies, told to a transformer: learnt positions at another size, and rotary ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from topwork.backbones.weights.layers import constant
from topwork.errors import InputError
from topwork.graphs.resampling import Resampling, resampled

Array = np.ndarray[Any, np.dtype[Any]]


def positions_for(
    learnt: Array, side: int, prefix: int, how: Resampling, *, shown: str
) -> tuple[Array | None, Array]:
    """Learnt positions for a grid of side · side patches: those of the tokens before the patches, if any, and theirs.

    Args:
        learnt: (P, D). The patches' positions come last and form a square.
        prefix: how many tokens stand before the patches; not all need have a position.
    """
    for before in sorted({0, min(1, prefix), prefix}):
        trained = math.isqrt(max(len(learnt) - before, 0))
        if trained and trained * trained == len(learnt) - before:
            grid = learnt[before:].reshape(trained, trained, -1)
            patches = resampled(grid, side, how).reshape(side * side, -1)
            return (learnt[:before] if before else None), patches
    raise InputError(f"{shown}: expected positions that form a square; it has {len(learnt)}")


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary positions (Su et al. 2021, arXiv:2104.09864) along rows and columns.

    `centred`: coordinates from −1 to 1 and periods of 2π (DINOv3), else counted in patches from 0 (EVA-02).
    `halves`: number i is turned with number i + d/2, else with its neighbour. `reference`: the side of the grid that
    it was trained at, to which another grid's coordinates are brought; 0 for none.
    """

    width: int  # of a head
    temperature: float = 100.0
    centred: bool = True
    halves: bool = True
    offset: float = 0.0
    reference: int = 0
    columns_first: bool = False

    def angles(self, side: int) -> tuple[Array, Array]:
        """Cosines and sines, (side · side, width) each."""
        count = self.width // 4
        speeds = np.float32(self.temperature) ** (-np.arange(count, dtype=np.float32) / np.float32(count))
        places = np.arange(side, dtype=np.float32) + np.float32(self.offset)
        if self.centred:
            places = 2 * ((places + np.float32(0.5)) / np.float32(side)) - 1
            speeds = speeds * np.float32(2 * math.pi)
        elif self.reference:
            places = places / side * self.reference
        across, down = np.meshgrid(places, places)  # (side, side): a column's place, and a row's
        both = (across, down) if self.columns_first else (down, across)
        turns = np.concatenate([p.reshape(-1, 1) * speeds for p in both], 1)  # (patches, width / 2)
        turns = np.tile(turns, (1, 2)) if self.halves else np.repeat(turns, 2, 1)
        return np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32)


def rotate(x: Any, rotation: tuple[Array, Array], prefix: int, *, halves: bool) -> Any:
    """Turn the vectors of the patches, x (1, heads, N, width); the first `prefix` tokens stay as they are.

    Each number's partner comes from a product with a constant matrix of 0, 1 and −1, which every format has.
    """
    from openvino import opset13 as op

    count, width = x.shape[2], x.shape[3]
    cosine, sine = (
        np.concatenate([np.full((prefix, width), fill), a]) for fill, a in zip((1, 0), rotation, strict=True)
    )
    partner = np.zeros((width, width), np.float32)  # x · partner = (−x₂, x₁) of halves, or of neighbours
    half = np.arange(width // 2)
    one, two = (half, half + width // 2) if halves else (2 * half, 2 * half + 1)
    partner[two, one], partner[one, two] = -1, 1
    assert count == len(cosine)
    turned = op.multiply(op.matmul(x, constant(partner), False, False), constant(sine.astype(np.float32)))
    return op.add(op.multiply(x, constant(cosine.astype(np.float32))), turned)
