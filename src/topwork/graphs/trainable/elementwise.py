"""Element-wise operators: unary, and binary with broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras  # noqa: TID253
import numpy as np

from topwork.errors import TopworkError
from topwork.graphs.trainable.plan import Shape, Step
from topwork.graphs.trainable.values import (
    Operator,
    Value,
    apart,
    numbers,
    reshaped,
    same_layout,
    tensor,
    with_shape,
)

ops = keras.ops


def each(function: Callable[[Any], Any]) -> Operator:
    def apply(step: Step, values: list[Value]) -> Value:
        value = values[0]
        return Value(function(tensor(value)), value.shape, value.of_images, value.last)

    return apply


def pairs(function: Callable[[Any, Any], Any]) -> Operator:
    def apply(step: Step, values: list[Value]) -> Value:
        return combined(function, values[:2], step.shapes[0])

    return apply


def combined(function: Callable[..., Any], values: Sequence[Value], shape: Shape) -> Value:
    """Apply a function of several tensors element-wise, with NumPy's broadcasting."""
    values = [with_rank(value, len(shape)) for value in values]
    if len(shape) > 2:
        values = same_layout(values)
    last, of_images = values[0].last, any(value.of_images for value in values)
    like = next(
        (x for v in values if not isinstance(v.tensor, np.ndarray) and not _is_bool(x := tensor(v))), None
    )
    batches = [value.shape[:1] for value in values if value.of_images]
    simple = len(set(batches)) <= 1 and all(v.of_images or v.shape[:1] in ((), (1,)) for v in values)
    if simple or not of_images:
        return Value(function(*(tensor(v, like) for v in values)), shape, of_images, last)
    x = function(*(apart(Value(tensor(v, like), v.shape, v.of_images, v.last)) for v in values))
    held = Value(None, shape, of_images=True, last=last).held
    return Value(reshaped(x, held, of_images=True), shape, of_images=True, last=last)


def _is_bool(x: Any) -> bool:
    return bool(keras.backend.standardize_dtype(x.dtype) == "bool")


def with_rank(value: Value, rank: int) -> Value:
    """Prepend axes of size 1, as in NumPy's broadcasting."""
    missing = rank - len(value.shape)
    return with_shape(value, (1,) * missing + value.shape) if missing else value


def add(x: Any, y: Any) -> Any:
    """x + y.

    If one operand has a single axis longer than 1, Keras on TensorFlow uses its fast bias addition and infers the
    axis from the length. That is correct for the last axis, but another axis may have the same length; then this
    function computes x − (−y) instead.
    """
    for a, b in ((x, y), (y, x)):
        long = [axis for axis, size in enumerate(b.shape) if size != 1]
        if len(long) == 1 and b.shape[long[0]] is not None:
            if long[0] == len(b.shape) - 1 and a.shape[-1] == b.shape[-1]:
                return ops.add(a, b)
            return ops.subtract(a, ops.negative(b))
    return ops.add(x, y)


def power(step: Step, values: list[Value]) -> Value:
    base, exponent = values
    if not isinstance(exponent.tensor, np.ndarray) or exponent.tensor.size != 1:
        return combined(ops.power, values, step.shapes[0])
    base = with_rank(base, len(step.shapes[0]))
    power = float(exponent.tensor.reshape(()))
    return Value(to_the(tensor(base), power), base.shape, base.of_images, base.last)


def to_the(x: Any, power: float) -> Any:
    """x^power; for roots, the gradient at 0 (the average of a dead channel) is 0 instead of infinite."""
    if power == 2:
        return ops.square(x)
    if power == -1:
        return ops.reciprocal(x)
    if not 0 < power < 1:
        return ops.power(x, power)
    root = ops.sqrt if power == 0.5 else lambda y: ops.power(y, power)
    at_zero = ops.equal(x, 0)
    return ops.where(at_zero, ops.zeros_like(x), root(ops.where(at_zero, ops.ones_like(x), x)))


def clamp(step: Step, values: list[Value]) -> Value:
    low, high = float(step.attributes["min"]), float(step.attributes["max"])
    function = ops.relu6 if (low, high) == (0, 6) else lambda x: ops.clip(x, low, high)
    return each(function)(step, values)


def swish(step: Step, values: list[Value]) -> Value:
    if len(values) == 1:
        return each(ops.silu)(step, values)
    beta = float(numbers(values[1]))
    return each(lambda x: x * ops.sigmoid(beta * x))(step, values)


def gelu(step: Step, values: list[Value]) -> Value:
    approximate = str(step.attributes.get("approximation_mode", "ERF")).upper() == "TANH"
    return each(lambda x: ops.gelu(x, approximate=approximate))(step, values)


def convert(step: Step, values: list[Value]) -> Value:
    """Conversion to a float type is the identity, except of booleans: a layer computes in a single dtype."""
    kind = str(step.attributes["destination_type"])
    if not (kind.startswith("f") or kind == "bf16"):
        raise TopworkError(f"it converts to integers ({kind})")
    return each(lambda x: ops.cast(x, "float32") if _is_bool(x) else x)(step, values)


def hard_sigmoid(step: Step, values: list[Value]) -> Value:
    slope, offset = (float(numbers(value).reshape(())) for value in values[1:])
    return each(lambda x: ops.clip(x * slope + offset, 0, 1))(step, values)


def mish(x: Any) -> Any:
    return x * ops.tanh(ops.softplus(x))


def elu(step: Step, values: list[Value]) -> Value:
    return each(lambda x: ops.elu(x, float(step.attributes["alpha"])))(step, values)


def selu(step: Step, values: list[Value]) -> Value:
    alpha, scale = (float(numbers(value).reshape(())) for value in values[1:])
    return each(lambda x: scale * ops.elu(x, alpha))(step, values)


def prelu(step: Step, values: list[Value]) -> Value:
    """max(x, 0) + slope · min(x, 0); a row of slopes has one for each channel."""
    value, slope = values
    channels = value.shape[min(1, len(value.shape) - 1)]
    if slope.shape == (channels,):
        slope = with_shape(slope, (channels, *(1,) * (len(value.shape) - 2)))
    return combined(lambda x, s: ops.relu(x) - s * ops.relu(-x), [value, slope], value.shape)


def select(step: Step, values: list[Value]) -> Value:
    if step.attributes["auto_broadcast"] == "pdpd":
        raise TopworkError("it broadcasts as PaddlePaddle does")
    return combined(ops.where, values, step.shapes[0])
