"""Operations on OpenVINO graphs of networks. No function modifies the graph that it is given.

A graph has one input, `image`, uint8 (1, S, S, 3) in [0, 255], RGB, and named outputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from topwork.errors import InputError, one_of
from topwork.recipe import Views

if TYPE_CHECKING:
    import openvino as ov

ROOT = 0.25  # the exponent of rooted averages
VIEWS = "topwork_views"  # name of the node that stacks a picture's mirrored and rotated copies
VIEWS_APART = "topwork_views_apart"  # or of the one that stacks the features of each


def pool(graph: ov.Model, names: Sequence[str], *, rooted: Sequence[str] = ()) -> ov.Model:
    """Average outputs over their pixels (vectors are kept) and concatenate them: `features` (1, all channels).

    The outputs in `rooted`, which must be non-negative, come first, as the fourth root of their averages; then those
    in `names`, without a root. Averages of rectified activations are concentrated near 0, with a long tail. A root
    spreads them, which helps a linear head (power normalisation: Perronnin, Sánchez and Mensink 2010, "Improving
    the Fisher kernel").
    """
    import openvino as ov
    from openvino import opset13 as op

    graph = graph.clone()
    axes = op.constant(np.array([2, 3]))

    def averages(names: Sequence[str]) -> Any:
        sources = [source_of(graph, name) for name in names]
        return op.concat([s if len(s.shape) == 2 else op.reduce_mean(s, axes, False) for s in sources], 1)

    parts = [op.power(averages(rooted), op.constant(np.float32(ROOT)))] if rooted else []
    parts += [averages(names)] if names else []
    return with_output(ov.Model([op.concat(parts, 1)], graph.get_parameters()), "features")


def last_layer(graph: ov.Model) -> ov.Model:
    """A graph from `pool`, reduced to the last of its averages: `features` (1, D)."""
    import openvino as ov

    graph = graph.clone()
    source = source_of(graph, "features")
    while source.get_node().get_type_name() == "Concat":
        source = source.get_node().input_values()[-1]
    return with_output(ov.Model([source], graph.get_parameters()), "features")


def average_views(graph: ov.Model, views: Views) -> ov.Model:
    """The same graph with `features` averaged over mirrored and rotated copies of the image.

    The copies are made inside the graph, so training, prediction and every export use the same ones.
    """
    import openvino as ov
    from openvino import opset13 as op

    if views not in get_args(Views):
        raise InputError(one_of(views, get_args(Views), what="set of views"))
    if views == "one":
        return graph
    original, graph = graph, graph.clone()
    old = graph.get_parameters()[0]
    _, height, width, channels = old.shape
    if views == "dihedral" and height != width:
        raise InputError(f"the views 'dihedral' need a square input; this backbone's is {height} x {width}")
    image = op.parameter([1, height, width, channels], ov.Type.u8, name="image")
    image.output(0).set_names({"image"})
    mirrored = op.gather(image, op.constant(np.arange(width)[::-1].copy()), op.constant(np.int64(2)))
    copies = [image, mirrored]
    if views == "dihedral":
        upside = op.constant(np.arange(height)[::-1].copy())
        copies += [op.gather(copy, upside, op.constant(np.int64(1))) for copy in copies]
        copies += [op.transpose(copy, op.constant(np.array([0, 2, 1, 3]))) for copy in copies]
    stacked = op.concat(copies, 0)  # (views, S, S, 3)
    stacked.set_friendly_name(VIEWS)
    try:
        graph.reshape({old.output(0): ov.PartialShape([len(copies), height, width, channels])})
    except RuntimeError:  # it was exported for one picture
        return _averaged_apart(original, image, copies)
    for target in old.output(0).get_target_inputs():
        target.replace_source_output(stacked.output(0))
    mean = op.reduce_mean(source_of(graph, "features"), op.constant(np.array([0])), True)
    return with_output(ov.Model([mean], [image]), "features")


def _averaged_apart(graph: ov.Model, image: Any, copies: Sequence[Any]) -> ov.Model:
    """As `average_views`, with a copy of the network for each view; they share their weights."""
    import openvino as ov
    from openvino import opset13 as op

    parts = []
    for copy in copies:
        one = graph.clone()
        for target in one.get_parameters()[0].output(0).get_target_inputs():
            target.replace_source_output(copy.output(0))
        parts.append(source_of(one, "features"))
    apart = op.concat(parts, 0)
    apart.set_friendly_name(VIEWS_APART)
    mean = op.reduce_mean(apart, op.constant(np.array([0])), True)
    return with_output(ov.Model([mean], [image]), "features")


def single_view(graph: ov.Model) -> ov.Model:
    """The inverse of `average_views`: the graph for a single view, `image` to `features`."""
    import openvino as ov
    from openvino import opset13 as op

    graph = graph.clone()
    named = {node.get_friendly_name(): node for node in graph.get_ordered_ops()}
    if VIEWS_APART in named:  # the first of them is the picture itself
        result = op.result(named[VIEWS_APART].input_value(0))
        return with_output(ov.Model([result], graph.get_parameters()), "features")
    stacked = named.get(VIEWS)
    if stacked is None:
        return graph
    old = graph.get_parameters()[0]
    features = source_of(graph, "features").get_node().input_value(0)
    image = op.parameter(list(old.shape), ov.Type.u8, name="image")
    image.output(0).set_names({"image"})
    for target in stacked.output(0).get_target_inputs():
        target.replace_source_output(image.output(0))
    result = op.result(features)
    graph = ov.Model([result], [image])
    graph.reshape({image.output(0): ov.PartialShape(list(old.shape))})
    graph.validate_nodes_and_infer_types()
    return with_output(graph, "features")


def digest(graph: ov.Model) -> str:
    """SHA-256 (hex) of what the graph computes: operators, attributes, connections and constants, but not names."""
    total = hashlib.sha256()
    numbers: dict[str, int] = {}
    for number, node in enumerate(graph.get_ordered_ops()):
        numbers[node.get_name()] = number  # names are unique; friendly names need not be
        wires = [
            (numbers[source.get_node().get_name()], source.get_index())
            for source in (entry.get_source_output() for entry in node.inputs())
        ]
        kind = node.get_type_name()
        types = [(str(out.get_partial_shape()), str(out.get_element_type())) for out in node.outputs()]
        total.update(repr((kind, wires, types)).encode())
        if kind == "Constant":
            total.update(np.ascontiguousarray(node.data).tobytes())
        else:
            total.update(repr(sorted((k, str(v)) for k, v in node.get_attributes().items())).encode())
    return total.hexdigest()


def source_of(graph: ov.Model, name: str) -> Any:
    """The value that feeds the output `name`; other nodes can't be connected to an output itself."""
    return graph.output(name).get_node().input_value(0)


def with_output(graph: ov.Model, name: str) -> ov.Model:
    graph.output(0).set_names({name})
    return graph


@dataclass(frozen=True, slots=True)
class Block:
    """A named range of the feature vector: the channels of one layer, averaged over the picture."""

    name: str
    start: int
    stop: int
