"""OpenVINO's operators in Keras 3 (`keras.ops`), differentiable on every backend.

The operators and their attributes are specified in OpenVINO's operation sets 1 to 15.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras  # noqa: TID253

from topwork.errors import TopworkError
from topwork.graphs.trainable import axes, elementwise, products, selection
from topwork.graphs.trainable.elementwise import each, pairs, to_the
from topwork.graphs.trainable.plan import POINTWISE, Step, unsupported
from topwork.graphs.trainable.spatial import (
    average_pool,
    convolution,
    interpolate,
    max_pool,
    pad,
    pointwise,
)
from topwork.graphs.trainable.values import Operator, Value

ops = keras.ops


def apply(step: Step, values: list[Value]) -> Value:
    """The first output of a step, computed from its inputs.

    Raises:
        TopworkError: the operator is unknown, or is used in a way that can't be trained.
    """
    if step.kind not in OPERATORS:
        raise TopworkError(unsupported(step, "the operator is not supported"))
    try:
        return OPERATORS[step.kind](step, values)
    except TopworkError as error:
        raise TopworkError(unsupported(step, str(error))) from error


OPERATORS: Mapping[str, Operator] = {
    POINTWISE: pointwise,
    "Convolution": convolution,
    "GroupConvolution": convolution,
    "MatMul": products.matmul,
    "Einsum": products.einsum,
    "ScaledDotProductAttention": products.attention,
    "Add": pairs(elementwise.add),
    "Subtract": pairs(ops.subtract),
    "Multiply": pairs(ops.multiply),
    "Divide": pairs(ops.divide),
    "SquaredDifference": pairs(lambda x, y: ops.square(ops.subtract(x, y))),
    "Minimum": pairs(ops.minimum),
    "Maximum": pairs(ops.maximum),
    "Power": elementwise.power,
    "Sqrt": each(lambda x: to_the(x, 0.5)),
    "Exp": each(ops.exp),
    "Log": each(ops.log),
    "Sin": each(ops.sin),
    "Cos": each(ops.cos),
    "Abs": each(ops.absolute),
    "Sign": each(ops.sign),
    "Negative": each(ops.negative),
    "Floor": each(ops.floor),
    "IsNaN": each(ops.isnan),
    "Ceiling": each(ops.ceil),
    "Tanh": each(ops.tanh),
    "Clamp": elementwise.clamp,
    "Relu": each(ops.relu),
    "Sigmoid": each(ops.sigmoid),
    "Swish": elementwise.swish,
    "HSwish": each(ops.hard_silu),
    "HSigmoid": each(ops.hard_sigmoid),
    "HardSigmoid": elementwise.hard_sigmoid,
    "SoftPlus": each(ops.softplus),
    "SoftSign": each(ops.softsign),
    "Mish": each(elementwise.mish),
    "Elu": elementwise.elu,
    "Selu": elementwise.selu,
    "PRelu": elementwise.prelu,
    "Erf": each(ops.erf),
    "Gelu": elementwise.gelu,
    "Softmax": axes.softmax(ops.softmax),
    "LogSoftmax": axes.softmax(ops.log_softmax),
    "MVN": axes.mvn,
    "GroupNormalization": axes.group_normalization,
    "NormalizeL2": axes.normalize_l2,
    "Convert": elementwise.convert,
    "Select": elementwise.select,
    "Greater": pairs(ops.greater),
    "GreaterEqual": pairs(ops.greater_equal),
    "Less": pairs(ops.less),
    "LessEqual": pairs(ops.less_equal),
    "MaxPool": max_pool,
    "AvgPool": average_pool,
    "ReduceMean": axes.reduced(axes.mean),
    "ReduceSum": axes.reduced(ops.sum),
    "ReduceMax": axes.reduced(ops.max),
    "ReduceMin": axes.reduced(ops.min),
    "ReduceL1": axes.reduced(axes.sum_absolute),
    "ReduceL2": axes.reduced(axes.norm),
    "Concat": axes.concat,
    "Pad": pad,
    "Interpolate": interpolate,
    "StridedSlice": selection.strided_slice,
    "Slice": selection.slice_axes,
    "Split": selection.split,
    "VariadicSplit": selection.split,
    "Reshape": axes.reshape,
    "Squeeze": axes.reshape,
    "Unsqueeze": axes.reshape,
    "Transpose": axes.transpose,
    "ShuffleChannels": axes.shuffle_channels,
    "DepthToSpace": axes.depth_to_space,
    "SpaceToDepth": axes.space_to_depth,
    "Gather": selection.gather,
    "GatherND": selection.gather_nd,
    "Roll": selection.roll,
    "Tile": selection.tile,
    "Broadcast": selection.broadcast,
}
