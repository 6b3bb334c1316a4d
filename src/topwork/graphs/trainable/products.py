"""Matrix products, and what is made of them: Einsum and attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import keras  # noqa: TID253
import numpy as np

from topwork.errors import TopworkError
from topwork.graphs.trainable.elementwise import add, combined, with_rank
from topwork.graphs.trainable.plan import Shape, Step
from topwork.graphs.trainable.values import (
    Value,
    along,
    apart,
    constant,
    plain,
    product,
    reshaped,
    tensor,
    with_shape,
)

ops = keras.ops


def matmul(step: Step, values: list[Value]) -> Value:
    turned = [bool(step.attributes[f"transpose_{name}"]) for name in "ab"]
    return multiplied(values[0], values[1], step.shapes[0], turned=turned)


def multiplied(one: Value, two: Value, shape: Shape, *, turned: Sequence[bool] = (False, False)) -> Value:
    """The matrix product, with the graph's shape `shape`. `turned`: whose last two axes are swapped before."""
    one, two, turned = plain(one), plain(two), list(turned)
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
    return Value(reshaped(out, shape, of_images), shape, of_images)


def attention(step: Step, values: list[Value]) -> Value:
    """softmax(query · keyᵀ · scale + mask) · value; the mask may be boolean (True: seen) or causal."""
    query, key, value = values[:3]
    batch = np.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    shape = (*batch, query.shape[-2], key.shape[-2])
    scale = values[4] if len(values) > 4 else constant(np.array(query.shape[-1] ** -0.5))
    scores = multiplied(query, key, shape, turned=(False, True))
    scores = combined(ops.multiply, [scores, scale], shape)
    mask = values[3] if len(values) > 3 else None
    if step.attributes["causal"]:
        mask = constant(np.tri(*shape[-2:], dtype=bool))
    if mask is not None:
        shape = tuple(np.broadcast_shapes(shape, mask.shape))
        scores = combined(_masked, [scores, mask], shape)
    shares = along(lambda x, axes: ops.softmax(x, axis=axes[0]), scores, [-1])
    return multiplied(shares, value, step.shapes[0])


def _masked(scores: Any, mask: Any) -> Any:
    if keras.backend.standardize_dtype(mask.dtype) == "bool":
        return ops.where(mask, scores, -np.inf)
    return add(scores, mask)


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
