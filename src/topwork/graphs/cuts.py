"""Find the places where a network can be cut in two, and cut it: a frozen prefix and a trainable tail."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.errors import InputError, TopworkError, one_of
from topwork.graphs import features as graphs

if TYPE_CHECKING:
    import openvino as ov

    from topwork.graphs.features import Block

ACTIVATION, EARLY, LATE = "activation", "early", "late"


@dataclass(frozen=True, slots=True)
class Cut:
    """A place where a single activation tensor carries everything from the image to the last layer."""

    name: str  # the last block of features before the cut; without one, the tail's share of the work
    shape: tuple[int, ...]  # of one image's activations, such as (C, H, W)
    early: int  # number of features computed before the cut
    tail_share: float  # share of the network's multiply-adds after the cut, 0 to 1
    node: int  # index in `get_ordered_ops`

    @property
    def bytes_a_view(self) -> int:
        """Bytes per view: activations in half precision and early features in single precision."""
        return 2 * math.prod(self.shape) + 4 * self.early


def find_cuts(graph: ov.Model, blocks: Sequence[Block]) -> tuple[Cut, ...]:
    """The cuts of a backbone's graph, in order of computation; after each block, the one with the fewest activations.

    Args:
        graph: `image` to `features` (1, D), for one view, as returned by `topwork.graphs.features.pool`.
        blocks: the blocks of the features, in order.
    """
    nodes = graph.get_ordered_ops()
    place = {node.get_name(): number for number, node in enumerate(nodes)}
    leaves = _leaves(graph)
    if len(leaves) != len({block.start for block in blocks}) or not leaves:
        raise TopworkError("the network's features can't be separated into blocks, so it can't be cut")
    end = place[leaves[-1].source.get_node().get_name()]
    live = _between(nodes, place, end)
    known = frozenset(live)
    work = {number: _multiply_adds(nodes[number]) for number in live}
    whole = sum(work.values()) or 1
    needs = [_ancestors(nodes, place, place[leaf.source.get_node().get_name()]) for leaf in leaves]
    best: dict[str, Cut] = {}
    reach = done = 0
    for number in live:
        node = nodes[number]
        done += work[number]
        alone = reach <= number
        reach = max([reach, *_users(node, place, known)])
        outputs = node.outputs()
        if not alone or len(outputs) != 1 or not 0 < done < whole or number == end:
            continue
        if len(outputs[0].get_shape()) < 3 or outputs[0].get_element_type().to_dtype() != np.float32:
            continue
        before = [number not in needed for needed in needs]
        first_late = before.index(False)
        if any(before[first_late:]):
            continue  # early and late features would be interleaved
        share = 1 - done / whole
        early = sum(leaf.width for leaf in leaves[:first_late])
        cut = Cut(
            name=blocks[first_late - 1].name if first_late else f"{round(20 * share) * 5}%",
            shape=tuple(outputs[0].get_shape())[1:],
            early=early,
            tail_share=share,
            node=number,
        )
        other = best.get(cut.name)
        if other is None or math.prod(cut.shape) <= math.prod(other.shape):
            best[cut.name] = cut
    return tuple(best.values())


def cut_named(cuts: Sequence[Cut], name: str) -> Cut:
    """The cut with this name.

    Raises:
        InputError: there is none.
    """
    for cut in cuts:
        if cut.name == name:
            return cut
    raise InputError(one_of(name, [cut.name for cut in cuts], what="cut"))


def only_last(graph: ov.Model) -> ov.Model:
    """The graph reduced to the last block of features, as the network was published."""
    import openvino as ov
    from openvino import opset13 as op

    graph = graph.clone()
    result = op.result(_leaves(graph)[-1].source)
    result.output(0).set_names({"features"})
    return ov.Model([result], graph.get_parameters())


def split_at(graph: ov.Model, cut: Cut, *, last: bool = False) -> tuple[ov.Model, ov.Model]:
    """Split the graph into prefix and tail.

    The prefix maps `image` to `activation` (1, C, H, W) and `early` (1, E), the tail `activation` to `late` (1, L).
    Early and late features, concatenated, are the graph's features. Without early features, the prefix has no such
    output. With `last`, the features are those of `only_last`, and none are early.
    """
    import openvino as ov
    from openvino import opset13 as op

    first = graph.clone()
    leaves = _leaves(first)
    count = 0 if last else _count(leaves, cut.early)
    activation = op.result(first.get_ordered_ops()[cut.node].output(0))
    activation.output(0).set_names({ACTIVATION})
    results = [activation]
    if count:
        results.append(op.result(_beside(leaves[:count])))
        results[-1].output(0).set_names({EARLY})
    prefix = ov.Model(results, first.get_parameters())

    second = graph.clone()
    leaves = _leaves(second)
    source = second.get_ordered_ops()[cut.node].output(0)
    parameter = op.parameter([1, *cut.shape], ov.Type.f32, name=ACTIVATION)
    parameter.output(0).set_names({ACTIVATION})
    for target in source.get_target_inputs():
        target.replace_source_output(parameter.output(0))
    late = op.result(leaves[-1].source if last else _beside(leaves[count:]))
    late.output(0).set_names({LATE})
    return prefix, ov.Model([late], [parameter])


def join(prefix: ov.Model, tail: ov.Model) -> ov.Model:
    """The inverse of `split_at`: one graph, `image` to `features` (1, D)."""
    import openvino as ov
    from openvino import opset13 as op

    prefix, tail = prefix.clone(), tail.clone()
    activation = prefix.output(ACTIVATION).get_node().input_value(0)
    for target in tail.get_parameters()[0].output(0).get_target_inputs():
        target.replace_source_output(activation)
    early = [out.get_node().input_value(0) for out in prefix.outputs if EARLY in out.names]
    late = tail.output(LATE).get_node().input_value(0)
    whole = ov.Model([op.concat([*early, late], 1)], prefix.get_parameters())
    whole.output(0).set_names({"features"})
    return whole


def depths(graph: ov.Model) -> dict[str, int]:
    """For each node (by name) of a graph with features as output: how many blocks don't depend on it."""
    nodes = graph.get_ordered_ops()
    place = {node.get_name(): number for number, node in enumerate(nodes)}
    needs = [_ancestors(nodes, place, place[leaf.source.get_node().get_name()]) for leaf in _leaves(graph)]
    return {
        node.get_friendly_name(): sum(number not in needed for needed in needs)
        for number, node in enumerate(nodes)
    }


