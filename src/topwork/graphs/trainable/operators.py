"""OpenVINO's operators in Keras 3 (`keras.ops`), differentiable on every backend.

The operators and their attributes are specified in OpenVINO's operation sets 1 to 15.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras  # noqa: TID253

from topwork.errors import TopworkError
from topwork.graphs.trainable import axes, elementwise
from topwork.graphs.trainable.elementwise import each, pairs, to_the
from topwork.graphs.trainable.plan import POINTWISE, Step, unsupported
from topwork.graphs.trainable.spatial import average_pool, convolution, max_pool, pad, pointwise
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
    "MatMul": axes.matmul,
    "Einsum": axes.einsum,
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
    "Abs": each(ops.absolute),
    "Sign": each(ops.sign),
    "Negative": each(ops.negative),
    "Tanh": each(ops.tanh),
    "Clamp": elementwise.clamp,
    "Relu": each(ops.relu),
    "Sigmoid": each(ops.sigmoid),
    "Swish": elementwise.swish,
    "HSwish": each(ops.hard_silu),
    "HSigmoid": each(ops.hard_sigmoid),
    "Erf": each(ops.erf),
    "Gelu": elementwise.gelu,
    "Softmax": axes.softmax,
    "Convert": elementwise.convert,
    "MaxPool": max_pool,
    "AvgPool": average_pool,
    "ReduceMean": axes.reduced(axes.mean),
    "ReduceSum": axes.reduced(ops.sum),
    "ReduceMax": axes.reduced(ops.max),
    "ReduceMin": axes.reduced(ops.min),
    "Concat": axes.concat,
    "Pad": pad,
    "StridedSlice": axes.strided_slice,
    "Slice": axes.slice_axes,
    "Reshape": axes.reshape,
    "Squeeze": axes.reshape,
    "Unsqueeze": axes.reshape,
    "Transpose": axes.transpose,
    "Gather": axes.gather,
}
