"""Reductions, normalisation, concatenation and transposition in ONNX; and shapes, for the resizer."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from topwork.exports.onnx.builder import GraphBuilder, Inputs, Unsupported, Writer, onnx_type


def softmax(kind: str) -> Writer:
    return lambda node, inputs, builder, out: builder.add(
        kind, inputs, out=out, axis=node.get_attributes()["axis"]
    )


def reduced(kind: str) -> Writer:
    def write(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
        axes = [int(axis) for axis in builder.known(inputs[1]).ravel()]
        kept = int(node.get_attributes()["keep_dims"])
        if not axes:
            return builder.add("Identity", inputs[:1], out=out)
        return builder.add(kind, [inputs[0], builder.whole(axes)], out=out, keepdims=kept)

    return write


def mvn(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    """Subtract the mean and divide by the standard deviation: layer normalisation, if along the last axes."""
    attributes, shape = node.get_attributes(), node.input(0).get_partial_shape()
    axes = sorted(int(axis) % len(shape) for axis in builder.known(inputs[1]).ravel())
    eps, inside = attributes["eps"], str(attributes["eps_mode"]).upper() == "INSIDE_SQRT"
    last = axes == list(range(len(shape) - len(axes), len(shape)))
    sizes = [shape[axis] for axis in axes]
    if attributes["normalize_variance"] and inside and last and all(size.is_static for size in sizes):
        scale = builder.constant(np.ones([size.get_length() for size in sizes], np.float32))
        return builder.add("LayerNormalization", [inputs[0], scale], out=out, axis=axes[0], epsilon=eps)
    along, epsilon = builder.whole(axes), builder.constant(np.float32(eps))
    x = builder.add("Sub", [inputs[0], builder.add("ReduceMean", [inputs[0], along])])
    if not attributes["normalize_variance"]:
        return builder.add("Identity", [x], out=out)
    spread = builder.add("ReduceMean", [builder.add("Mul", [x, x]), along])
    if inside:
        spread = builder.add("Sqrt", [builder.add("Add", [spread, epsilon])])
    else:
        spread = builder.add("Add", [builder.add("Sqrt", [spread]), epsilon])
    return builder.add("Div", [x, spread], out=out)


def group_normalization(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    attributes, (channels, *sides) = node.get_attributes(), _static(node.input(0))
    groups = attributes["num_groups"]
    x = builder.add("Reshape", [inputs[0], builder.whole([0, groups, -1])])
    scale = builder.constant(np.ones(channels // groups * prod(sides), np.float32))
    x = builder.add("LayerNormalization", [x, scale], axis=2, epsilon=attributes["epsilon"])
    x = builder.add("Reshape", [x, builder.whole([0, channels, *sides])])
    row = builder.whole([channels, *[1] * len(sides)])
    scale, offset = (builder.add("Reshape", [name, row]) for name in inputs[1:])
    return builder.add("Add", [builder.add("Mul", [x, scale]), offset], out=out)


def normalize_l2(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    """Divide by the root of the sum of squares, to which `eps` is added, or which is at least `eps`."""
    attributes, axes = node.get_attributes(), builder.known(inputs[1]).ravel().tolist()
    total = builder.add("Mul", [inputs[0], inputs[0]])
    total = builder.add("ReduceSum", [total, builder.whole(axes)]) if axes else total
    kind = "Add" if str(attributes["eps_mode"]).lower() == "add" else "Max"
    total = builder.add(kind, [total, builder.constant(np.float32(attributes["eps"]))])
    return builder.add("Div", [inputs[0], builder.add("Sqrt", [total])], out=out)


def _static(port: Any) -> list[int]:
    """All sizes but the first."""
    return [size.get_length() for size in list(port.get_partial_shape())[1:]]


def concat(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    return builder.add("Concat", inputs, out=out, axis=node.get_attributes()["axis"])


def transpose(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    rank = len(node.input(0).get_partial_shape())
    given = builder.known(inputs[1]).tolist() if len(inputs) > 1 else []
    return builder.add("Transpose", inputs[:1], out=out, perm=given or list(range(rank))[::-1])


def shuffle_channels(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    """Take the first of each group, then the second of each group, and so on."""
    sides, groups = [0, *_static(node.input(0))], node.get_attributes()["group"]  # 0: as it is
    axis = node.get_attributes()["axis"] % len(sides)
    if not axis:
        raise Unsupported("it shuffles the axis of images")
    order = list(range(len(sides) + 1))
    order[axis : axis + 2] = axis + 1, axis
    split = [*sides[:axis], groups, sides[axis] // groups, *sides[axis + 1 :]]
    x = builder.add("Transpose", [builder.add("Reshape", [inputs[0], builder.whole(split)])], perm=order)
    return builder.add("Reshape", [x, builder.whole(sides)], out=out)


def depth_to_space(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    attributes = node.get_attributes()
    if len(node.input(0).get_partial_shape()) != 4:
        raise Unsupported("its input is no picture")
    mode = "DCR" if attributes["mode"] == "blocks_first" else "CRD"
    return builder.add("DepthToSpace", inputs, out=out, blocksize=attributes["block_size"], mode=mode)


def space_to_depth(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    attributes, (channels, *sides) = node.get_attributes(), _static(node.input(0))
    block = attributes["block_size"]
    split = [0, channels, *(size for side in sides for size in (side // block, block))]
    outer, inner = ([start + 2 * i for i in range(len(sides))] for start in (2, 3))
    depth = [*inner, 1] if attributes["mode"] == "blocks_first" else [1, *inner]
    x = builder.add("Reshape", [inputs[0], builder.whole(split)])
    x = builder.add("Transpose", [x], perm=[0, *depth, *outer])
    return builder.add("Reshape", [x, builder.whole([0, *_static(node.output(0))])], out=out)


def reshape(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    pattern = (
        builder.whole(builder.constants[inputs[1]].tolist())
        if inputs[1] in builder.constants
        else builder.add("Cast", [inputs[1]], to=7)
    )
    free = int(not node.get_attributes()["special_zero"])
    return builder.add("Reshape", [inputs[0], pattern], out=out, allowzero=free)


def squeeze(kind: str) -> Writer:
    def write(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
        axes = [builder.whole(np.ravel(builder.known(inputs[1])).tolist())] if len(inputs) > 1 else []
        return builder.add(kind, [inputs[0], *axes], out=out)

    return write


def shape_of(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    found = builder.add("Shape", inputs)
    return builder.add("Cast", [found], out=out, to=onnx_type(node.get_output_element_type(0)))


def count_up(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    kind = onnx_type(node.get_output_element_type(0))
    return builder.add("Range", [builder.add("Cast", [name], to=kind) for name in inputs], out=out)
