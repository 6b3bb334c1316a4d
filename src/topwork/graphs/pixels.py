"""Convert a picture's bytes to a network's input: its value range and channel order.

Few files state the range, or the mean and the standard deviation to normalise with. If a network scales its input
itself, its first operators, combined into one scale and one offset, show which range it expects. Otherwise the usual
range of the format is assumed, and reported as such.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from topwork.errors import InputError, one_of
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

    range: str  # a name, such as "imagenet", or the mean and the deviation of [0, 1] pixels
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


def pixels_of(
    mean: Sequence[float],
    deviation: Sequence[float],
    how: How = "stated",
    *,
    rescale: float = 1 / 255,
    bgr: bool = False,
) -> Pixels:
    """The scale and offset of (x · rescale − mean) / deviation, for a byte x of each RGB channel.

    The range is a named one where it is the same to six digits. Otherwise it is text with all the numbers, from which
    `pixels_from` makes the same scale and offset.

    Args:
        mean: of pixels times `rescale`, for R, G and B.
        deviation: the same; not 0.
        how: how it is known.
        rescale: what bytes are multiplied by; not 0.
        bgr: whether the order of the channels is reversed afterwards.

    >>> pixels_of((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).range
    '-1..1'
    >>> pixels_of((0.48, 0.46, 0.41), (0.27, 0.26, 0.28), bgr=True).range
    'mean 0.48 0.46 0.41, deviation 0.27 0.26 0.28, BGR'
    """
    means = tuple(_rounded(m / rescale / 255) for m in mean)  # of [0, 1] pixels
    deviations = tuple(_rounded(d / rescale / 255) for d in deviation)
    scale, offset = _affine(means, deviations)
    for name in get_args(PixelRange):
        known = pixels(name, how)
        alike = all(map(_alike, (*known.scale, *known.offset), (*scale, *offset)))
        if alike and known.bgr == bgr:
            return known
    text = f"mean {_numbers(means)}, deviation {_numbers(deviations)}" + (", BGR" if bgr else "")
    return Pixels(text, how, scale, offset, bgr)


def pixels_from(text: str, how: How) -> Pixels:
    """The pixels of a `Pixels.range`, such as a run records.

    Raises:
        InputError: it is neither a named range nor a mean and a deviation.
    """
    if text in get_args(PixelRange):
        return pixels(text, how)  # type: ignore[arg-type]
    number = r"(-?[\d.]+(?:e[-+]?\d+)?)"
    three = " ".join([number] * 3)
    found = re.fullmatch(f"mean {three}, deviation {three}(, BGR)?", text)
    try:
        numbers = [float(n) for n in found.groups()[:6]] if found else []
    except ValueError:  # such as 1.2.3
        numbers = []
    if found is None or len(numbers) != 6 or not all(numbers[3:]):
        raise InputError(one_of(text, get_args(PixelRange), what="range of pixels"))
    scale, offset = _affine(numbers[:3], numbers[3:])
    return Pixels(text, how, scale, offset, bgr=found[7] is not None)


def _affine(
    mean: Sequence[float], deviation: Sequence[float]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    r, g, b = (1 / (255 * d) for d in deviation)
    u, v, w = (0.0 - m / d for m, d in zip(mean, deviation, strict=True))
    return (r, g, b), (u, v, w)


def _rounded(value: float) -> float:
    """To nine digits, which tell all numbers of single precision apart."""
    return float(f"{value:.9g}")


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.9g}" for value in values)


def _alike(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6 * (a == 0 or b == 0))


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