@dataclass(frozen=True, slots=True)
class _Leaf:
    """One block of features before concatenation: averages (1, width)."""

    source: Any
    rooted: bool  # whether `graphs.ROOT` is applied to it

    @property
    def width(self) -> int:
        return int(self.source.get_shape()[1])


def _leaves(graph: ov.Model) -> list[_Leaf]:
    """The blocks below the concatenations and roots at the graph's output."""

    def below(value: Any, rooted: bool) -> list[_Leaf]:
        node = value.get_node()
        kind = node.get_type_name()
        if kind == "Concat" and len(value.get_shape()) == 2:
            return [leaf for entry in node.input_values() for leaf in below(entry, rooted)]
        if kind == "Power" and not rooted and _is(node.input_value(1), graphs.ROOT):
            return below(node.input_value(0), True)
        return [_Leaf(value, rooted)]

    return below(graph.outputs[0].get_node().input_value(0), False)


def _beside(leaves: Sequence[_Leaf]) -> Any:
    from openvino import opset13 as op

    parts: list[Any] = []
    for rooted in (True, False):  # a backbone's rooted features come first
        some = [leaf.source for leaf in leaves if leaf.rooted == rooted]
        if some:
            joined = op.concat(some, 1)
            parts.append(op.power(joined, op.constant(np.float32(graphs.ROOT))) if rooted else joined)
    return op.concat(parts, 1).output(0)


def _is(value: Any, number: float) -> bool:
    node = value.get_node()
    return bool(
        node.get_type_name() == "Constant" and node.data.size == 1 and node.data.item() == np.float32(number)
    )


def _count(leaves: Sequence[_Leaf], early: int) -> int:
    widths = np.cumsum([0, *(leaf.width for leaf in leaves)])
    return int(np.searchsorted(widths, early))


def _ancestors(nodes: Sequence[Any], place: Mapping[str, int], number: int) -> set[int]:
    seen: set[int] = set()
    waiting = [number]
    while waiting:
        number = waiting.pop()
        if number not in seen:
            seen.add(number)
            waiting += [place[v.get_node().get_name()] for v in nodes[number].input_values()]
    return seen


def _between(nodes: Sequence[Any], place: Mapping[str, int], end: int) -> list[int]:
    """The nodes between the image and node `end`, in order."""
    needed = _ancestors(nodes, place, end)
    of_image: set[int] = set()
    for number, node in enumerate(nodes):
        if node.get_type_name() == "Parameter" or any(
            place[v.get_node().get_name()] in of_image for v in node.input_values()
        ):
            of_image.add(number)
    return sorted(needed & of_image)


def _users(node: Any, place: Mapping[str, int], known: frozenset[int]) -> list[int]:
    targets = (target for out in node.outputs() for target in out.get_target_inputs())
    numbers = [place[target.get_node().get_name()] for target in targets]
    return [number for number in numbers if number in known]


def _multiply_adds(node: Any) -> int:
    """The multiply-adds of one operator; 0 for operators without weights."""
    kind = node.get_type_name()
    if kind not in ("Convolution", "GroupConvolution", "MatMul"):
        return 0
    weights = tuple(node.input_value(1).get_shape())
    own = {"Convolution": weights[1:], "GroupConvolution": weights[2:]}.get(kind)
    if own is None:
        own = (tuple(node.input_value(0).get_shape())[-2 if node.get_attributes()["transpose_a"] else -1],)
    return int(math.prod(node.output(0).get_shape()) * math.prod(own))
