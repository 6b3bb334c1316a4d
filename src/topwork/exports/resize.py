"""Resizing inside the network, for pictures of any size.

This is the resizing of `images.decode` as two matrix products, with matrices that depend on the picture's size: a
filter with antialiasing, first along rows, then along columns, rounded to integers after each. The filter is bicubic
(Keys 1981, "Cubic convolution interpolation for digital image processing", a = -0.5) or, where a network's source
states it, bilinear; it is wider when the picture is reduced. This uses only arithmetic, so every format supports it
and gives the same results. They equal Pillow's to within two levels of 255, with two exceptions: `images.decode` uses
two approximations for pictures several times larger than the target, described there; and since version 13, Pillow
resizes some pictures along columns first, which differs where rounding cuts off a bicubic filter's overshoot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.errors import InputError
from topwork.exports.contents import HEAD, Contents
from topwork.images.framing import Framing

if TYPE_CHECKING:
    import openvino as ov

REACH = 2.0  # radius of the cubic kernel in pixels, at a scale of 1


def with_resizer(graph: ov.Model, contents: Contents) -> ov.Model:
    """The same graph with `image` uint8 (1, H, W, 3) of any height and width. New nodes' names start with `HEAD`."""
    import openvino as ov
    from openvino import opset13 as op

    _check_filter(contents.fit)
    graph = graph.clone()
    known = {node.get_friendly_name() for node in graph.get_ordered_ops()} | {"image"}
    old = graph.get_parameters()[0]
    image = op.parameter(ov.PartialShape([1, -1, -1, 3]), ov.Type.u8, name="image")
    image.output(0).set_names({"image"})
    size = op.convert(op.shape_of(image), "f32")
    sides = [op.gather(size, op.constant(np.int64(axis)), op.constant(np.int64(0))) for axis in (1, 2)]
    cubic = contents.fit.resample != "bilinear"
    down, across = (
        _weights(side, *span, target, cubic=cubic)
        for side, span, target in zip(sides, _spans(sides, contents), contents.size_px, strict=True)
    )
    order = op.constant(np.array([0, 3, 1, 2]))
    x = op.transpose(op.convert(image, "f32"), order)  # (1, 3, H, W)
    x = _levels(op.matmul(x, across, False, True))  # (1, 3, H, S)
    x = _levels(op.matmul(down, x, False, False))  # (1, 3, S, S)
    sized = op.convert(op.transpose(x, op.constant(np.array([0, 2, 3, 1]))), "u8")
    for target in old.output(0).get_target_inputs():
        target.replace_source_output(sized.output(0))
    outputs = [result.input_value(0) for result in graph.get_results()]
    whole = ov.Model(outputs, [image], graph.get_friendly_name())
    for made, output in zip(whole.outputs, graph.outputs, strict=True):
        made.set_names(output.get_names())
    whole.validate_nodes_and_infer_types()
    for number, node in enumerate(whole.get_ordered_ops()):
        if node.get_friendly_name() not in known and node.get_type_name() != "Result":
            node.set_friendly_name(f"{HEAD}resize_{node.get_type_name().lower()}_{number}")
    return whole


def resizer(contents: Contents) -> Any:
    """The resizer for TensorFlow: uint8 (1, H, W, 3) of any size → uint8 (1, height, width, 3)."""
    import tensorflow as tf

    _check_filter(contents.fit)
    cubic = contents.fit.resample != "bilinear"

    def resize(image: Any) -> Any:
        shape = tf.cast(tf.shape(image), tf.float32)
        sides = [shape[1], shape[2]]
        down, across = (
            weights(side, start, scale, target)
            for side, (start, scale), target in zip(sides, spans(sides), contents.size_px, strict=True)
        )
        x = tf.transpose(tf.cast(image, tf.float32)[0], [2, 0, 1])  # (3, H, W)
        x = levels(tf.matmul(x, tf.tile(across[None], [3, 1, 1]), transpose_b=True))
        x = levels(tf.matmul(tf.tile(down[None], [3, 1, 1]), x))
        return tf.cast(tf.transpose(x, [1, 2, 0])[None], tf.uint8)

    def spans(sides: list[Any]) -> list[tuple[Any, Any]]:
        """As `_spans` below."""
        fit, target = contents.fit, contents.size_px
        if not fit.cuts:
            return [(0.0, side / n) for side, n in zip(sides, target, strict=True)]
        shorter = tf.minimum(sides[0], sides[1])
        if fit.own:
            shrink = tf.minimum(sides[0] / target[0], sides[1] / target[1])
            lengths = [tf.minimum(side, n * shrink) for side, n in zip(sides, target, strict=True)]
            return [
                ((side - length) / 2.0, length / n)
                for side, length, n in zip(sides, lengths, target, strict=True)
            ]
        resized = float(fit.resized(target[0]))
        found = []
        for side in sides:
            longer = tf.floor((side * resized + 0.5) / shorter) if fit.fit == "crop" else resized
            rest = longer - target[0]
            half = tf.floor(rest / 2.0)
            if fit.margin == "even":
                half += (rest - 2.0 * half) * (half - 2.0 * tf.floor(half / 2.0))
            found.append((half * (side / longer), side / longer))
        return found

    def weights(side: Any, start: Any, scale: Any, target: int) -> Any:
        wide = tf.maximum(scale, 1.0)
        centres = start + tf.constant(_halves(target)) * scale  # (S, 1)
        t = tf.abs((tf.range(side)[None] + 0.5 - centres) / wide)
        if cubic:
            near = (1.5 * t - 2.5) * t * t + 1.0
            far = ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0
            raw = tf.where(t < 1.0, near, tf.where(t < REACH, far, tf.zeros_like(t)))
        else:
            raw = tf.maximum(1.0 - t, 0.0)
        return raw / tf.reduce_sum(raw, axis=1, keepdims=True)

    def levels(x: Any) -> Any:
        return tf.floor(tf.clip_by_value(x, 0.0, 255.0) + 0.5)

    return resize


