"""What a builder makes of published weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.backbones.weights.safetensors import FLOATS, Tensors
from topwork.errors import InputError

if TYPE_CHECKING:
    import openvino as ov

Array = np.ndarray[Any, np.dtype[Any]]
Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """`graph`: `pixels` float32 (1, 3, S, S), as its preprocessing makes them → by name, all float32:

    - `last`: (1, D), the features that the library gives: before its classifier, after pooling and norm;
    - `stages`: (1, C, H, W), not negative; or of a transformer (1, C), the mean of a block's patches, `signed`.

    `rectified`: whether `last` is never negative. `pooled`: how `last` comes from the tokens, in words.
    """

    graph: ov.Model
    stages: tuple[str, ...] = ()
    rectified: bool = False
    signed: bool = False
    pooled: str = ""


class Weights:
    """Tensors by name. It remembers which were taken: those left over tell of a part that wasn't understood."""

    def __init__(self, tensors: Tensors, *, shown: str) -> None:
        self._tensors, self.shown = tensors, shown
        self._taken: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __call__(self, name: str, *shape: int) -> Array:
        """The tensor, float32; with `shape`, it must be that.

        Raises:
            InputError: there is none of this name, it has another shape, or it is not of floating-point numbers.
        """
        if name not in self._tensors:
            raise InputError(
                f"{self.shown}: expected a tensor {name}, as networks of this kind have; there is none"
            )
        found, dtype = self._tensors.shape(name), self._tensors.dtype(name)
        if shape and found != shape:
            raise InputError(
                f"{self.shown}: expected {name} with the shape {list(shape)}; it is {list(found)}"
            )
        if 0 in found or dtype not in FLOATS:
            raise InputError(
                f"{self.shown}: expected {name} as floating-point numbers; it is {list(found)} of {dtype}"
            )
        self._taken.add(name)
        return self._tensors[name]

    def get(self, name: str, *shape: int) -> Array | None:
        """The tensor, which with `shape` must be that, or None if there is none."""
        return self(name, *shape) if name in self else None

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor. Raises `InputError` if there is none of this name."""
        return self._tensors.shape(name) if name in self else self(name).shape

    def dense(self, name: str, inputs: int, outputs: int | None = None) -> tuple[Array, Array | None]:
        """A dense layer's kernel, (outputs, inputs), and its bias, if it has one. `outputs` None: as many as it has.

        Raises:
            InputError: there is none of this name, or it has another shape.
        """
        rows = outputs or next(iter(self.shape(f"{name}.weight")), 0)
        return self(f"{name}.weight", rows, inputs), self.get(f"{name}.bias", rows)

    def under(self, prefix: str) -> bool:
        """Whether there are tensors whose names begin so."""
        return any(name.startswith(prefix) for name in self._tensors)

    def skip(self, *prefixes: str) -> None:
        """Tensors whose names begin so are not needed."""
        self._taken |= {name for name in self._tensors if name.startswith(prefixes)}

    def left(self) -> list[str]:
        """The names of tensors that were neither taken nor skipped."""
        return [name for name in self._tensors if name not in self._taken]


def pixels_input(size_px: int) -> Any:
    """A graph's input: float32 (1, 3, S, S)."""
    import openvino as ov
    from openvino import opset13 as op

    pixels = op.parameter([1, 3, size_px, size_px], ov.Type.f32, name="pixels")
    pixels.output(0).set_names({"pixels"})
    return pixels


def network(pixels: Any, outputs: Mapping[str, Any], **told: Any) -> Network:
    """The graph from `pixels` to the named outputs, with what else is told of it."""
    import openvino as ov
    from openvino import opset13 as op

    results = []
    for name, value in outputs.items():
        result = op.result(value)
        result.output(0).set_names({name})
        results.append(result)
    return Network(ov.Model(results, [pixels], "network"), **told)
