"""Operators along axes: reductions, matrix products, slicing, concatenation, transposition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import keras  # noqa: TID253
import numpy as np

from topwork.errors import TopworkError
from topwork.graphs.trainable.elementwise import with_rank
from topwork.graphs.trainable.plan import Step
from topwork.graphs.trainable.spatial import pick
from topwork.graphs.trainable.values import (
    Operator,
    Value,
    apart,
    axes_held,
    count_images,
    numbers,
    plain,
    product,
    reshaped,
    same_layout,
    tensor,
    with_shape,
)

ops = keras.ops


def softmax(step: Step, values: list[Value]) -> Value:
    value, axis = values[0], step.attributes["axis"] % len(values[0].shape)
    if value.of_images and axis == 0:
        x = ops.softmax(apart(value), axis=1)
        return Value(reshaped(x, value.held, of_images=True), value.shape, of_images=True, last=value.last)
    x = ops.softmax(tensor(value), axis=axes_held(value, [axis])[0])
    return Value(x, value.shape, value.of_images, value.last)


def reduced(function: Callable[..., Any]) -> Operator:
    def apply(step: Step, values: list[Value]) -> Value:
        value, axes = values[0], [int(a) % len(values[0].shape) for a in numbers(values[1]).ravel()]
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(value.shape))
        held = axes_held(value, axes)
        if value.of_images and 0 in axes:
            x = function(apart(value), axis=tuple(axis + 1 for axis in held), keepdims=True)
            x = reshaped(x, tuple(kept[axis] for axis in value.order), of_images=True)
        else:
            x = function(tensor(value), axis=tuple(held), keepdims=True) if held else tensor(value)
        return with_shape(Value(x, kept, value.of_images, value.last), step.shapes[0])

    return apply


def mean(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """The mean in float64 too: `keras.ops.mean` computes it via float32 on JAX (an advantage for half precision)."""
    if keras.backend.standardize_dtype(x.dtype) != "float64":
        return ops.mean(x, axis=axis, keepdims=keepdims)
    return ops.sum(x, axis=axis, keepdims=keepdims) / prod(x.shape[a] for a in axis)


def concat(step: Step, values: list[Value]) -> Value:
    axis, shape = step.attributes["axis"] % len(step.shapes[0]), step.shapes[0]
    values = same_layout(values) if len(shape) > 2 else values
    first = next((value for value in values if value.of_images), None)
    held = axes_held(values[0], [axis])[0]
    if first is None or (axis and all(value.of_images for value in values)):
        parts = [tensor(value, None if first is None else tensor(first)) for value in values]
        return Value(ops.concatenate(parts, axis=held), shape, first is not None, values[0].last)
    like = tensor(first)
    known = [Value(tensor(value, like), value.shape, value.of_images, value.last) for value in values]
    x = ops.concatenate([apart(value, count_images(first)) for value in known], axis=held + 1)
    result = Value(None, shape, of_images=True, last=values[0].last)
    return Value(reshaped(x, result.held, of_images=True), shape, of_images=True, last=result.last)


def transpose(step: Step, values: list[Value]) -> Value:
    value, shape = values[0], step.shapes[0]
    rank = len(shape)
    given = numbers(values[1]).tolist() if len(values) > 1 else []
    perm = tuple(given or range(rank)[::-1])
    if value.of_images and perm[0] != 0:
        x = ops.transpose(apart(plain(value)), (0, *(axis + 1 for axis in perm)))
        return Value(reshaped(x, shape, of_images=True), shape, of_images=True)
    if rank > 2 and value.last and perm == (0, *range(2, rank), 1):  # to channels last, as it is stored
        return Value(value.tensor, shape, value.of_images)
    if rank > 2 and not value.last and value.of_images and perm == (0, rank - 1, *range(1, rank - 1)):
        return Value(value.tensor, shape, of_images=True, last=True)
    x = ops.transpose(tensor(value), tuple(axes_held(value, perm)))
    return Value(x, shape, value.of_images)


def reshape(step: Step, values: list[Value]) -> Value:
    """Reshape, Squeeze, Unsqueeze: the output shape is known."""
    return with_shape(values[0], step.shapes[0])


def gather(step: Step, values: list[Value]) -> Value:
    if step.attributes.get("batch_dims", 0):
        raise TopworkError("it gathers with `batch_dims`")
    return pick(step, values, int(numbers(values[2]).reshape(())), numbers(values[1]))


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


def matmul(step: Step, values: list[Value]) -> Value:
    one, two = (plain(value) for value in values)
    turned = [bool(step.attributes[f"transpose_{name}"]) for name in "ab"]
    if len(one.shape) == 1:
        one, turned[0] = with_shape(one, (1, *one.shape)), False
    if len(two.shape) == 1:
        two, turned[1] = with_shape(two, (*two.shape, 1)), False
    if _is_dense(one, two, turned[0]) or not (one.of_images or two.of_images):
        x, y = _alike(one, two)
        out = product(_turned(x, turned[0]), _turned(y, turned[1]))
    else:
        rank = max(len(one.shape), len(two.shape))
        one, two = (with_rank(value, rank) for value in (one, two))
        x, y = _alike(one, two)
        x, y = (apart(Value(z, v.shape, v.of_images)) for z, v in ((x, one), (y, two)))
        out = product(_turned(x, turned[0]), _turned(y, turned[1]))
    of_images = one.of_images or two.of_images
    return Value(reshaped(out, step.shapes[0], of_images), step.shapes[0], of_images)


def einsum(step: Step, values: list[Value]) -> Value:
    """Einsum with two operands, as a matrix product: (both, left, summed) times (both, summed, right).

    `keras.ops.einsum` computes float64 via float32 on JAX.
    """
    equation = str(step.attributes["equation"]).replace(" ", "")
    terms, out = equation.split("->")[0].split(","), equation.partition("->")[2]
    letters = [*terms, out]
    once = {c for c in "".join(letters) if sum(c in term for term in letters) == 1}
    if len(terms) != 2 or "." in equation or once or any(len(set(term)) < len(term) for term in letters):
        raise TopworkError(f"its equation is {equation!r}")
    operands = [plain(value) for value in values]
    sizes = {
        c: n for term, v in zip(terms, operands, strict=True) for c, n in zip(term, v.shape, strict=True)
    }
    tensors = [
        apart(replace(v, tensor=x)) if v.of_images else x
        for v, x in zip(operands, _alike(*operands), strict=True)
    ]
    one, two = ("*" + term if v.of_images else term for term, v in zip(terms, operands, strict=True))
    of_images = any(v.of_images for v in operands)
    out, sizes["*"] = "*" * of_images + out, -1  # the axis of images
    both, summed = [c for c in out if c in one and c in two], [c for c in one if c not in out]
    left, right = ([c for c in out if c in some and c not in both] for some in (one, two))

    def laid(x: Any, term: str, *groups: list[str]) -> Any:
        x = ops.transpose(x, [term.index(c) for group in groups for c in group])
        return ops.reshape(x, [-1 if "*" in group else prod(sizes[c] for c in group) for group in groups])

    x = product(laid(tensors[0], one, both, left, summed), laid(tensors[1], two, both, summed, right))
    order = [*both, *left, *right]
    x = ops.transpose(ops.reshape(x, [sizes[c] for c in order]), [order.index(c) for c in out])
    return Value(reshaped(x, step.shapes[0], of_images), step.shapes[0], of_images)


def _is_dense(one: Value, two: Value, turned: bool) -> bool:
    """Whether this is one matrix product: rows of all images times one matrix, or a batch of products."""
    rank = len(one.shape)
    if one.of_images and not two.of_images:
        return len(two.shape) == 2 and not (turned and rank == 2)
    same = len(two.shape) == rank and one.shape[0] == two.shape[0]
    return one.of_images and two.of_images and rank > 2 and same


def _alike(one: Value, two: Value) -> tuple[Any, Any]:
    like = next((tensor(v) for v in (one, two) if not isinstance(v.tensor, np.ndarray)), None)
    return tensor(one, like), tensor(two, like)


def _turned(x: Any, turn: bool) -> Any:
    return ops.swapaxes(x, -1, -2) if turn else x
