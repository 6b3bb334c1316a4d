"""Operators of transformers and other networks, as a layer and as ONNX; OpenVINO is the oracle of both."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import openvino as ov
import pytest
from openvino import opset8
from openvino import opset13 as op
from openvino.utils.node_factory import NodeFactory

from on_a_backend import slope
from small_graphs import COUNT, Array, Body, after_conv, graph_of, ints, normal, rng, run_graph
from topwork.errors import TopworkError
from topwork.exports.onnx.file import convert
from topwork.graphs.trainable.layer import GraphLayer

RTOL = 1e-5


def one(value: float, dtype: Any = np.float32) -> Any:
    return op.constant(dtype(value))


def tokens(x: Any) -> Any:
    """Twelve tokens of 28 numbers."""
    return op.reshape(x, ints(1, 12, 28), False)


def away(body: Body) -> Body:
    """With the batch merged into the first axis, as windows and heads are."""
    return lambda x: op.reshape(body(op.reshape(x, ints(4, 2, 42), False)), ints(1, -1), False)


def heads(x: Any) -> tuple[Any, Any, Any]:
    """Query, key and value (1, heads, tokens, width), by a split along the first axis."""
    rows = op.matmul(tokens(x), op.constant(normal(28, 36) / 5), False, False)
    parts = op.transpose(op.reshape(rows, ints(1, 12, 3, 2, 6), False), ints(2, 0, 3, 1, 4))
    return tuple(op.squeeze(part, ints(0)) for part in op.split(parts, one(0, np.int64), 3).outputs())  # type: ignore[return-value]


def attention(*more: Any, causal: bool = False) -> Body:
    return lambda x: op.scaled_dot_product_attention(*heads(x), *more, causal=causal)


def resized(mode: str, *sides: int, **options: Any) -> Body:
    return lambda x: op.interpolate(x, ints(*sides), mode, "sizes", axes=ints(2, 3), **options)


def resized_4(shape_calculation_mode: str) -> Body:
    attributes = {
        "mode": "cubic",
        "shape_calculation_mode": shape_calculation_mode,
        "pads_begin": [0],
        "pads_end": [0],
    }
    more = ints(10, 9), op.constant(np.float32([1.45, 1.6])), ints(2, 3)
    return lambda x: NodeFactory("opset4").create("Interpolate", [x, *more], attributes)


SEEN = op.constant(rng().random((1, 1, 12, 12)) < 0.7)
SMOOTH: dict[str, Body] = {
    "mvn": lambda x: op.mvn(tokens(x), ints(-1), True, 1e-5, "inside_sqrt"),
    "mvn, eps outside": lambda x: op.mvn(tokens(x), ints(-1), True, 1e-2, "outside_sqrt"),
    "mvn of sides": lambda x: op.mvn(x, ints(2, 3), True, 1e-2, "inside_sqrt"),
    "mvn of channels": lambda x: op.mvn(x, ints(1), True, 1e-2, "inside_sqrt"),
    "mvn of all axes": lambda x: op.mvn(x, ints(0, 1, 2, 3), True, 1e-2, "inside_sqrt"),
    "mvn across the batch": away(lambda x: op.mvn(x, ints(0, 2), True, 1e-5, "inside_sqrt")),
    "mvn without a variance": lambda x: op.mvn(x, ints(1, 3), False, 1e-5, "inside_sqrt"),
    "group normalization": lambda x: op.group_normalization(
        x, op.constant(normal(8)), op.constant(normal(2, 8)[1]), 4, 1e-3
    ),
    "normalize l2": lambda x: op.normalize_l2(x, ints(1), 1e-3, "add"),
    "normalize l2, at least": lambda x: op.normalize_l2(x, ints(2, 3), 1e-3, "max"),
    "l1": lambda x: op.reduce_l1(x, ints(1), True),
    "l2": lambda x: op.reduce_l2(x, ints(2, -1), False),
    "l2 across the batch": away(lambda x: op.reduce_l2(x, ints(0), True)),
    "log softmax": lambda x: op.log_softmax(x, 1),
    "attention": attention(),
    "attention, masked": attention(op.constant(normal(1, 2, 12, 12))),
    "attention, masked by truth": attention(SEEN),
    "attention, causal": attention(causal=True),
    "attention, scaled": attention(one(0), one(0.7)),
    "attention of a constant": lambda x: op.scaled_dot_product_attention(
        op.constant(normal(1, 2, 1, 6)), *heads(x)[1:]
    ),
    "attention of three axes": lambda x: op.scaled_dot_product_attention(tokens(x), tokens(x), tokens(x)),
    "attention with a mask of the picture": lambda x: op.scaled_dot_product_attention(
        *heads(x), op.reduce_mean(heads(x)[0], ints(3), True)
    ),
    "split": lambda x: op.concat(list(reversed(op.split(x, one(1, np.int64), 4).outputs())), 1),
    "split, the second alone": lambda x: op.split(x, one(3, np.int64), 2).output(1),
    "split across the batch": away(lambda x: op.concat(op.split(x, one(0, np.int64), 2).outputs()[::-1], 2)),
    "uneven split": lambda x: op.concat(
        op.variadic_split(x, one(-1, np.int64), ints(1, -1, 2)).outputs()[::-1], 3
    ),
    "roll": lambda x: op.roll(x, ints(2, -3), ints(2, 3)),
    "roll by one number": lambda x: op.roll(x, one(9, np.int64), ints(-1)),
    "roll across the batch": away(lambda x: op.roll(x, ints(1, 0), ints(0, 1))),
    "broadcast": lambda x: op.broadcast(op.reduce_mean(x, ints(2), True), ints(1, 8, 5, 6)),
    "broadcast to more axes": lambda x: op.broadcast(x, ints(1, 2, 8, 7, 6)),
    "broadcast both": lambda x: op.broadcast(x, ints(1, 8, 1, 1), broadcast_spec="BIDIRECTIONAL"),
    "broadcast along axes": lambda x: op.broadcast(
        op.reduce_mean(x, ints(0, 3), False), ints(1, 8, 7, 4), ints(1, 2), "EXPLICIT"
    ),
    "tile": lambda x: op.tile(x, ints(1, 2, 1, 3)),
    "tile to more axes": lambda x: op.tile(tokens(x), ints(1, 2, 1, 1)),
    "tile across the batch": away(lambda x: op.tile(x, ints(2, 1, 1))),
    "gather in a batch": lambda x: op.gather(
        op.reshape(x, ints(1, 8, 42), False), op.constant(rng().integers(-42, 42, (1, 8, 5))),
        one(2, np.int64), 2),
    "gather in a batch of rows": lambda x: op.reshape(op.gather(
        op.reshape(x, ints(8, 42), False), op.constant(rng().integers(-42, 42, (8, 5))), one(-1, np.int64), -1),
        ints(1, 40), False),
    "gather all in a batch": lambda x: op.gather(x, op.constant(np.array([[3, -1]])), one(1, np.int64), 1),
    "gather_nd": lambda x: op.gather_nd(x, op.constant(np.array([[[0, 3], [0, -1]]]))),
    "gather_nd in a batch": lambda x: opset8.gather_nd(x, op.constant(np.array([[[2, 3], [5, 1]]])), 1),
    "shuffle channels": lambda x: op.shuffle_channels(x, 1, 4),
    "depth to space": lambda x: op.depth_to_space(x, "blocks_first", 2),
    "depth to space, depth first": lambda x: op.depth_to_space(x, "depth_first", 2),
    "space to depth": lambda x: op.space_to_depth(resized("nearest", 4, 6)(x), "blocks_first", 2),
    "space to depth, depth first": lambda x: op.space_to_depth(resized("nearest", 4, 6)(x), "depth_first", 2),
    "nearest": resized("nearest", 14, 9),
    "nearest, as TensorFlow": resized("nearest", 3, 9, coordinate_transformation_mode="tf_half_pixel_for_nn"),
    "linear": resized("linear", 10, 12),
    "linear_onnx": resized("linear_onnx", 10, 4),
    "linear_onnx, corners": resized("linear_onnx", 10, 4, coordinate_transformation_mode="align_corners"),
    "cubic": resized("cubic", 10, 4, cube_coeff=-0.5),
    "cubic, asymmetric": resized("cubic", 10, 13, coordinate_transformation_mode="asymmetric"),
    "smoothed": resized("linear", 3, 4, antialias=True),
    "as Pillow": resized("bilinear_pillow", 3, 12),
    "cubic as Pillow": resized("bicubic_pillow", 3, 4),
    "by scales": lambda x: op.interpolate(
        x, op.constant(np.float32([1.4, 1.1])), "linear_onnx", "scales", axes=ints(2, 3)),
    "resized, fourth version": resized_4("sizes"),
    "resized by scales, fourth version": resized_4("scales"),
    "resized from channels last": lambda x: op.interpolate(
        op.transpose(x, ints(0, 2, 3, 1)), ints(9, 3), "linear_onnx", "sizes", axes=ints(1, 2)),
    "hard sigmoid": lambda x: op.hard_sigmoid(x, one(0.3), one(0.6)),
    "softplus": op.softplus,
    "softsign": op.softsign,
    "mish": op.mish,
    "gelu": lambda x: op.gelu(x, "ERF"),
    "gelu by tanh": lambda x: op.gelu(x, "TANH"),
    "elu": lambda x: op.elu(x, 0.3),
    "selu": lambda x: op.selu(x, one(1.5), one(1.1)),
    "prelu": lambda x: op.prelu(x, op.constant(normal(8))),
    "prelu of one slope": lambda x: op.prelu(x, op.constant(np.float32([0.2]))),
    "log": lambda x: op.log(op.exp(x) + one(0.1)),
    "sin": op.sin,
    "cos": op.cos,
    "rotary positions": lambda x: op.add(
        op.multiply(tokens(x), op.constant(np.cos(normal(12, 28)))),
        op.multiply(op.roll(tokens(x), ints(14), ints(2)), op.constant(np.sin(normal(12, 28))))),
    "select": lambda x: op.select(op.greater(x, one(0)), x, op.multiply(x, one(0.1))),
    "select by a constant": lambda x: op.select(op.constant(rng().random((1, 8, 1, 1)) < 0.5), x, one(0)),
    "select between constants": lambda x: op.select(op.less_equal(x, one(0)), op.constant(normal(6)), x),
}  # fmt: skip
STEPS: dict[str, Body] = {
    "floor": lambda x: op.floor(op.multiply(x, one(3))),
    "ceiling": lambda x: op.ceiling(op.multiply(x, one(3))),
    "truth as numbers": lambda x: op.convert(op.less(x, op.relu(x)), ov.Type.f32),
}
EACH = SMOOTH | STEPS


def _close(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < RTOL * np.abs(expected).max()


def _agrees(graph: ov.Model) -> None:
    """For one picture and for three different ones."""
    images = normal(COUNT, *list(graph.inputs[0].shape)[1:])
    layer, expected = GraphLayer(graph), run_graph(graph, images)
    for number in (1, COUNT):
        found = keras.ops.convert_to_numpy(layer(images[:number]))
        _close(found, expected[: len(expected) // COUNT * number])


@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("name", EACH)
def test_as_a_layer(name: str, layout: str) -> None:
    _agrees(graph_of(after_conv(EACH[name]) if layout == "last" else EACH[name]))


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients(name: str) -> None:
    """Of the kernel of a convolution before, and of the operator's own weights, in float64."""
    layer = GraphLayer(graph_of(after_conv(SMOOTH[name])), dtype="float64")
    assert slope(layer, normal(COUNT, 8, 7, 6).astype(np.float64), rng()) < 1e-6


