"""Operators that take elements of a tensor, or repeat them: gathering, slicing, splitting, rolling, tiling."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import keras  # noqa: TID253
import numpy as np

from topwork.graphs.trainable.elementwise import combined
from topwork.graphs.trainable.plan import Array, Shape, Step
from topwork.graphs.trainable.values import (
    Value,
    along,
    apart,
    axes_held,
    constant,
    numbers,
    plain,
    reshaped,
    tensor,
    with_shape,
)

ops = keras.ops


def gather(step: Step, values: list[Value]) -> Value:
    value, indices = values[0], numbers(values[1])
    axis = int(numbers(values[2]).reshape(())) % len(value.shape)
    batch = step.attributes.get("batch_dims", 0)
    batch += indices.ndim if batch < 0 else 0
    if not batch:
        return pick(value, axis, indices, step.shapes[0])
    places = np.arange(prod(value.shape)).reshape(value.shape)
    parts = [places[at].take(indices[at], axis=axis - batch) for at in np.ndindex(*value.shape[:batch])]
    chosen = np.stack(parts).reshape(step.shapes[0])
    return pick(with_shape(value, (places.size,)), 0, chosen, step.shapes[0])


def gather_nd(step: Step, values: list[Value]) -> Value:
    """Take blocks; the last axis of the indices says where in the first axes each block is."""
    value, indices = values[0], numbers(values[1])
    batch = step.attributes.get("batch_dims", 0)
    grid = np.indices((*indices.shape[:batch], *(1,) * (indices.ndim - 1 - batch)))[:batch]  # (batch, …)
    whole = [*np.broadcast_to(grid, (batch, *indices.shape[:-1])), *np.moveaxis(indices, -1, 0)]
    first = value.shape[: len(whole)]
    whole = [np.where(i < 0, i + size, i) for i, size in zip(whole, first, strict=True)]
    blocks = with_shape(value, (prod(first), *value.shape[len(whole) :]))
    return pick(blocks, 0, np.ravel_multi_index(tuple(whole), first), step.shapes[0])


def pick(value: Value, axis: int, indices: Array, shape: Shape) -> Value:
    """Take `indices` along one of the graph's axes; the result has the graph's shape `shape`."""
    axis %= len(value.shape)
    indices = np.where(indices < 0, indices + value.shape[axis], indices)
    if indices.ndim == 1 and not (value.of_images and axis == 0):
        held = axes_held(value, [axis])[0]
        return Value(ops.take(tensor(value), indices, axis=held), shape, value.of_images, value.last)
    value = plain(value)
    if not value.of_images:
        return Value(ops.take(tensor(value), indices, axis=axis), shape, of_images=False)
    x = ops.take(apart(value), indices, axis=axis + 1)
    return Value(reshaped(x, shape, of_images=True), shape, of_images=True)


def slice_axes(step: Step, values: list[Value]) -> Value:
    start, stop, stride = (numbers(value).tolist() for value in values[1:4])
    axes = numbers(values[4]).tolist() if len(values) > 4 else range(len(start))
    cuts = [slice(None)] * len(values[0].shape)
    for axis, *cut in zip(axes, start, stop, stride, strict=True):
        cuts[axis] = slice(*cut)
    return _cut(values[0], cuts, step.shapes[0])


def strided_slice(step: Step, values: list[Value]) -> Value:
    value, rank = values[0], len(values[0].shape)
    begin, end = (numbers(v).tolist() for v in values[1:3])
    stride = numbers(values[3]).tolist() if len(values) > 3 else [1] * len(begin)

    def masked(name: str) -> list[bool]:
        mask = list(step.attributes[f"{name}_mask"])
        return [bool(m) for m in mask + [0] * (len(begin) - len(mask))]

    no_begin, no_end, new, shrink, ellipsis = map(
        masked, ("begin", "end", "new_axis", "shrink_axis", "ellipsis")
    )
    cuts: list[slice] = []
    for i in range(len(begin)):
        if ellipsis[i]:
            behind = sum(not new[j] for j in range(i + 1, len(begin)))
            cuts += [slice(None)] * (rank - len(cuts) - behind)
        elif shrink[i]:
            cuts.append(slice(begin[i], None if begin[i] == -1 else begin[i] + 1))
        elif not new[i]:
            cuts.append(slice(None if no_begin[i] else begin[i], None if no_end[i] else end[i], stride[i]))
    return _cut(value, cuts + [slice(None)] * (rank - len(cuts)), step.shapes[0])


def _cut(value: Value, cuts: Sequence[slice], shape: tuple[int, ...]) -> Value:
    """Slice along each of the graph's axes, then reshape to the graph's shape (new or dropped axes)."""
    ranges = [range(size)[cut] for size, cut in zip(value.shape, cuts, strict=True)]
    kept = tuple(len(chosen) for chosen in ranges)
    off = 1 if value.of_images and kept[0] != value.shape[0] else 0
    x = apart(value) if off else tensor(value)
    for axis, chosen in enumerate(ranges):
        held = axes_held(value, [axis])[0] + off
        if chosen == range(value.shape[axis]):
            continue
        if chosen.step > 0:
            x = x[(slice(None),) * held + (slice(chosen.start, chosen.stop, chosen.step),)]
        else:  # PyTorch has no slices with negative steps
            x = ops.take(x, np.array(chosen), axis=held)
    if off:
        x = reshaped(x, tuple(kept[axis] for axis in value.order), of_images=True)
    return with_shape(Value(x, kept, value.of_images, value.last), shape)


def split(step: Step, values: list[Value]) -> Value:
    """One part: output `step.place.port`."""
    value, port = values[0], step.place.port
    axis = int(numbers(values[1]).reshape(())) % len(value.shape)
    if step.kind == "Split":
        lengths = [value.shape[axis] // step.attributes["num_splits"]] * (port + 1)
    else:
        lengths = numbers(values[2]).ravel().tolist()
        rest = value.shape[axis] - sum(length for length in lengths if length >= 0)
        lengths = [rest if length < 0 else length for length in lengths]
    cuts = [slice(None)] * len(value.shape)
    cuts[axis] = slice(sum(lengths[:port]), sum(lengths[: port + 1]))
    return _cut(value, cuts, step.shapes[0])


def roll(step: Step, values: list[Value]) -> Value:
    """Shift elements along axes; what leaves at one end enters at the other."""
    value, axes = values[0], np.atleast_1d(numbers(values[2])).tolist()
    for axis, shift in zip(
        axes, np.broadcast_to(numbers(values[1]).ravel(), len(axes)).tolist(), strict=True
    ):
        start = -shift % value.shape[axis]
        value = along(partial(_rolled, start=start), value, [axis]) if start else value
    return value


def _rolled(x: Any, axes: tuple[int, ...], start: int) -> Any:
    """Begin with element `start`. (`ops.roll` can't be converted to LiteRT.)"""
    axis = axes[0]
    before = (slice(None),) * axis
    return ops.concatenate([x[(*before, slice(start, None))], x[(*before, slice(0, start))]], axis=axis)


def tile(step: Step, values: list[Value]) -> Value:
    """Repeat the whole tensor along each axis."""
    shape = step.shapes[0]
    value = with_shape(values[0], (1,) * (len(shape) - len(values[0].shape)) + values[0].shape)
    for axis, (size, wanted) in enumerate(zip(value.shape, shape, strict=True)):
        if size != wanted:
            longer = (*value.shape[:axis], wanted, *value.shape[axis + 1 :])
            value = pick(value, axis, np.tile(np.arange(size), wanted // size), longer)
    return value


def broadcast(step: Step, values: list[Value]) -> Value:
    """Repeat along axes of length 1, aligned at the last axis or as `axes_mapping` (the third input) says."""
    value, shape = values[0], step.shapes[0]
    if len(values) > 2:
        given = dict(zip(numbers(values[2]).ravel().tolist(), value.shape, strict=True))
        value = with_shape(value, tuple(given.get(axis, 1) for axis in range(len(shape))))
    return combined(ops.multiply, [value, constant(np.ones(shape, np.float32))], shape)
