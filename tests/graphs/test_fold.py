"""What of a graph is a constant, which constants are weights, and where trained ones are written back."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from small_graphs import COUNT, Body, graph_of, ints, normal, run_graph
from topwork.exports.onnx.file import convert
from topwork.graphs.fold import fold
from topwork.graphs.trainable.layer import GraphLayer, patch
from topwork.graphs.trainable.plan import read

ZERO = op.constant(np.int64(0))


def _kinds(graph: ov.Model) -> list[str]:
    return [node.get_type_name() for node in graph.get_ordered_ops()]


def _sized(body: Body) -> ov.Model:
    """Made for any batch size, which is then fixed: OpenVINO keeps computing the shapes."""
    graph = graph_of(body, batch=-1)
    graph.reshape([1, 8, 7, 6])
    return graph


def _rows(x: Any) -> Any:
    """Channels and pixels, by way of the shape."""
    shape = op.shape_of(x, "i32")
    pixels = op.multiply(*(op.gather(shape, op.constant(np.int32([axis])), ZERO) for axis in (2, 3)))
    channels = op.slice(shape, ints(1), ints(2), ints(1))
    return op.reshape(x, op.concat([op.constant(np.int32([1])), channels, pixels], 0), False)


def test_shapes_are_folded() -> None:
    graph = _sized(_rows)
    fold(graph)
    assert _kinds(graph) == ["Parameter", "Constant", "Reshape", "Result"]
    assert list(graph.outputs[0].shape) == [1, 8, 42]


def test_what_depends_on_a_free_batch_size_is_not_folded() -> None:
    graph = graph_of(_rows, batch=-1)
    fold(graph)
    assert _kinds(graph) == [
        "Parameter",
        "Constant",
        "Reshape",
        "Result",
    ]  # its channels and pixels are known
    graph = graph_of(
        lambda x: op.reshape(x, op.gather(op.shape_of(x), ints(0, 3, -2, -3), ZERO), False), batch=-1
    )
    before = _kinds(graph)
    fold(graph)
    assert _kinds(graph) == before
    assert list(graph.outputs[0].partial_shape)[1:] == [6, 7, 8]


def test_a_constant_keeps_its_nodes_name() -> None:
    parts = op.split(op.constant(normal(6, 2)), op.constant(np.int64(1)), 2, name="halves")
    total = op.add(parts.output(0), parts.output(1), name="total")
    graph = graph_of(lambda x: op.concat([op.add(x, total), op.add(x, parts.output(1))], 1), (1, 8, 6, 1))
    fold(graph)
    names = {n.get_friendly_name() for n in graph.get_ordered_ops() if n.get_type_name() == "Constant"}
    assert names == {"halves.1", "total"}


@pytest.mark.parametrize("kind", [ov.Type.f16, ov.Type.bf16, ov.Type.f64])
def test_weights_of_another_type_are_trained_behind_what_is_done_to_them(kind: ov.Type) -> None:
    """And they are written back there."""
    stored = op.constant(normal(6, 5), kind)

    def body(x: Any) -> Any:
        weight = op.transpose(op.convert(stored, ov.Type.f32), ints(1, 0))
        return op.matmul(x, weight, False, True)

    graph, images = graph_of(body), normal(COUNT, 8, 7, 6)
    layer = GraphLayer(graph)
    (weight,) = layer.trainable_variables
    np.testing.assert_allclose(weight.numpy(), normal(6, 5).T, rtol=0.01)
    np.testing.assert_allclose(layer(images), run_graph(graph, images), atol=1e-5)
    weight.assign(weight + 1)
    np.testing.assert_allclose(layer(images), run_graph(patch(graph, layer), images), atol=2e-5)


def test_onnx_keeps_weights_of_half_precision_and_folds_shapes() -> None:
    half = op.constant(normal(42, 5).astype(np.float16))
    model = convert(_sized(lambda x: op.matmul(_rows(x), op.convert(half, ov.Type.f32), False, False)))
    assert sorted(node.op_type for node in model.graph.node) == ["Cast", "MatMul", "Reshape"]
    assert half.data.tobytes() in [some.raw_data for some in model.graph.initializer]


def test_a_constant_of_the_pictures_type() -> None:
    """As exporters write the epsilon of a norm."""
    epsilon = op.constant(np.array([2], np.int32))
    graph = graph_of(lambda x: op.add(x, op.convert_like(epsilon, x)))
    np.testing.assert_allclose(GraphLayer(graph)(normal(2, 8, 7, 6)), normal(2, 8, 7, 6) + 2, rtol=1e-6)


def _trained(body: Body) -> list[tuple[int, ...]]:
    return [tuple(some.value.shape) for some in read(graph_of(body)).constants.values() if some.trainable]


def test_a_row_scales_and_is_a_weight_a_table_is_none() -> None:
    assert _trained(lambda x: op.multiply(x, op.constant(normal(1, 8, 1, 1)))) == [(1, 8, 1, 1)]
    assert _trained(lambda x: op.multiply(x, op.constant(np.cos(normal(7, 6))))) == []
    assert _trained(lambda x: op.add(x, op.constant(normal(7, 6)))) == [(7, 6)]


@pytest.mark.parametrize("low", [-100, -1e9, -np.inf])
def test_a_mask_is_no_weight(low: float) -> None:
    mask = np.where(normal(7, 6) > 0, 0, low).astype(np.float32)
    assert _trained(lambda x: op.add(x, op.constant(mask))) == []


def test_slopes_and_the_scales_of_groups_are_weights() -> None:
    assert _trained(lambda x: op.prelu(x, op.constant(normal(8)))) == [(8,)]
    scale, offset = op.constant(normal(8)), op.constant(normal(8))
    assert _trained(lambda x: op.group_normalization(x, scale, offset, 2, 1e-5)) == [(8,), (8,)]


def test_tokens_are_weights_padding_is_none() -> None:
    def joined(constant: Any) -> list[tuple[int, ...]]:
        return _trained(lambda x: op.concat([op.constant(constant), op.reshape(x, ints(1, 8, 42), False)], 1))

    assert joined(normal(1, 2, 42)) == [(1, 2, 42)]
    assert joined(np.zeros((1, 2, 42), np.float32)) == []


def test_attentions_bias_and_query_are_weights_its_mask_is_none() -> None:
    def attended(bias: Any) -> list[tuple[int, ...]]:
        query = op.constant(normal(1, 1, 3, 6))
        return _trained(lambda x: op.scaled_dot_product_attention(query, x, x, op.constant(bias)))

    assert attended(normal(3, 7)) == [(1, 1, 3, 6), (3, 7)]
    assert attended(normal(3, 7) > 0) == [(1, 1, 3, 6)]
    assert attended(np.where(normal(3, 7) > 0, normal(3, 7), -np.inf).astype(np.float32)) == [(1, 1, 3, 6)]
