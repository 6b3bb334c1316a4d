"""Reductions, matrix products, slicing, concatenation and transposition in ONNX; and shapes, for the resizer."""

from __future__ import annotations

from typing import Any

import numpy as np

from topwork.exports.onnx.builder import GraphBuilder, Inputs, Unsupported, Writer, onnx_type

FIRST, LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max  # bounds of a slice over a whole axis


def matmul(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    attributes = node.get_attributes()
    given = []
    for number, name in enumerate(inputs):
        turned = attributes["transpose_a" if number == 0 else "transpose_b"]
        rank = len(node.input(number).get_partial_shape())
        given.append(_turned(name, rank, builder) if turned and rank > 1 else name)
    return builder.add("MatMul", given, out=out)


def _turned(name: str, rank: int, builder: GraphBuilder) -> str:
    if name in builder.constants:
        return builder.constant(builder.constants[name].swapaxes(-1, -2))
    order = [*range(rank - 2), rank - 1, rank - 2]
    return builder.add("Transpose", [name], perm=order)


def einsum(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    return builder.add("Einsum", inputs, out=out, equation=node.get_attributes()["equation"])


def softmax(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    return builder.add("Softmax", inputs, out=out, axis=node.get_attributes()["axis"])


def reduced(kind: str) -> Writer:
    def write(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
        axes = [int(axis) for axis in builder.known(inputs[1]).ravel()]
        kept = int(node.get_attributes()["keep_dims"])
        if not axes:
            return builder.add("Identity", inputs[:1], out=out)
        return builder.add(kind, [inputs[0], builder.whole(axes)], out=out, keepdims=kept)

    return write


def concat(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    return builder.add("Concat", inputs, out=out, axis=node.get_attributes()["axis"])


def transpose(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    rank = len(node.input(0).get_partial_shape())
    given = builder.known(inputs[1]).tolist() if len(inputs) > 1 else []
    return builder.add("Transpose", inputs[:1], out=out, perm=given or list(range(rank))[::-1])


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


def gather(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    if node.get_attributes().get("batch_dims", 0):
        raise Unsupported("it gathers with `batch_dims`")
    axis = int(builder.known(inputs[2]).reshape(()))
    return builder.add("Gather", inputs[:2], out=out, axis=axis)


def slice_axes(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    start, stop, stride = (builder.known(name).tolist() for name in inputs[1:4])
    axes = builder.known(inputs[4]).tolist() if len(inputs) > 4 else list(range(len(start)))
    return builder.add("Slice", [inputs[0], *map(builder.whole, (start, stop, axes, stride))], out=out)


def strided_slice(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    """Strided slice. A bit in `begin_mask` or `end_mask` means that the bound is ignored. New axes are added last."""
    attributes, rank = node.get_attributes(), len(node.input(0).get_partial_shape())
    begin, end = (builder.known(name).tolist() for name in inputs[1:3])
    stride = builder.known(inputs[3]).tolist() if len(inputs) > 3 else [1] * len(begin)
    masks = {
        name: [*attributes[f"{name}_mask"], *[0] * len(begin)][: len(begin)]
        for name in ("begin", "end", "new_axis", "shrink_axis", "ellipsis")
    }
    cuts: list[tuple[int, int, int, int]] = []  # axis, from, to, step
    dropped, made = [], []
    axis = place = 0
    for i in range(len(begin)):
        if masks["ellipsis"][i]:
            left = rank - axis - sum(not masks["new_axis"][j] for j in range(i + 1, len(begin)))
            axis, place = axis + left, place + left
        elif masks["new_axis"][i]:
            made.append(place)
            place += 1
        elif masks["shrink_axis"][i]:
            cuts.append((axis, begin[i], LAST if begin[i] == -1 else begin[i] + 1, 1))
            dropped.append(axis)
            axis += 1
        else:
            forth = stride[i] > 0
            first = (0 if forth else LAST) if masks["begin"][i] else begin[i]
            last = (LAST if forth else FIRST) if masks["end"][i] else end[i]
            cuts.append((axis, first, last, stride[i]))
            axis, place = axis + 1, place + 1
    x = inputs[0]
    if cuts:
        axes, first_, last_, step = (list(column) for column in zip(*cuts, strict=True))
        x = builder.add("Slice", [x, *map(builder.whole, (first_, last_, axes, step))])
    if dropped:
        x = builder.add("Squeeze", [x, builder.whole(dropped)])
    if made:
        x = builder.add("Unsqueeze", [x, builder.whole(made)])
    return builder.add("Identity", [x], out=out)


def split(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    axis, count = int(builder.known(inputs[1]).reshape(())), node.get_output_size()
    lengths = [node.output(i).get_partial_shape()[axis].get_length() for i in range(count)]
    return builder.add("Split", [inputs[0], builder.whole(lengths)], count=count, out=out, axis=axis)


def shape_of(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    found = builder.add("Shape", inputs)
    return builder.add("Cast", [found], out=out, to=onnx_type(node.get_output_element_type(0)))


def count_up(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    kind = onnx_type(node.get_output_element_type(0))
    return builder.add("Range", [builder.add("Cast", [name], to=kind) for name in inputs], out=out)


def broadcast(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    if str(node.get_attributes()["mode"]) not in ("numpy", "bidirectional"):
        raise Unsupported("it broadcasts along given axes")
    return builder.add("Expand", [inputs[0], builder.add("Cast", [inputs[1]], to=7)], out=out)
