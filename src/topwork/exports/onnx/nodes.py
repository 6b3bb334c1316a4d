"""OpenVINO's operators in ONNX, operator set 18: https://onnx.ai/onnx/operators/.

Each function takes a node and the names of what goes into it, adds nodes to the `Sheet`, and returns the name of what
comes out first. What each OpenVINO operator means: OpenVINO's operation sets 1 to 15.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.errors import TopworkError
from topwork.exports.onnx import axes, spatial
from topwork.exports.onnx.sheet import Inputs, Sheet, Unsupported, Writer, onnx_type

if TYPE_CHECKING:
    import openvino as ov


def write_node(node: ov.Node, inputs: Inputs, sheet: Sheet, out: str) -> None:
    """Add what computes `node`; its outputs are called `out`, `out_1`, …

    Raises:
        TopworkError: there is no counterpart; it names the operator.
    """
    kind = node.get_type_name()
    try:
        if kind not in WRITERS:
            raise Unsupported("it is not known here")
        WRITERS[kind](node, inputs, sheet, out)
    except Unsupported as error:
        raise TopworkError(
            f"the operator {kind} ({node.get_friendly_name()!r}) can't be written as ONNX: {error}; take "
            "--format openvino, which holds every network"
        ) from None


def same(kind: str) -> Writer:
    """An operator that ONNX has too, without attributes."""
    return lambda node, inputs, sheet, out: sheet.add(kind, inputs, out=out)


def cast(node: Any, inputs: Inputs, sheet: Sheet, out: str) -> str:
    return sheet.add("Cast", inputs, out=out, to=onnx_type(node.get_output_element_type(0)))


def clamp(node: Any, inputs: Inputs, sheet: Sheet, out: str) -> str:
    attributes = node.get_attributes()
    ends = [sheet.constant(np.float32(attributes[name])) for name in ("min", "max")]
    return sheet.add("Clip", [*inputs, *ends], out=out)


def swish(node: Any, inputs: Inputs, sheet: Sheet, out: str) -> str:
    x = inputs[0]
    scaled = sheet.add("Mul", inputs) if len(inputs) > 1 else x
    return sheet.add("Mul", [x, sheet.add("Sigmoid", [scaled])], out=out)


def hard_sigmoid(node: Any, inputs: Inputs, sheet: Sheet, out: str) -> str:
    return sheet.add("HardSigmoid", inputs, out=out, alpha=1 / 6, beta=0.5)


def gelu(node: Any, inputs: Inputs, sheet: Sheet, out: str) -> str:
    """ONNX has it from operator set 20 on only."""
    x = inputs[0]

    def number(value: float) -> str:
        return sheet.constant(np.float32(value))

    if str(node.get_attributes().get("approximation_mode", "ERF")).upper() == "TANH":
        cube = sheet.add("Mul", [sheet.add("Mul", [x, x]), x])
        inner = sheet.add("Add", [x, sheet.add("Mul", [cube, number(0.044715)])])
        bent = sheet.add("Tanh", [sheet.add("Mul", [inner, number(np.sqrt(2 / np.pi))])])
    else:
        bent = sheet.add("Erf", [sheet.add("Div", [x, number(np.sqrt(2))])])
    half = sheet.add("Mul", [x, number(0.5)])
    return sheet.add("Mul", [half, sheet.add("Add", [bent, number(1)])], out=out)


def squared_difference(node: Any, inputs: Inputs, sheet: Sheet, out: str) -> str:
    difference = sheet.add("Sub", inputs)
    return sheet.add("Mul", [difference, difference], out=out)


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
