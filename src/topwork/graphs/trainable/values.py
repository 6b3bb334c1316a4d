"""What flows between the operators of a layer: a tensor of many images that stands for one of the graph's.

The graph computes one image: its tensors have a shape (a, b, …). A `Value` holds N of them with its first axis
N·a long, images outermost; so an axis that the graph adds to or takes from its first one (a batch of views, a
row of patches) never mixes images. What depends on no image, a constant, has no N.

Graphs put channels first; convolution wants them last (on a processor, TensorFlow's has no other way). So a
value may be kept channels-last, its shape still told as the graph's. Whoever can work on both keeps it so, and
no tensor is turned around between two convolutions.
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
    """`tensor`: a tensor, a variable, or an array (a constant that is not trained).

    `shape`: the graph's, for one image, channels first. `of_images`: whether there are N of them. `last`: whether
    the tensor's axes are in the order (0, 2, …, 1) instead.
    """

    tensor: Any
    shape: Shape
    of_images: bool
    last: bool = False

    @property
    def order(self) -> tuple[int, ...]:
        """Which of the graph's axes stands at each of the tensor's."""
        rank = len(self.shape)
        return (0, *range(2, rank), 1) if self.last else tuple(range(rank))

    @property
    def held(self) -> Shape:
        """The shape in the tensor's own order, for one image."""
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
    """The value's tensor; an array becomes one, of the type of `like`."""
    if isinstance(value.tensor, np.ndarray):
        dtype = "float32" if like is None else keras.backend.standardize_dtype(like.dtype)
        return ops.convert_to_tensor(value.tensor, dtype=dtype)
    return ops.convert_to_tensor(value.tensor)


def plain(value: Value) -> Value:
    """The same, its axes in the graph's order."""
    return _ordered(value, last=False) if value.last else value


def channels_last(value: Value) -> Value:
    """The same, channels last."""
    return value if value.last else _ordered(value, last=True)


def _ordered(value: Value, *, last: bool) -> Value:
    turned = replace(value, last=last)
    perm = tuple(value.order.index(axis) for axis in turned.order)
    if isinstance(value.tensor, np.ndarray):
        return replace(turned, tensor=value.tensor.transpose(perm))
    if value.shape[1] == 1 or prod(value.shape[2:]) == 1:  # nothing changes place
        return replace(turned, tensor=reshaped(tensor(value), turned.held, value.of_images))
    return replace(turned, tensor=ops.transpose(tensor(value), perm))


def reshaped(x: Any, shape: Shape, of_images: bool) -> Any:
    """A tensor in another shape, given as the graph's, for one image. Also merges a separate axis of images."""
    return ops.reshape(x, (-1, *shape[1:]) if of_images else shape)


def with_shape(value: Value, shape: Shape) -> Value:
    """The same numbers in the same order in the graph's shape `shape`."""
    value = plain(value)
    if value.shape == shape:
        return value
    return Value(reshaped(tensor(value), shape, value.of_images), shape, value.of_images)


def apart(value: Value, count: Any = None) -> Any:
    """The tensor with the images on an axis of their own: (N, a, …); with `count`, a constant too, repeated."""
    x = tensor(value)
    if value.of_images:
        return ops.reshape(x, (-1, *value.held))
    x = ops.expand_dims(x, 0)
    return x if count is None else ops.broadcast_to(x, (count, *value.held))


def count_images(value: Value) -> Any:
    """N, known or not."""
    return ops.shape(tensor(value))[0] // value.shape[0]


def same_layout(values: Sequence[Value]) -> list[Value]:
    """All channels-last if one that depends on the images is; else all in the graph's order. Ranks are equal."""
    last = any(value.last for value in values if value.of_images)
    return [channels_last(value) if last else plain(value) for value in values]


def axes_held(value: Value, axes: Sequence[int]) -> list[int]:
    """The graph's `axes`, negative ones too, as the tensor's."""
    rank = len(value.shape)
    return [value.order.index(axis % rank) for axis in axes]


def product(x: Any, y: Any) -> Any:
    """Of matrices, or of two batches of them. Keras' own takes float64 through float32 on PyTorch."""
    return x @ y
