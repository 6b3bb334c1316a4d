"""Operators along axes: reductions, normalisation, concatenation, transposition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import keras  # noqa: TID253

from topwork.graphs.trainable.elementwise import add, combined, to_the
from topwork.graphs.trainable.plan import Step
from topwork.graphs.trainable.values import (
    Operator,
    Value,
    along,
    apart,
    axes_held,
    count_images,
    numbers,
    plain,
    reshaped,
    same_layout,
    tensor,
    with_shape,
)

ops = keras.ops


def softmax(function: Callable[..., Any]) -> Operator:
    """Softmax or its logarithm along one axis."""

    def apply(step: Step, values: list[Value]) -> Value:
        return along(lambda x, axes: function(x, axis=axes[0]), values[0], [step.attributes["axis"]])

    return apply


def reduced(function: Callable[..., Any]) -> Operator:
    def apply(step: Step, values: list[Value]) -> Value:
        value, axes = values[0], [int(a) % len(values[0].shape) for a in numbers(values[1]).ravel()]
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(value.shape))
        held = axes_held(value, axes)
        if value.of_images and 0 in axes:
            x = function(apart(value), axis=tuple(axis + 1 for axis in held), keepdims=True)
            x = reshaped(x, tuple(kept[axis] for axis in value.order), of_images=True)
        else:
            x = function(tensor(value), axis=tuple(held), keepdims=True) if held else tensor(value)
        return with_shape(Value(x, kept, value.of_images, value.last), step.shapes[0])

    return apply


def mean(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """The mean in float64 too: `keras.ops.mean` computes it via float32 on JAX (an advantage for half precision)."""
    if keras.backend.standardize_dtype(x.dtype) != "float64":
        return ops.mean(x, axis=axis, keepdims=keepdims)
    return ops.sum(x, axis=axis, keepdims=keepdims) / prod(x.shape[a] for a in axis)


def sum_absolute(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    return ops.sum(ops.absolute(x), axis=axis, keepdims=keepdims)


def norm(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    return to_the(ops.sum(ops.square(x), axis=axis, keepdims=keepdims), 0.5)


def mvn(step: Step, values: list[Value]) -> Value:
    """Subtract the mean and divide by the standard deviation, as layer normalisation does before it scales."""
    attributes = step.attributes
    outside = str(attributes["eps_mode"]).upper() == "OUTSIDE_SQRT"
    scaled = bool(attributes["normalize_variance"])

    def apply(x: Any, axes: tuple[int, ...]) -> Any:
        return _normalised(x, axes, attributes["eps"], outside=outside, scaled=scaled)

    return along(apply, values[0], numbers(values[1]).ravel().tolist())


def _normalised(
    x: Any, axes: tuple[int, ...], eps: float, *, outside: bool = False, scaled: bool = True
) -> Any:
    """Compute in float32 at least."""
    kind = keras.backend.standardize_dtype(x.dtype)
    x = ops.cast(x, "float32") if kind in ("float16", "bfloat16") else x
    x = x - mean(x, axis=axes, keepdims=True)
    if scaled:
        variance = mean(ops.square(x), axis=axes, keepdims=True)
        x = x / (to_the(variance, 0.5) + eps) if outside else x * ops.rsqrt(variance + eps)
    return ops.cast(x, kind)


def group_normalization(step: Step, values: list[Value]) -> Value:
    value, *affine = values
    _, channels, *sides = value.shape
    groups, eps = step.attributes["num_groups"], step.attributes["epsilon"]
    grouped = with_shape(value, (value.shape[0], groups, channels // groups, *sides))
    grouped = along(lambda x, axes: _normalised(x, axes, eps), grouped, range(2, len(grouped.shape)))
    scale, offset = (with_shape(some, (channels, *(1,) * len(sides))) for some in affine)
    scaled = combined(ops.multiply, [with_shape(grouped, value.shape), scale], value.shape)
    return combined(add, [scaled, offset], value.shape)


def normalize_l2(step: Step, values: list[Value]) -> Value:
    """Divide by the root of the sum of squares, to which `eps` is added, or which is at least `eps`."""
    eps, added = step.attributes["eps"], str(step.attributes["eps_mode"]).lower() == "add"

    def apply(x: Any, axes: tuple[int, ...]) -> Any:
        total = ops.sum(ops.square(x), axis=axes, keepdims=True) if axes else ops.square(x)
        return x * ops.rsqrt(total + eps if added else ops.maximum(total, eps))

    return along(apply, values[0], numbers(values[1]).ravel().tolist())


def concat(step: Step, values: list[Value]) -> Value:
    axis, shape = step.attributes["axis"] % len(step.shapes[0]), step.shapes[0]
    values = same_layout(values) if len(shape) > 2 else values
    first = next((value for value in values if value.of_images), None)
    held = axes_held(values[0], [axis])[0]
    if first is None or (axis and all(value.of_images for value in values)):
        parts = [tensor(value, None if first is None else tensor(first)) for value in values]
        return Value(ops.concatenate(parts, axis=held), shape, first is not None, values[0].last)
    like = tensor(first)
    known = [Value(tensor(value, like), value.shape, value.of_images, value.last) for value in values]
    x = ops.concatenate([apart(value, count_images(first)) for value in known], axis=held + 1)
    result = Value(None, shape, of_images=True, last=values[0].last)
    return Value(reshaped(x, result.held, of_images=True), shape, of_images=True, last=result.last)


def transpose(step: Step, values: list[Value]) -> Value:
    given = numbers(values[1]).tolist() if len(values) > 1 else []
    return transposed(values[0], given or range(len(step.shapes[0]))[::-1])


def transposed(value: Value, order: Sequence[int]) -> Value:
    """The same value with the graph's axes in another order."""
    perm, rank = tuple(order), len(value.shape)
    shape = tuple(value.shape[axis] for axis in perm)
    if value.of_images and perm[0] != 0:
        x = ops.transpose(apart(plain(value)), (0, *(axis + 1 for axis in perm)))
        return Value(reshaped(x, shape, of_images=True), shape, of_images=True)
    if rank > 2 and value.last and perm == (0, *range(2, rank), 1):  # to channels last, as it is stored
        return Value(value.tensor, shape, value.of_images)
    if rank > 2 and not value.last and value.of_images and perm == (0, rank - 1, *range(1, rank - 1)):
        return Value(value.tensor, shape, of_images=True, last=True)
    x = ops.transpose(tensor(value), tuple(axes_held(value, perm)))
    return Value(x, shape, value.of_images)


