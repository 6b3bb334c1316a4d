"""A transformer's tokens, (1, N, D), as features: which of them are patches, and how they are pooled.

Patches form a square, and what stands before them (a class token, a distillation token, registers) does not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from topwork.errors import InputError
from topwork.recipe import Pool

MOST_BEFORE = 8  # tokens before the patches


def before_patches(count: int) -> int | None:
    """How many of `count` tokens stand before the patches: a class token, with a distillation token or registers.

    None if no square is left.

    >>> before_patches(197), before_patches(201), before_patches(196), before_patches(50)
    (1, 5, 0, 1)
    """
    for before in [1, 5, 2, *range(MOST_BEFORE + 1)]:
        side: int = math.isqrt(max(count - before, 0))
        if side > 1 and side * side == count - before:
            return int(before)
    return None


def pooled(source: Any, pool: Pool, name: str) -> tuple[Any, str]:
    """Tokens (1, N, D) as one vector (1, D), and how, in words. "auto": the class token if there is one, or the mean.

    Raises:
        InputError: it has no class token, or no pooler.
    """
    from openvino import opset13 as op

    before = before_patches(source.shape[1])
    if pool == "pooler":
        raise InputError(f"{name}: it has no pooler of its own; --pool mean" + " or cls" * bool(before))
    if pool in ("cls", "cls+mean") and not before:
        raise InputError(f"{name}: it has no class token; --pool mean")
    first = op.gather(source, op.constant(np.int64(0)), op.constant(np.int64(1))).output(0)
    if pool == "cls" or (pool == "auto" and before):
        return first, "the class token"
    patches = _mean_of_patches(source, before or 0)
    if pool == "cls+mean":
        return op.concat([first, patches], 1).output(0), "the class token and the mean of its patches"
    return patches, "the mean of its patches" if before is not None else "the mean of its tokens"


def stages(last: Any) -> list[Any]:
    """The mean of the patches after each block, in order, below the node `last`: (1, D) each.

    A block adds twice to its tokens, what attention gives and what the MLP gives, so every second of the additions
    that go on to another addition ends a block.
    """
    sums, seen, stack = [], {last.get_name()}, [last]
    while stack:
        node = stack.pop()
        if _adds_to_tokens(node):
            sums.append(node)
        for value in node.input_values():
            if value.get_node().get_name() not in seen:
                seen.add(value.get_node().get_name())
                stack.append(value.get_node())
    chain = _chain(sums)
    if len(chain) < 4 or len(chain) % 2:
        return []
    before = before_patches(chain[0].output(0).shape[1]) or 0
    return [_mean_of_patches(node.output(0), before) for node in chain[1::2]]


def _adds_to_tokens(node: Any) -> bool:
    if node.get_type_name() != "Add" or len(node.output(0).shape) != 3:
        return False
    shape = tuple(node.output(0).shape)
    computed = [v.get_node().get_type_name() not in ("Constant", "Convert") for v in node.input_values()]
    return all(computed) and all(tuple(v.shape) == shape for v in node.input_values())


def _chain(sums: list[Any]) -> list[Any]:
    """The longest row of additions of one shape, each of which is a side of the next, in order."""
    names = {node.get_name(): node for node in sums}
    below: dict[str, str] = {}
    for node in sums:
        for value in node.input_values():
            if value.get_node().get_name() in names:
                below[node.get_name()] = value.get_node().get_name()
    ends = [name for name in names if name not in below.values()]
    chains = []
    for name in ends:
        row = [name]
        while row[-1] in below:
            row.append(below[row[-1]])
        chains.append(row[::-1])
    longest = max(chains, key=len, default=[])
    return [names[name] for name in longest]


def _mean_of_patches(source: Any, before: int) -> Any:
    from openvino import opset13 as op

    if before:
        start, stop, step, axis = (op.constant(np.array([n])) for n in (before, source.shape[1], 1, 1))
        source = op.slice(source, start, stop, step, axis).output(0)
    return op.reduce_mean(source, op.constant(np.array([1])), False).output(0)
