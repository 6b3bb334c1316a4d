"""Convolution, pooling, padding and resizing, with OpenVINO's rules for sizes and padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import keras  # noqa: TID253
import numpy as np

from topwork.errors import TopworkError
from topwork.graphs.trainable.interpolation import matrices
from topwork.graphs.trainable.plan import Array, Step
from topwork.graphs.trainable.values import (
    Value,
    axes_held,
    channels_last,
    numbers,
    product,
    tensor,
)

ops = keras.ops
Borders = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Window:
    """A kernel's size, strides, dilations and padding along each spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    borders: Borders  # padding before and after
    declared: bool  # whether the graph declares padding; rounding up may add some
    same: bool  # whether the padding equals TensorFlow's "SAME"

    @property
    def is_bare(self) -> bool:
        return not any(before or after for before, after in self.borders)


def window_of(step: Step, value: Value, kernel: Sequence[int]) -> Window:
    """The padding follows from the output size: out = ⌊or⌈(in + before + after − reach) / stride⌉or⌋ + 1."""
    attributes = step.attributes
    sizes, results = value.shape[2:], step.shapes[0][2:]
    strides = tuple(attributes["strides"])
    dilations = tuple(attributes.get("dilations") or [1] * len(sizes))
    valid = attributes["auto_pad"] == "valid"
    begin = [0] * len(sizes) if valid else attributes["pads_begin"]
    end = [0] * len(sizes) if valid else attributes["pads_end"]
    borders, same = [], []
    for i, (size, result) in enumerate(zip(sizes, results, strict=True)):
        reach = (kernel[i] - 1) * dilations[i] + 1
        total = max(0, (result - 1) * strides[i] + reach - size)
        borders.append((begin[i], max(0, total - begin[i])))
        same.append(result == -(-size // strides[i]) and borders[-1] == (total // 2, total - total // 2))
    return Window(tuple(kernel), strides, dilations, borders, any([*begin, *end]), all(same))


def bordered(x: Any, window: Window, fill: float) -> Any:
    """The tensor (…, spatial axes, channels) with the window's padding."""
    if window.is_bare:
        return x
    return ops.pad(x, [(0, 0), *window.borders, (0, 0)], constant_values=fill)


def convolution(step: Step, values: list[Value]) -> Value:
    """Convolution. The kernel is (O, I, …) or (groups, O / groups, I / groups, …)."""
    image, kernel = channels_last(values[0]), values[1]
    if kernel.of_images or not image.of_images:
        raise TopworkError("its kernel is computed from the picture")
    grouped = step.kind == "GroupConvolution"
    window = window_of(step, image, kernel.shape[3 if grouped else 2 :])
    x = tensor(image)
    weights = tensor(kernel, like=x)
    padding = "same" if window.same else "valid"
    if not window.same:
        x = bordered(x, window, 0.0)
    spatial = range(2, 2 + len(window.kernel))
    # TensorFlow has no dilated convolution with strides, so compute all positions and drop some afterwards.
    skipped = max(window.strides) > 1 and max(window.dilations) > 1
    if skipped and window.same:
        x, padding = bordered(tensor(image), window, 0.0), "valid"
    options = {
        "strides": (1,) * len(spatial) if skipped else window.strides,
        "padding": padding,
        "data_format": "channels_last",
        "dilation_rate": window.dilations,
    }
    if grouped and kernel.shape[2] == 1 and len(spatial) <= 2 and len(set(window.strides)) == 1:
        weights = ops.reshape(weights, (*kernel.shape[:2], *window.kernel))  # (C, multiplier, …)
        x = ops.depthwise_conv(x, ops.transpose(weights, (*spatial, 0, 1)), **options)
    else:
        if grouped:
            weights = ops.reshape(weights, (prod(kernel.shape[:2]), *kernel.shape[2:]))
        x = ops.conv(x, ops.transpose(weights, (*spatial, 1, 0)), **options)
    if skipped:
        x = x[(slice(None), *(slice(None, None, stride) for stride in window.strides))]
    return Value(x, step.shapes[0], of_images=True, last=True)


def pointwise(step: Step, values: list[Value]) -> Value:
    """A 1x1 convolution as a matrix product, whose gradients TensorFlow computes faster."""
    x = tensor(channels_last(values[0]))
    weights = tensor(values[1], like=x)
    outputs, inputs = values[1].shape[:2]
    rows = product(ops.reshape(x, (-1, inputs)), ops.transpose(ops.reshape(weights, (outputs, inputs))))
    shape = step.shapes[0]
    return Value(ops.reshape(rows, (-1, *shape[2:], outputs)), shape, of_images=True, last=True)


def max_pool(step: Step, values: list[Value]) -> Value:
    image = channels_last(values[0])
    window = window_of(step, image, step.attributes["kernel"])
    if max(window.dilations) > 1:
        raise TopworkError("its window is dilated")
    x = tensor(image)
    if not window.same:
        x = bordered(x, window, -np.inf)
    padding = "same" if window.same else "valid"
    x = ops.max_pool(x, window.kernel, window.strides, padding, "channels_last")
    return Value(x, step.shapes[0], of_images=image.of_images, last=True)


def average_pool(step: Step, values: list[Value]) -> Value:
    """The mean over a window, counting only real pixels or also the padding."""
    image = channels_last(values[0])
    window = window_of(step, image, step.attributes["kernel"])
    if max(window.dilations) > 1:
        raise TopworkError("its window is dilated")
    x = bordered(tensor(image), window, 0.0)
    x = ops.average_pool(x, window.kernel, window.strides, "valid", "channels_last")
    # A rounded-up last window may extend beyond the picture. Like OpenVINO's CPU plugin, don't count that part if
    # the graph declares no padding; otherwise count it.
    exact = step.attributes["exclude-pad"] or not window.declared
    if exact and not window.is_bare:
        x = ops.multiply(x, ops.convert_to_tensor(_shares(image, window, step), dtype=x.dtype))
    return Value(x, step.shapes[0], of_images=image.of_images, last=True)


def _shares(image: Value, window: Window, step: Step) -> Array:
    """The window's area divided by its area inside the picture, at each position: (1, …, 1)."""
    whole = np.ones((), np.float64)
    sizes, results = image.shape[2:], step.shapes[0][2:]
    for i, kernel in enumerate(window.kernel):
        starts = np.arange(results[i]) * window.strides[i] - window.borders[i][0]
        first = np.maximum(starts, 0)
        behind = np.minimum(starts + kernel, sizes[i])
        whole = np.multiply.outer(whole, kernel / np.maximum(behind - first, 1))
    return whole[None, ..., None].astype(np.float32)


def pad(step: Step, values: list[Value]) -> Value:
    """Pad with a constant or with repeated pixels (edge, reflect, symmetric); negative padding crops."""
    value = values[0]
    before, after = (numbers(v).tolist() for v in values[1:3])
    mode = step.attributes["pad_mode"]
    fill = float(numbers(values[3])) if len(values) > 3 else 0.0
    if value.of_images and (before[0] or after[0]):
        raise TopworkError("it pads the axis of images")
    x = tensor(value)
    for axis, held in zip(range(len(value.shape)), axes_held(value, range(len(value.shape))), strict=True):
        size = value.shape[axis]
        if min(before[axis], after[axis]) < 0:
            keep = np.arange(max(0, -before[axis]), size - max(0, -after[axis]))
            x = ops.take(x, keep, axis=held)
        width = (max(0, before[axis]), max(0, after[axis]))
        if mode != "constant" and any(width):
            x = ops.take(x, np.pad(np.arange(size), width, mode=mode), axis=held)
    if mode == "constant":
        widths = [(max(0, before[axis]), max(0, after[axis])) for axis in value.order]
        x = ops.pad(x, widths, constant_values=fill)
    return Value(x, step.shapes[0], value.of_images, value.last)


def interpolate(step: Step, values: list[Value]) -> Value:
    """Resize, as a matrix product along each axis."""
    value = values[0]
    known = [numbers(given) for given in values[1:]]
    for axis, matrix in matrices(step.attributes, known, value.shape, step.shapes[0]).items():
        if value.of_images and axis == 0:
            raise TopworkError("it resizes the axis of images")
        held = axes_held(value, [axis])[0]
        x = tensor(value)
        x = product(ops.moveaxis(x, held, -1), ops.convert_to_tensor(matrix, dtype=x.dtype))
        shape = (*value.shape[:axis], matrix.shape[1], *value.shape[axis + 1 :])
        value = Value(ops.moveaxis(x, -1, held), shape, value.of_images, value.last)
    return value
