"""The values that flow between a layer's operators: tensors for N images, each standing for one of the graph's.

The graph computes one image, with tensors of shape (a, b, …). A `Value` holds N of them, with a first axis of length
N·a and images outermost. So if the graph splits or merges its first axis (a batch of views, a row of patches), images
are never mixed. A constant does not depend on an image and has no N.

Graphs are channels-first, but convolution needs channels last (TensorFlow's on a CPU supports nothing else). So a
value may be stored channels-last, while its shape is still given as the graph's. Operators that work with both keep
the layout, and no tensor is transposed between two convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import keras  # noqa: TID253
import numpy as np

from topwork.errors import TopworkError
from topwork.graphs.trainable.plan import Array, Shape, Step

ops = keras.ops


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A tensor of N images, or a constant."""

    tensor: Any  # a tensor, a variable, or an array (a constant that is not trained)
    shape: Shape  # in the graph, for one image, channels first
    of_images: bool  # whether there are N of them
    last: bool = False  # whether the tensor is channels-last, with axes (0, 2, …, 1)

    @property
    def order(self) -> tuple[int, ...]:
        """The graph's axis for each axis of the tensor."""
        rank = len(self.shape)
        return (0, *range(2, rank), 1) if self.last else tuple(range(rank))

    @property
    def held(self) -> Shape:
        """The shape for one image, with the tensor's axis order."""
        return tuple(self.shape[axis] for axis in self.order)


Operator = Callable[[Step, list[Value]], Value]


def constant(tensor: Any) -> Value:
    return Value(tensor, tuple(tensor.shape), of_images=False)


def numbers(value: Value) -> Array:
    """A constant argument: axes, sizes, indices."""
    if not isinstance(value.tensor, np.ndarray):
        raise TopworkError("one of its arguments is computed from the picture")
    return value.tensor


def tensor(value: Value, like: Any = None) -> Any:
    """The value's tensor; an array is converted, to the dtype of `like` unless it is boolean."""
    if isinstance(value.tensor, np.ndarray):
        dtype = "float32" if like is None else keras.backend.standardize_dtype(like.dtype)
        dtype = "bool" if value.tensor.dtype == bool else dtype
        return ops.convert_to_tensor(value.tensor, dtype=dtype)
    return ops.convert_to_tensor(value.tensor)


def plain(value: Value) -> Value:
    """The same value with axes in the graph's order."""
    return _ordered(value, last=False) if value.last else value


def channels_last(value: Value) -> Value:
    """The same value, channels last."""
    return value if value.last else _ordered(value, last=True)


def _ordered(value: Value, *, last: bool) -> Value:
    turned = replace(value, last=last)
    perm = tuple(value.order.index(axis) for axis in turned.order)
    if isinstance(value.tensor, np.ndarray):
        return replace(turned, tensor=value.tensor.transpose(perm))
    if value.shape[1] == 1 or prod(value.shape[2:]) == 1:  # no element moves
        return replace(turned, tensor=reshaped(tensor(value), turned.held, value.of_images))
    return replace(turned, tensor=ops.transpose(tensor(value), perm))


def reshaped(x: Any, shape: Shape, of_images: bool) -> Any:
    """Reshape to `shape`, given for one image. A separate axis of images is merged into the first axis."""
    return ops.reshape(x, (-1, *shape[1:]) if of_images else shape)


def with_shape(value: Value, shape: Shape) -> Value:
    """The same elements in the same order, with the graph's shape `shape`."""
    value = plain(value)
    if value.shape == shape:
        return value
    if isinstance(value.tensor, np.ndarray):
        return constant(value.tensor.reshape(shape))
    return Value(reshaped(tensor(value), shape, value.of_images), shape, value.of_images)


def apart(value: Value, count: Any = None) -> Any:
    """The tensor with a separate axis of images: (N, a, …). With `count`, constants are repeated as well."""
    x = tensor(value)
    if value.of_images:
        return ops.reshape(x, (-1, *value.held))
    x = ops.expand_dims(x, 0)
    return x if count is None else ops.broadcast_to(x, (count, *value.held))


def count_images(value: Value) -> Any:
    """N, static or symbolic."""
    return ops.shape(tensor(value))[0] // value.shape[0]


def same_layout(values: Sequence[Value]) -> list[Value]:
    """All channels-last if a value of images is; else all in the graph's order. Ranks must be equal."""
    last = any(value.last for value in values if value.of_images)
    return [channels_last(value) if last else plain(value) for value in values]


def axes_held(value: Value, axes: Sequence[int]) -> list[int]:
    """The tensor's axes for the graph's `axes`, which may be negative."""
    rank = len(value.shape)
    return [value.order.index(axis % rank) for axis in axes]


def along(function: Callable[[Any, tuple[int, ...]], Any], value: Value, axes: Sequence[int]) -> Value:
    """Apply a function of a tensor and some of its axes that keeps the shape; `axes` are the graph's."""
    axes = [axis % len(value.shape) for axis in axes]
    held = axes_held(value, axes)
    if value.of_images and 0 in axes:
        x = function(apart(value), tuple(axis + 1 for axis in held))
        return replace(value, tensor=reshaped(x, value.held, of_images=True))
    return replace(value, tensor=function(tensor(value), tuple(held)))


def product(x: Any, y: Any) -> Any:
    """Matrix product, also of two batches. `keras.ops.matmul` computes float64 via float32 on PyTorch."""
    return x @ y
