"""A classifier's graph as a TensorFlow module, for the formats converted from TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from topwork.exports.contents import Contents

if TYPE_CHECKING:
    import openvino as ov

Resize = Callable[[Any], Any]


def joined(graph: ov.Model) -> tuple[ov.Model, list[str], list[int]]:
    """The graph with its outputs concatenated to one, `answers`, and the names and widths of the outputs."""
    import openvino as ov
    from openvino import opset13 as op

    names = [output.any_name for output in graph.outputs]
    widths = [output.shape[1] for output in graph.outputs]
    graph = graph.clone()
    answers = op.concat([output.get_node().input_value(0) for output in graph.outputs], 1)
    answers.output(0).set_names({"answers"})
    return ov.Model([answers], graph.get_parameters()), names, widths


def make_call(
    graph: ov.Model, contents: Contents, resize: Resize | None
) -> tuple[Any, Any, list[int | None]]:
    """The layer with the weights, a function from uint8 pictures to outputs by name, and the shape of the pictures.

    All outputs are computed together, so the trunk occurs only once.
    """
    import tensorflow as tf

    from topwork.graphs.trainable.layer import GraphLayer

    whole, names, widths = joined(graph)
    layer = GraphLayer(whole, output="answers", dtype="float32")

    def call(image: Any) -> dict[str, Any]:
        sized = image if resize is None else resize(image)
        sized = tf.ensure_shape(sized, (None if resize is None else 1, *contents.size_px, 3))
        return dict(zip(names, tf.split(layer(sized), widths, axis=1), strict=True))

    shape = [None, *contents.size_px, 3] if resize is None else [1, None, None, 3]
    return layer, call, shape
