"""Convert a picture's bytes to a network's input: its value range and channel order.

Few files state the range. If a network scales its input itself, its first operators, combined into one scale and one
offset, show which range it expects. Otherwise the usual range of the format is assumed, and reported as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from topwork.recipe import PixelRange

if TYPE_CHECKING:
    import openvino as ov

Array = np.ndarray[Any, np.dtype[np.float32]]
How = Literal["chosen", "stated", "found", "assumed"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of [0, 1] pixels, RGB
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
CAFFE_MEAN = (103.939, 116.779, 123.68)  # of [0, 255] pixels, BGR


@dataclass(frozen=True, slots=True)
class Pixels:
    """The network's input is x · scale + offset for a byte x of each RGB channel."""

    range: PixelRange
    how: How  # chosen by the user, stated by the source, found in the network, or assumed for the format
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]
    bgr: bool = False  # whether the order of the channels is then reversed


def pixels(value_range: PixelRange, how: How) -> Pixels:
    """The scale and offset of a named range."""
    if value_range == "0..1":
        return Pixels(value_range, how, (1 / 255,) * 3, (0.0,) * 3)
    if value_range == "-1..1":
        return Pixels(value_range, how, (1 / 127.5,) * 3, (-1.0,) * 3)
    if value_range == "imagenet":
        r, g, b = (1 / (255 * d) for d in IMAGENET_DEVIATION)
        u, v, w = (-m / d for m, d in zip(IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True))
        return Pixels(value_range, how, (r, g, b), (u, v, w))
    if value_range == "caffe":
        b, g, r = (-mean for mean in CAFFE_MEAN)
        return Pixels(value_range, how, (1.0,) * 3, (r, g, b), bgr=True)
    assert value_range == "0..255", get_args(PixelRange)
    return Pixels(value_range, how, (1.0,) * 3, (0.0,) * 3)


def find_range(graph: ov.Model, channel_axis: int) -> PixelRange | None:
    """The range that a network expects, judged by its own scaling; None if it does not scale its input.

    A factor near 1/255 or 1/127.5 scales bytes to order one. A factor of about 2 with an offset of −1 expects
    [0, 1], as do factors of 4 to 5, the inverse standard deviations of ImageNet.
    """
    gathered = _own_scaling(graph, channel_axis)
    if gathered is None:
        return None
    scale, offset = gathered
    size = float(np.abs(scale).mean())
    if size < 0.1 or (size < 2 and np.abs(offset).mean() > 50):  # the latter: a mean in bytes is subtracted
        return "0..255"
    if np.allclose(scale, 1) and np.allclose(offset, 0):
        return None
    return "0..1" if 1.5 <= size <= 10 else None


def _own_scaling(graph: ov.Model, channel_axis: int) -> tuple[Array, Array] | None:
    """The affine function of the operators next to the input: scale and offset for each channel."""
    scale: Array = np.ones(3, np.float32)
    offset: Array = np.zeros(3, np.float32)
    output = graph.input(0)
    axis = channel_axis
    met = False
    while True:
        targets = [
            entry for entry in output.get_target_inputs() if entry.get_node().get_type_name() != "ShapeOf"
        ]
        if len(targets) != 1:
            break
        node = targets[0].get_node()
        kind = node.get_type_name()
        if kind == "Transpose" and node.input_value(1).get_node().get_type_name() == "Constant":
            order = [int(i) for i in node.input_value(1).get_node().data.ravel()]
            axis = order.index(axis)
        elif kind in ("Add", "Subtract", "Multiply", "Divide"):
            side = 1 - targets[0].get_index()
            value = _constant(node.input_value(side).get_node(), axis)
            if value is None or (side == 0 and kind in ("Subtract", "Divide")):
                break
            if kind == "Add":
                offset = offset + value
            elif kind == "Subtract":
                offset = offset - value
            else:
                factor: Array = value if kind == "Multiply" else np.float32(1) / value
                scale, offset = scale * factor, offset * factor
            met = True
        elif kind != "Convert":
            break
        output = node.output(0)
    return (scale, offset) if met else None


def _constant(node: Any, axis: int) -> Array | None:
    """The constant as one number per channel; None if it is not one."""
    while node.get_type_name() in ("Convert", "Reshape", "Unsqueeze"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant":
        return None
    data = np.asarray(node.data, np.float32)
    if data.size == 1:
        return np.full(3, data.ravel()[0], np.float32)
    return data.ravel() if data.size == 3 else None
