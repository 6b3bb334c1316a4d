"""OpenVINO's operators in ONNX, operator set 18: https://onnx.ai/onnx/operators/.

Each function takes a node and the names of its inputs, adds ONNX nodes to the `GraphBuilder`, and returns the name of
the first output. OpenVINO's operators are specified in its operation sets 1 to 15.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.errors import TopworkError
from topwork.exports.onnx import axes, spatial
from topwork.exports.onnx.builder import GraphBuilder, Inputs, Unsupported, Writer, onnx_type

if TYPE_CHECKING:
    import openvino as ov


def write_node(node: ov.Node, inputs: Inputs, builder: GraphBuilder, out: str) -> None:
    """Add ONNX nodes that compute `node`; its outputs are called `out`, `out_1`, …

    Raises:
        TopworkError: the operator has no counterpart; the message names it.
    """
    kind = node.get_type_name()
    try:
        if kind not in WRITERS:
            raise Unsupported("the operator is not supported")
        WRITERS[kind](node, inputs, builder, out)
    except Unsupported as error:
        raise TopworkError(
            f"the operator {kind} ({node.get_friendly_name()!r}) can't be written as ONNX: {error}; use "
            "--format openvino, which supports every network"
        ) from None


def same(kind: str) -> Writer:
    """The writer for an operator without attributes that ONNX has too."""
    return lambda node, inputs, builder, out: builder.add(kind, inputs, out=out)


def cast(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    return builder.add("Cast", inputs, out=out, to=onnx_type(node.get_output_element_type(0)))


def clamp(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    attributes = node.get_attributes()
    ends = [builder.constant(np.float32(attributes[name])) for name in ("min", "max")]
    return builder.add("Clip", [*inputs, *ends], out=out)


def swish(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    x = inputs[0]
    scaled = builder.add("Mul", inputs) if len(inputs) > 1 else x
    return builder.add("Mul", [x, builder.add("Sigmoid", [scaled])], out=out)


def hard_sigmoid(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    return builder.add("HardSigmoid", inputs, out=out, alpha=1 / 6, beta=0.5)


def gelu(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    """GELU from simpler operators; ONNX has it only since operator set 20."""
    x = inputs[0]

    def number(value: float) -> str:
        return builder.constant(np.float32(value))

    if str(node.get_attributes().get("approximation_mode", "ERF")).upper() == "TANH":
        cube = builder.add("Mul", [builder.add("Mul", [x, x]), x])
        inner = builder.add("Add", [x, builder.add("Mul", [cube, number(0.044715)])])
        bent = builder.add("Tanh", [builder.add("Mul", [inner, number(np.sqrt(2 / np.pi))])])
    else:
        bent = builder.add("Erf", [builder.add("Div", [x, number(np.sqrt(2))])])
    half = builder.add("Mul", [x, number(0.5)])
    return builder.add("Mul", [half, builder.add("Add", [bent, number(1)])], out=out)


def squared_difference(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    difference = builder.add("Sub", inputs)
    return builder.add("Mul", [difference, difference], out=out)


WRITERS: Mapping[str, Writer] = {
    "Convert": cast,
    "Convolution": spatial.convolution,
    "GroupConvolution": spatial.convolution,
    "MaxPool": spatial.max_pool,
    "AvgPool": spatial.average_pool,
    "MatMul": axes.matmul,
    "Einsum": axes.einsum,
    "Clamp": clamp,
    "Swish": swish,
    "HSigmoid": hard_sigmoid,
    "Gelu": gelu,
    "SquaredDifference": squared_difference,
    "Softmax": axes.softmax,
    "ReduceMean": axes.reduced("ReduceMean"),
    "ReduceSum": axes.reduced("ReduceSum"),
    "ReduceMax": axes.reduced("ReduceMax"),
    "ReduceMin": axes.reduced("ReduceMin"),
    "Concat": axes.concat,
    "Transpose": axes.transpose,
    "Reshape": axes.reshape,
    "Squeeze": axes.squeeze("Squeeze"),
    "Unsqueeze": axes.squeeze("Unsqueeze"),
    "Gather": axes.gather,
    "Pad": spatial.pad,
    "Slice": axes.slice_axes,
    "StridedSlice": axes.strided_slice,
    "Split": axes.split,
    "VariadicSplit": axes.split,
    "ShapeOf": axes.shape_of,
    "Range": axes.count_up,
    "Broadcast": axes.broadcast,
    **{
        theirs: same(ours)
        for theirs, ours in {
            "Add": "Add",
            "Subtract": "Sub",
            "Multiply": "Mul",
            "Divide": "Div",
            "Minimum": "Min",
            "Maximum": "Max",
            "Power": "Pow",
            "Sqrt": "Sqrt",
            "Exp": "Exp",
            "Log": "Log",
            "Abs": "Abs",
            "Sign": "Sign",
            "Negative": "Neg",
            "Floor": "Floor",
            "Ceiling": "Ceil",
            "Tanh": "Tanh",
            "Relu": "Relu",
            "Sigmoid": "Sigmoid",
            "HSwish": "HardSwish",
            "Mish": "Mish",
            "SoftPlus": "Softplus",
            "Erf": "Erf",
            "Select": "Where",
            "Less": "Less",
            "LessEqual": "LessOrEqual",
            "Greater": "Greater",
            "GreaterEqual": "GreaterOrEqual",
            "Equal": "Equal",
            "LogicalNot": "Not",
            "LogicalAnd": "And",
            "LogicalOr": "Or",
        }.items()
    },
}