def reshape(step: Step, values: list[Value]) -> Value:
    """Reshape, Squeeze, Unsqueeze: the output shape is known."""
    return with_shape(values[0], step.shapes[0])


def shuffle_channels(step: Step, values: list[Value]) -> Value:
    """Take the first of each group, then the second of each group, and so on."""
    value, groups = values[0], step.attributes["group"]
    axis = step.attributes["axis"] % len(value.shape)
    before, size, after = value.shape[:axis], value.shape[axis], value.shape[axis + 1 :]
    split = with_shape(value, (*before, groups, size // groups, *after))
    order = list(range(len(split.shape)))
    order[axis : axis + 2] = axis + 1, axis
    return with_shape(transposed(split, order), value.shape)


def depth_to_space(step: Step, values: list[Value]) -> Value:
    """Arrange blocks of b · b channels as pixels."""
    value, block = values[0], step.attributes["block_size"]
    first, channels, *sides = value.shape
    count, sizes = len(sides), [block] * len(sides)
    left = channels // block**count
    if step.attributes["mode"] == "blocks_first":
        split, start, depth = (first, *sizes, left, *sides), 1, count + 1
    else:
        split, start, depth = (first, left, *sizes, *sides), 2, 1
    pixels = [axis for i in range(count) for axis in (count + 2 + i, start + i)]
    return with_shape(transposed(with_shape(value, split), [0, depth, *pixels]), step.shapes[0])


def space_to_depth(step: Step, values: list[Value]) -> Value:
    """The inverse of `depth_to_space`."""
    value, block = values[0], step.attributes["block_size"]
    first, channels, *sides = value.shape
    split = (first, channels, *(size for side in sides for size in (side // block, block)))
    outer, inner = ([start + 2 * i for i in range(len(sides))] for start in (2, 3))
    depth = [*inner, 1] if step.attributes["mode"] == "blocks_first" else [1, *inner]
    return with_shape(transposed(with_shape(value, split), [0, *depth, *outer]), step.shapes[0])