@pytest.mark.parametrize("name", EACH)
def test_as_onnx(name: str) -> None:
    import onnx
    import onnxruntime

    graph, images = graph_of(EACH[name]), normal(COUNT, 8, 7, 6)
    model = convert(graph)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = np.concatenate([session.run(["features"], {"image": image[None]})[0] for image in images])
    _close(found, run_graph(graph, images))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (lambda x: op.convert(op.topk(x, one(2, np.int64), 1, "max", "value").output(1), ov.Type.f32),
         "TopK .* its output 1 is used"),
        (lambda x: op.topk(x, one(2, np.int64), 1, "max", "value").output(0),
         "TopK .* the operator is not supported"),
        (lambda x: op.max_pool(x, [1, 1], [1, 1], [0, 0], [0, 0], [2, 2], "floor", "explicit").output(1),
         r"MaxPool .* its output 1 is used"),
        (resized("linear", 10, 12, pads_begin=[0, 0, 1, 0]), "Interpolate .* it pads the picture"),
        (lambda x: op.interpolate(
            op.reshape(x, ints(2, 4, 7, 6), False), ints(4, 4), "nearest", "sizes", axes=ints(0, 1)),
         "Interpolate .* it resizes the axis of images"),
        (lambda x: op.gather_nd(
            op.constant(normal(9)), op.convert(op.reshape(x, ints(336, 1), False), ov.Type.i32)),
         "Convert .* it converts to integers"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained(body: Body, reason: str) -> None:
    with pytest.raises(TopworkError, match=reason):
        GraphLayer(graph_of(body))(normal(1, 8, 7, 6))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (lambda x: op.max_pool(x, [1, 1], [1, 1], [0, 0], [0, 0], [2, 2], "floor", "explicit").output(1),
         r"MaxPool .* its output 1 is used"),
        (resized("linear", 10, 12, pads_begin=[0, 0, 1, 0]), "Interpolate .* it pads the picture"),
        (lambda x: op.gather(x, op.constant(np.array([[0, 1]])), one(3, np.int64), 1),
         "Gather .* it gathers with `batch_dims`, along another axis"),
        (lambda x: op.shuffle_channels(op.reshape(x, ints(4, 2, 42), False), 0, 2),
         "ShuffleChannels .* it shuffles the axis of images"),
        (lambda x: op.depth_to_space(op.reshape(x, ints(1, 8, 42), False), "blocks_first", 2),
         "DepthToSpace .* its input is no picture"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_in_onnx(body: Body, reason: str) -> None:
    with pytest.raises(TopworkError, match=reason):
        convert(graph_of(body))
