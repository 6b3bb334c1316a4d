"""Convolution, pooling, padding and resizing in ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from topwork.errors import TopworkError
from topwork.exports.onnx.builder import GraphBuilder, Inputs, Unsupported
from topwork.graphs.trainable.interpolation import matrices


def convolution(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    """Convolution. A kernel (groups, O / groups, I / groups, …) becomes (O, I / groups, …) in ONNX."""
    kernel = list(node.get_input_shape(1))
    groups = 1
    if node.get_type_name() == "GroupConvolution":
        groups, each, *rest = kernel
        kernel = [groups * each, *rest]
        if inputs[1] in builder.constants:
            inputs[1] = builder.constant(builder.constants[inputs[1]].reshape(kernel))
        else:
            inputs[1] = builder.add("Reshape", [inputs[1], builder.whole(kernel)])
    return builder.add(
        "Conv", inputs, out=out, group=groups, kernel_shape=kernel[2:], **window(node, kernel[2:])
    )


def window(node: Any, kernel: Sequence[int]) -> dict[str, Any]:
    """Strides, dilations and pads. The padding at the end follows from the output size, whatever the rounding."""
    attributes = node.get_attributes()
    sizes, results = (_sides(port) for port in (node.input(0), node.output(0)))
    strides = list(attributes["strides"])
    dilations = list(attributes.get("dilations") or [1] * len(sizes))
    declared = attributes["auto_pad"] != "valid"
    begin = list(attributes["pads_begin"]) if declared else [0] * len(sizes)
    end = [
        max(0, (result - 1) * stride + (side - 1) * dilation + 1 - size - before)
        for size, result, stride, side, dilation, before in zip(
            sizes, results, strides, kernel, dilations, begin, strict=True
        )
    ]
    return {"strides": strides, "dilations": dilations, "pads": [*begin, *end]}


def _sides(port: Any, start: int = 2) -> list[int]:
    return [size.get_length() for size in list(port.get_partial_shape())[start:]]


def max_pool(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    kernel = list(node.get_attributes()["kernel"])
    return builder.add("MaxPool", inputs, out=out, kernel_shape=kernel, **window(node, kernel))


def average_pool(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    """Average pooling. Without declared padding, the part of a rounded-up last window outside is not counted."""
    attributes = node.get_attributes()
    kernel = list(attributes["kernel"])
    declared = attributes["auto_pad"] != "valid" and any([*attributes["pads_begin"], *attributes["pads_end"]])
    options = window(node, kernel)
    if set(options.pop("dilations")) != {1}:
        raise Unsupported("its window is dilated")
    counted = int(declared and not attributes["exclude-pad"])
    return builder.add(
        "AveragePool", inputs, out=out, kernel_shape=kernel, count_include_pad=counted, **options
    )


def pad(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    mode = node.get_attributes()["pad_mode"]
    if mode not in ("constant", "edge", "reflect"):
        raise Unsupported(f"its mode is {mode!r}")
    borders = builder.whole([*builder.known(inputs[1]).tolist(), *builder.known(inputs[2]).tolist()])
    return builder.add("Pad", [inputs[0], borders, *inputs[3:4]], out=out, mode=mode)


def interpolate(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    """Resize, as a matrix product along each axis, so that every mode gives what it gives in OpenVINO."""
    rank = len(node.input(0).get_partial_shape())
    before, after = ((0, *_sides(port, 1)) for port in (node.input(0), node.output(0)))
    try:
        found = matrices(node.get_attributes(), [builder.known(name) for name in inputs[1:]], before, after)
    except TopworkError as error:
        raise Unsupported(str(error)) from error
    x = inputs[0]
    for axis, matrix in found.items():
        if axis == rank - 2:
            x = builder.add("MatMul", [builder.constant(matrix.T.copy()), x])
            continue
        order = [i for i in range(rank) if i != axis]
        order.append(axis)
        back = [order.index(i) for i in range(rank)]
        x = builder.add("Transpose", [x], perm=order) if axis < rank - 1 else x
        x = builder.add("MatMul", [x, builder.constant(matrix)])
        x = builder.add("Transpose", [x], perm=back) if axis < rank - 1 else x
    return builder.add("Identity", [x], out=out)
