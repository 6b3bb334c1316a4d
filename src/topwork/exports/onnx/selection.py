"""Operators that take or repeat elements, in ONNX: gathering, slicing, splitting, rolling, tiling."""

from __future__ import annotations

from typing import Any

import numpy as np

from topwork.exports.onnx.builder import GraphBuilder, Inputs, Unsupported

FIRST, LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max  # bounds of a slice over a whole axis


def gather(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    axis = int(builder.known(inputs[2]).reshape(()))
    batch = node.get_attributes().get("batch_dims", 0)
    if not batch:
        return builder.add("Gather", inputs[:2], out=out, axis=axis)
    axis %= len(node.input(0).get_partial_shape())
    batch += len(node.input(1).get_partial_shape()) if batch < 0 else 0
    if axis != batch:
        raise Unsupported("it gathers with `batch_dims`, along another axis than the first after these")
    places = builder.constant(builder.known(inputs[1]).astype(np.int64)[..., None])
    return builder.add("GatherND", [inputs[0], places], out=out, batch_dims=batch)


def gather_nd(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    places = builder.add("Cast", [inputs[1]], to=7)
    return builder.add(
        "GatherND", [inputs[0], places], out=out, batch_dims=node.get_attributes()["batch_dims"]
    )


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


def roll(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    """Shift elements along axes; what leaves at one end enters at the other."""
    shape = node.input(0).get_partial_shape()
    axes = np.atleast_1d(builder.known(inputs[2])).tolist()
    x = inputs[0]
    for axis, shift in zip(axes, np.broadcast_to(builder.known(inputs[1]).ravel(), len(axes)), strict=True):
        if shape[axis].is_dynamic:
            raise Unsupported("it rolls an axis of unknown length")
        size = shape[axis].get_length()
        start = -int(shift) % size
        parts = [
            builder.add("Slice", [x, builder.whole([a]), builder.whole([b]), builder.whole([axis])])
            for a, b in ((start, size), (0, start))
        ]
        x = builder.add("Concat", parts, axis=axis)
    return builder.add("Identity", [x], out=out)


def tile(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    counts = builder.known(inputs[1]).ravel().tolist()
    missing = len(counts) - len(node.input(0).get_partial_shape())
    x = builder.add("Unsqueeze", [inputs[0], builder.whole(range(missing))]) if missing > 0 else inputs[0]
    return builder.add("Tile", [x, builder.whole([1] * -missing + counts)], out=out)


def broadcast(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    x = inputs[0]
    if len(inputs) > 2:  # the axes that the input's axes become
        axes = builder.known(inputs[2]).ravel().tolist()
        rank = len(node.output(0).get_partial_shape())
        x = builder.add("Unsqueeze", [x, builder.whole([i for i in range(rank) if i not in axes])])
    elif str(node.get_attributes()["mode"]) not in ("numpy", "bidirectional"):
        raise Unsupported("it broadcasts as PaddlePaddle does")
    return builder.add("Expand", [x, builder.add("Cast", [inputs[1]], to=7)], out=out)
