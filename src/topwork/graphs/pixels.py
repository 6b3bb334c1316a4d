"""How a picture's bytes become what a network wants: its range of values, and the order of its channels.

Files seldom say. A network that scales its input itself shows it: the first operators, gathered into one scale
and one offset, tell the range they expect. Where nothing shows, the format's custom is assumed, and said.
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
    """x · scale + offset makes a byte of each RGB channel the network's input; `bgr` turns the channels about.

    `how`: the user chose it, the source states it, the network shows it, or it is the format's custom.
    """

    range: PixelRange
    how: How
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]
    bgr: bool = False


def pixels(range: PixelRange, how: How) -> Pixels:
    """The arithmetic of a named range."""
    if range == "0..1":
        return Pixels(range, how, (1 / 255,) * 3, (0.0,) * 3)
    if range == "-1..1":
        return Pixels(range, how, (1 / 127.5,) * 3, (-1.0,) * 3)
    if range == "imagenet":
        r, g, b = (1 / (255 * d) for d in IMAGENET_DEVIATION)
        u, v, w = (-m / d for m, d in zip(IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True))
        return Pixels(range, how, (r, g, b), (u, v, w))
    if range == "caffe":
        b, g, r = (-mean for mean in CAFFE_MEAN)
        return Pixels(range, how, (1.0,) * 3, (r, g, b), bgr=True)
    assert range == "0..255", get_args(PixelRange)
    return Pixels(range, how, (1.0,) * 3, (0.0,) * 3)


def find_range(graph: ov.Model, channel_axis: int) -> PixelRange | None:
    """What range a network's own scaling shows that it expects; None where it does not scale its input.

    A factor near 1/255 or 1/127.5 makes bytes into numbers of order one. A factor of about 2 with an offset of
    −1 expects [0, 1]; so do ImageNet's deviations, as factors of 4 to 5.
    """
    gathered = _own_scaling(graph, channel_axis)
    if gathered is None:
        return None
    scale, offset = gathered
    size = float(np.abs(scale).mean())
    if size < 0.1 or (size < 2 and np.abs(offset).mean() > 50):  # the second: a mean of bytes taken off
        return "0..255"
    if np.allclose(scale, 1) and np.allclose(offset, 0):
        return None
    return "0..1" if 1.5 <= size <= 10 else None


def _own_scaling(graph: ov.Model, channel_axis: int) -> tuple[Array, Array] | None:
    """The affine function that the operators next to the input make, channel by channel."""
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
    """One number a channel, if that is what the constant holds."""
    while node.get_type_name() in ("Convert", "Reshape", "Unsqueeze"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant":
        return None
    data = np.asarray(node.data, np.float32)
    if data.size == 1:
        return np.full(3, data.ravel()[0], np.float32)
    return data.ravel() if data.size == 3 else None
