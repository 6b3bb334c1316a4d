"""Matrix products, and what is made of them, in ONNX: Einsum and attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from topwork.exports.onnx.builder import GraphBuilder, Inputs


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


def attention(node: Any, inputs: Inputs, builder: GraphBuilder, out: str) -> str:
    """softmax(query · keyᵀ · scale + mask) · value; the mask may be boolean (True: seen) or causal."""
    query, key, value, mask, scale = [*inputs, "", ""][:5]
    lengths, width = [], node.input(0).get_partial_shape()[-1].get_length()
    scale = scale or builder.constant(np.float32(width**-0.5))
    turned = _turned(key, len(node.input(1).get_partial_shape()), builder)
    scores = builder.add("Mul", [builder.add("MatMul", [query, turned]), scale])
    boolean = mask and node.input(3).get_element_type().get_type_name() == "boolean"
    if node.get_attributes()["causal"]:
        lengths = [node.input(i).get_partial_shape()[-2].get_length() for i in range(2)]
        mask, boolean = builder.constant(np.tri(*lengths, dtype=bool)), True
    if boolean:
        scores = builder.add("Where", [mask, scores, builder.constant(np.float32(-np.inf))])
    elif mask:
        scores = builder.add("Add", [scores, mask])
    return builder.add("MatMul", [builder.add("Softmax", [scores], axis=-1), value], out=out)
