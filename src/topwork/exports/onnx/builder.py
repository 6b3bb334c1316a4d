"""`GraphBuilder`, which collects the nodes of an ONNX graph, and the type of functions that write nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

OPSET = 18

Array = np.ndarray[Any, np.dtype[Any]]


class Unsupported(Exception):
    """A node or its attributes have no counterpart; the message says what."""


@dataclass(slots=True)
class GraphBuilder:
    """Collects an ONNX graph's nodes, in order of computation, and constants, by name."""

    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    _count: int = 0

    def constant(self, value: Any, *, name: str = "") -> str:
        name = name or self._fresh("constant")
        self.constants[name] = np.asarray(value)
        return name

    def whole(self, values: Sequence[int]) -> str:
        """Add a constant of int64 (sizes, axes, indices)."""
        return self.constant(np.array(values, np.int64))

    def add(
        self, kind: str, inputs: Sequence[str], *, count: int = 1, out: str = "", **attributes: Any
    ) -> str:
        """Add a node. Returns the name of its first output; the others have the suffixes "_1", "_2", …"""
        from onnx import helper

        out = out or self._fresh(kind.lower())
        outputs = [out, *(f"{out}_{i}" for i in range(1, count))]
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=out, **attributes))
        return out

    def known(self, name: str) -> Array:
        """The value of a constant."""
        if name not in self.constants:
            raise Unsupported("one of its arguments is computed from the picture")
        return self.constants[name]

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}#{self._count}"


Inputs = list[str]
Writer = Callable[[Any, Inputs, GraphBuilder, str], str]  # node, inputs, builder, name of the output


def onnx_type(kind: Any) -> int:
    """The ONNX type number of an OpenVINO element type."""
    from onnx import TensorProto

    names = {"boolean": "BOOL", "f16": "FLOAT16", "bf16": "BFLOAT16", "f32": "FLOAT", "f64": "DOUBLE"}
    name = kind.get_type_name()
    name = names.get(name) or name.replace("u", "UINT").replace("i", "INT")
    return int(getattr(TensorProto, name))
