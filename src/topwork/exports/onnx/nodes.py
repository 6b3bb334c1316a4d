"""OpenVINO's operators in ONNX, operator set 18: https://onnx.ai/onnx/operators/.

Each function takes a node and the names of its inputs, adds ONNX nodes to the `GraphBuilder`, and returns the name of
the first output. OpenVINO's operators are specified in its operation sets 1 to 15.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.errors import TopworkError
from topwork.exports.onnx import axes, products, selection, spatial
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
        for port, output in enumerate(node.outputs() if kind not in SPLIT else []):
            if port and output.get_target_inputs():
                raise Unsupported(f"its output {port} is used")
        WRITERS[kind](node, inputs, builder, out)
    except Unsupported as error:
        raise TopworkError(
            f"the operator {kind} ({node.get_friendly_name()!r}) can't be written as ONNX: {error}; use "
            "--format openvino, which supports every network"
        ) from None


SPLIT = {"Split", "VariadicSplit"}


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
    slope, offset = _scalars(inputs[1:], builder) or (1 / 6, 0.5)  # HSigmoid has neither
    return builder.add("HardSigmoid", inputs[:1], out=out, alpha=slope, beta=offset)


def elu(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    return builder.add("Elu", inputs, out=out, alpha=node.get_attributes()["alpha"])


def selu(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    alpha, scale = _scalars(inputs[1:], builder)
    return builder.add("Selu", inputs[:1], out=out, alpha=alpha, gamma=scale)


def prelu(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    """A row of slopes has one for each channel."""
    x, slope = (node.input(i).get_partial_shape() for i in range(2))
    given = inputs[1]
    if len(slope) == 1 and len(x) > 2 and slope[0] == x[1]:
        given = builder.add("Reshape", [given, builder.whole([-1, *[1] * (len(x) - 2)])])
    return builder.add("PRelu", [inputs[0], given], out=out)


def _scalars(names: Inputs, builder: GraphBuilder) -> list[float]:
    return [float(builder.known(name).reshape(())) for name in names]


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


def floor_mod(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    if node.get_output_element_type(0).is_real():
        raise Unsupported("it divides fractions")
    return builder.add("Mod", inputs, out=out)


def squared_difference(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    difference = builder.add("Sub", inputs)
    return builder.add("Mul", [difference, difference], out=out)


WRITERS: Mapping[str, Writer] = {
    "Convert": cast,
    "Convolution": spatial.convolution,
    "GroupConvolution": spatial.convolution,
    "MaxPool": spatial.max_pool,
    "AvgPool": spatial.average_pool,
    "MatMul": products.matmul,
    "Einsum": products.einsum,
    "ScaledDotProductAttention": products.attention,
    "Clamp": clamp,
    "Swish": swish,
    "HSigmoid": hard_sigmoid,
    "HardSigmoid": hard_sigmoid,
    "Elu": elu,
    "Selu": selu,
    "PRelu": prelu,
    "Gelu": gelu,
    "FloorMod": floor_mod,
    "SquaredDifference": squared_difference,
    "Softmax": axes.softmax("Softmax"),
    "LogSoftmax": axes.softmax("LogSoftmax"),
    "MVN": axes.mvn,
    "GroupNormalization": axes.group_normalization,
    "NormalizeL2": axes.normalize_l2,
    "ReduceMean": axes.reduced("ReduceMean"),
    "ReduceSum": axes.reduced("ReduceSum"),
    "ReduceMax": axes.reduced("ReduceMax"),
    "ReduceMin": axes.reduced("ReduceMin"),
    "ReduceProd": axes.reduced("ReduceProd"),
    "ReduceL1": axes.reduced("ReduceL1"),
    "ReduceL2": axes.reduced("ReduceL2"),
    "Concat": axes.concat,
    "Transpose": axes.transpose,
    "Reshape": axes.reshape,
    "Squeeze": axes.squeeze("Squeeze"),
    "Unsqueeze": axes.squeeze("Unsqueeze"),
    "ShuffleChannels": axes.shuffle_channels,
    "DepthToSpace": axes.depth_to_space,
    "SpaceToDepth": axes.space_to_depth,
    "Gather": selection.gather,
    "GatherND": selection.gather_nd,
    "Pad": spatial.pad,
    "Interpolate": spatial.interpolate,
    "Slice": selection.slice_axes,
    "StridedSlice": selection.strided_slice,
    "Split": selection.split,
    "VariadicSplit": selection.split,
    "Roll": selection.roll,
    "Tile": selection.tile,
    "ShapeOf": axes.shape_of,
    "Range": axes.count_up,
    "Broadcast": selection.broadcast,
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
            "Sin": "Sin",
            "Cos": "Cos",
            "Abs": "Abs",
            "Sign": "Sign",
            "Negative": "Neg",
            "Floor": "Floor",
            "IsNaN": "IsNaN",
            "Ceiling": "Ceil",
            "Tanh": "Tanh",
            "Relu": "Relu",
            "Sigmoid": "Sigmoid",
            "HSwish": "HardSwish",
            "Mish": "Mish",
            "SoftPlus": "Softplus",
            "SoftSign": "Softsign",
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