def _check_filter(fit: Framing) -> None:
    if fit.resample not in (None, "bicubic", "bilinear"):
        raise InputError(
            f"an export for pictures of any size resizes them by a bicubic or bilinear filter; this network takes "
            f"{fit.resample}: export it for pictures of its own size (omit --input any)"
        )


def _spans(sides: list[Any], contents: Contents) -> list[tuple[Any, Any]]:
    """For each side: where the part of the picture that is used starts, and its pixels per pixel of the result."""
    from openvino import opset13 as op

    fit, target = contents.fit, [_number(n) for n in contents.size_px]
    if not fit.cuts:
        return [(_number(0), op.divide(side, n)) for side, n in zip(sides, target, strict=True)]
    if fit.own:
        shrink = op.minimum(*(op.divide(side, n) for side, n in zip(sides, target, strict=True)))
        lengths = [op.minimum(s, op.multiply(n, shrink)) for s, n in zip(sides, target, strict=True)]
        starts = [op.divide(op.subtract(s, n), _number(2)) for s, n in zip(sides, lengths, strict=True)]
        return [(s, op.divide(n, t)) for s, n, t in zip(starts, lengths, target, strict=True)]
    resized, shorter = _number(fit.resized(contents.size_px[0])), op.minimum(*sides)
    spans = []
    for side in sides:
        longer: Any = resized
        if fit.fit == "crop":  # half a pixel more keeps the division from falling below a whole number
            longer = op.floor(op.divide(op.add(op.multiply(side, resized), _number(0.5)), shorter))
        rest = op.subtract(longer, target[0])
        half = op.floor(op.divide(rest, _number(2)))
        if fit.margin == "even":
            half = op.add(half, op.multiply(_odd(rest), _odd(half)))
        scale = op.divide(side, longer)
        spans.append((op.multiply(half, scale), scale))
    return spans


def _odd(whole: Any) -> Any:
    """1 for an odd number, 0 for an even one."""
    from openvino import opset13 as op

    half = op.floor(op.divide(whole, _number(2)))
    return op.subtract(whole, op.multiply(half, _number(2)))


def _weights(side: Any, start: Any, scale: Any, target: int, *, cubic: bool) -> Any:
    """The weight of each of `side` pixels in each of `target` pixels: float32 (target, side); rows sum to 1."""
    from openvino import opset13 as op

    wide = op.maximum(scale, _number(1))
    centres = op.add(start, op.multiply(op.constant(_halves(target)), scale))  # (S, 1)
    places = op.add(op.range(_number(0), side, _number(1), "f32"), _number(0.5))
    t = op.abs(op.divide(op.subtract(op.unsqueeze(places, op.constant(np.array([0]))), centres), wide))
    if cubic:
        near = _polynomial(t, 1.5, -2.5, 0, 1)
        far = _polynomial(t, -0.5, 2.5, -4, 2)
        outer = op.select(op.less(t, _number(REACH)), far, _number(0))
        raw = op.select(op.less(t, _number(1)), near, outer)
    else:
        raw = op.maximum(op.subtract(_number(1), t), _number(0))
    return op.divide(raw, op.reduce_sum(raw, op.constant(np.array([1])), True))


def _polynomial(t: Any, *coefficients: float) -> Any:
    from openvino import opset13 as op

    value: Any = _number(coefficients[0])
    for coefficient in coefficients[1:]:
        value = op.add(op.multiply(value, t), _number(coefficient))
    return value


def _levels(x: Any) -> Any:
    """Round to integers in 0..255, halves up, as Pillow does."""
    from openvino import opset13 as op

    return op.floor(op.add(op.clamp(x, 0.0, 255.0), _number(0.5)))


def _halves(target: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return (np.arange(target, dtype=np.float32) + np.float32(0.5))[:, None]


def _number(value: float) -> Any:
    from openvino import opset13 as op

    return op.constant(np.float32(value))
