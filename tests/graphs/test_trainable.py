"""A graph as a Keras layer: OpenVINO itself is the oracle of every operator, and of the built-in network."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import keras
import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op
from openvino import opset14

from exact import in_f32
from small_graphs import (
    CONVOLUTIONS,
    COUNT,
    EACH,
    GROUPS,
    POOLS,
    ROW,
    Array,
    Body,
    after_conv,
    conv,
    graph_of,
    ints,
    normal,
    pooled,
    rng,
    run_graph,
    with_outputs,
)
from topwork.backbones.efficientnet_lite import build
from topwork.errors import InputError, TopworkError
from topwork.graphs.features import average_views, pool
from topwork.graphs.trainable.layer import GraphLayer, patch

RTOL = 1e-4


def _gap(found: Any, expected: Array) -> float:
    """The largest difference, as a part of the largest number."""
    found = np.asarray(keras.ops.convert_to_numpy(found))
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _agrees(graph: ov.Model, images: Array | None = None) -> GraphLayer:
    shape = graph.inputs[0].get_partial_shape()
    if images is None:
        images = normal(COUNT, *(shape[i].get_length() for i in range(1, shape.rank.get_length())))
    layer = GraphLayer(graph, output="features")
    expected = run_graph(graph, images)
    assert _gap(layer(images), expected) < RTOL
    assert tuple(layer.compute_output_shape(images.shape)) == expected.shape
    return layer


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name: str) -> None:
    _agrees(graph_of(CONVOLUTIONS[name]))


@pytest.mark.parametrize("name", GROUPS)
def test_group_convolution(name: str) -> None:
    _agrees(graph_of(GROUPS[name]))


@pytest.mark.parametrize("dimensions", [1, 3])
def test_convolution_of_a_line_and_of_a_volume(dimensions: int) -> None:
    body = conv(
        5,
        4,
        *(3,) * dimensions,
        strides=(2,) * dimensions,
        pads=([1] * dimensions,) * 2,
        dilations=(1,) * dimensions,
    )
    _agrees(graph_of(body, (1, 4, *(7, 6, 5)[:dimensions])))


@pytest.mark.parametrize("name", POOLS)
def test_max_pool(name: str) -> None:
    _agrees(
        graph_of(pooled("max", **POOLS[name])), normal(COUNT, 8, 7, 6) - 5
    )  # all negative: a border of 0 would win


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("name", POOLS)
def test_average_pool(name: str, exclude: bool) -> None:
    _agrees(graph_of(pooled("average", **POOLS[name], exclude=exclude)), normal(COUNT, 8, 7, 6) + 1)


def test_average_pool_as_torch_rounds() -> None:
    """Its own way of counting, and it never begins a window in the border behind."""

    def body(x: Any) -> Any:
        return opset14.avg_pool(x, [3, 2], [1, 1], [1, 1], [3, 3], False, "ceil_torch", "explicit")

    _agrees(graph_of(body))


@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("name", EACH)
def test_operator(name: str, layout: str) -> None:
    body = EACH[name]
    _agrees(graph_of(after_conv(body) if layout == "last" else body))


@pytest.mark.parametrize(
    ("begin", "end", "stride", "masks"),
    [
        ((0, 1, 0, 2), (1, 5, 9, 4), (1, 2, 1, 1), {}),
        ((9, 1, 9, -2), (0, 5, 0, 99), (1, 1, 1, 1), {"begin": [1, 0, 1, 0], "end": [1, 0, 1, 0]}),
        ((0, 0, -1), (1, 9, -9), (1, 1, -2), {"begin": [1, 1, 0], "end": [1, 1, 0]}),
        ((0, 3, 0, 0), (0, 4, 0, 0), (1, 1, 1, 1), {"begin": [1, 0, 1, 1], "end": [1, 0, 1, 1], "shrink": [0, 1]}),
        ((0, -1), (0, 0), (1, 1), {"ellipsis": [1], "shrink": [0, 1]}),
        ((0, 0, 2), (0, 0, 5), (1, 1, 1), {"new": [0, 1, 0], "begin": [1, 1, 0], "end": [1, 1, 0]}),
        ((0, 0, 1), (0, 0, 3), (1, 1, 1), {"new": [0, 1, 0], "ellipsis": [1, 0, 0]}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("layout", ["first", "last"])
def test_strided_slice(layout: str, begin: Any, end: Any, stride: Any, masks: dict[str, list[int]]) -> None:
    def body(x: Any) -> Any:
        names = ("begin", "end", "new", "shrink", "ellipsis")
        arguments = ((masks.get(name, []) + [0] * len(begin))[: len(begin)] for name in names)
        return op.strided_slice(x, ints(*begin), ints(*end), ints(*stride), *arguments)

    _agrees(graph_of(after_conv(body) if layout == "last" else body))


@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (1, 1, 8, 1), (1, 1, 1, 8), (1, 1, 8, 8)])
@pytest.mark.parametrize("layout", ["first", "last"])
def test_a_bias_stays_on_its_axis_where_all_axes_are_as_long(shape: tuple[int, ...], layout: str) -> None:
    def body(x: Any) -> Any:
        return op.add(op.constant(normal(*shape)), x)

    _agrees(graph_of(after_conv(body) if layout == "last" else body, (1, 8, 8, 8)))


def test_a_bias_on_a_column_of_one() -> None:
    _agrees(
        graph_of(lambda x: op.add(op.reduce_mean(x, ints(2), True), op.constant(normal(1, 5))), (1, 5, 3))
    )


def test_rows_of_patches_as_a_transformer_has_them() -> None:
    """A class token, positions, products of a batch that is merged with the patches, and attention."""

    def body(x: Any) -> Any:
        patches = op.transpose(op.reshape(x, ints(1, 8, 42), False), ints(0, 2, 1))
        tokens = op.concat([op.constant(normal(1, 1, 8)), patches], 1)
        tokens = op.add(tokens, op.constant(normal(1, 43, 8)))
        rows = op.reshape(tokens, ints(43, 8), False)
        rows = op.add(op.matmul(rows, op.constant(normal(24, 8)), False, True), op.constant(normal(24)))
        heads = op.transpose(
            op.reshape(rows, ints(43, 3, 2, 4), False), ints(1, 2, 0, 3)
        )  # (3, heads, 43, 4)
        q, k, v = (op.gather(heads, op.constant(np.int64(i)), op.constant(np.int64(0))) for i in range(3))
        shares = op.softmax(op.matmul(q, k, False, True), 2)
        mixed = op.reshape(
            op.transpose(op.matmul(shares, v, False, False), ints(1, 0, 2)), ints(1, 43, 8), False
        )
        return op.gather(op.add(mixed, tokens), op.constant(np.int64(0)), op.constant(np.int64(1)))

    layer = _agrees(graph_of(body))
    shapes = [tuple(weight.shape) for weight in layer.trainable_variables]
    assert shapes == [(1, 1, 8), (1, 43, 8), (24, 8), (24,)]


@pytest.mark.parametrize("views", ["flip", "dihedral"])
def test_views_are_averaged_within_each_image(views: Any) -> None:
    graph = average_views(_pixels(), views)
    _agrees(graph, rng().integers(0, 256, (COUNT, 8, 8, 3), np.uint8))


def _pixels(side: int = 8) -> ov.Model:
    """A small network as Topwork has them: uint8 pixels, channels last; a root at its end."""
    image = op.parameter([1, side, side, 3], ov.Type.u8, name="image")
    image.output(0).set_names({"image"})
    x = op.transpose(
        op.divide(op.convert(image, ov.Type.f32), op.constant(np.float32(127))), ints(0, 3, 1, 2)
    )
    x = op.subtract(x, op.constant(np.float32([[[[1]], [[0.9]], [[1.1]]]])))
    x = op.relu(op.add(conv(8, 3, 3, 3, strides=(2, 2), auto_pad="same_upper")(x), ROW))
    x = conv(8, 1, 1, 3, 3, auto_pad="same_upper")(x)
    x = op.add(x, op.constant(normal(1, 8, 1, 1)))
    return pool(with_outputs(image, op.clamp(x, 0.0, 6.0)), ["features"], rooted=["features"])


def test_a_batch_that_is_not_known() -> None:
    layer = _agrees(graph_of(lambda x: op.reshape(op.relu(x), ints(0, -1), True), batch=-1))
    assert layer(normal(0, 8, 7, 6)).shape == (0, 336)


def test_weights_of_half_precision() -> None:
    half = op.constant(normal(5, 8, 3, 3).astype(np.float16))
    graph = graph_of(
        lambda x: op.convolution(x, op.convert(half, ov.Type.f32), [1, 1], [0, 0], [0, 0], [1, 1])
    )
    layer = _agrees(graph)
    layer.trainable_variables[0].assign(normal(5, 8, 3, 3) + np.float32(1e-5))  # half precision can't tell it
    _agrees_patched(graph, layer)


def test_mixed_precision() -> None:
    graph = _pixels()
    layer = GraphLayer(graph, dtype="mixed_bfloat16")
    images = rng().integers(0, 256, (COUNT, 8, 8, 3), np.uint8)
    found = layer(images)
    assert found.dtype == "bfloat16"
    assert all(w.dtype == "float32" for w in layer.trainable_variables)
    assert _gap(keras.ops.cast(found, "float32"), run_graph(graph, images)) < 0.03


def _agrees_patched(graph: ov.Model, layer: GraphLayer) -> None:
    patched = patch(graph, layer)
    images = normal(COUNT, *layer.plan.image_shape[1:])
    assert _gap(layer(images), run_graph(patched, images)) < RTOL
    assert _gap(run_graph(graph, images), run_graph(patched, images)) > RTOL


def test_which_constants_are_weights() -> None:
    """Kernels and what has more than four numbers; the mean and scale of the colours, and exponents, are not."""
    layer = GraphLayer(_pixels())
    assert [tuple(w.shape) for w in layer.trainable_variables] == [
        (8, 3, 3, 3), (1, 8, 1, 1), (8, 1, 1, 3, 3), (1, 8, 1, 1),
    ]  # fmt: skip
    assert not layer.non_trainable_variables
    assert [w.name.rpartition("_")[0] for w in layer.trainable_variables] == [
        "convolution", "add", "groupconvolution", "add",
    ]  # fmt: skip
    layer.trainable = False
    assert not layer.trainable_variables


def _builtin(side: int) -> ov.Model:
    whole = build("efficientnet-lite0", size_px=side)
    seen = [name for output in whole.outputs for name in output.names if name.startswith("block")]
    return pool(whole, ["last"], rooted=[*seen, "last"])


def test_the_built_in_network() -> None:
    graph = _builtin(64)
    layer = _agrees(graph, rng().integers(0, 256, (2, 64, 64, 3), np.uint8))
    assert (
        sum(w.shape[-1] == w.shape[-2] == 5 for w in layer.trainable_variables) == 9
    )  # of Lite0's 5 x 5 kernels
    assert {place.node for place in layer.places} < set(range(len(graph.get_ordered_ops())))


def test_training_in_a_model_and_the_way_back() -> None:
    """What `fit` learnt is in the patched graph, and the graph that was given is as it was."""
    graph = _pixels()
    images = rng().integers(0, 256, (16, 8, 8, 3), np.uint8)
    labels = np.arange(16) % 2
    before = run_graph(graph, images)
    layer = GraphLayer(graph)
    model = keras.Sequential([keras.Input((8, 8, 3), dtype="uint8"), layer, keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    history = model.fit(images, labels, epochs=15, batch_size=8, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]
    patched = patch(graph, layer)
    assert _gap(layer(images), run_graph(patched, images)) < RTOL
    assert np.array_equal(run_graph(graph, images), before)
    assert _gap(before, run_graph(patched, images)) > 0.01
    assert _gap(GraphLayer(patched)(images), run_graph(patched, images)) < RTOL


def test_a_patched_graph_keeps_its_other_outputs() -> None:
    image = op.parameter([1, 8, 7, 6], ov.Type.f32, name="image")
    image.output(0).set_names({"image"})
    first = conv(8, 8, 1, 1)(image)
    graph = with_outputs(image, op.relu(first), op.exp(first))
    layer = GraphLayer(graph, output="features")
    layer.trainable_variables[0].assign(np.zeros((8, 8, 1, 1), np.float32))
    patched = patch(graph, layer)
    assert [out.get_any_name() for out in patched.outputs] == ["features", "other1"]
    result = in_f32(patched)([normal(1, 8, 7, 6)])
    assert np.array_equal(result["other1"], np.ones((1, 8, 7, 6)))


def _slopes(layer: GraphLayer, images: Array, weight: Any) -> tuple[Array, Array]:
    """How the sum of squared features grows with each of a few numbers of `weight`: by the layer, by trying."""
    import tensorflow as tf

    def loss() -> Any:
        return tf.reduce_sum(tf.square(layer(images)))

    with tf.GradientTape() as tape:
        total = loss()
    slopes = tape.gradient(total, weight.value).numpy().ravel()
    start = weight.numpy()
    which = rng().choice(start.size, min(6, start.size), replace=False)
    tried = []
    for i in which:
        sides = []
        for step in (1e-2, -1e-2):
            moved = start.copy()
            moved.flat[i] += step
            weight.assign(moved)
            sides.append(float(loss()))
        tried.append((sides[0] - sides[1]) / 2e-2)
    weight.assign(start)
    return slopes[which], np.array(tried)


SMOOTH: dict[str, Body] = {
    "convolutions": lambda x: op.power(
        op.reduce_mean(
            op.sigmoid(op.add(conv(8, 1, 1, 3, 3, strides=(2, 2), pads=([1, 1], [1, 1]))(
                op.swish(conv(8, 8, 3, 3, auto_pad="same_upper")(x))), ROW)), ints(2, 3), False),
        op.constant(np.float32(0.25))),
    "products": lambda x: op.softmax(op.matmul(op.gelu(op.add(op.matmul(op.reduce_mean(x, ints(2), False),
        op.constant(normal(6, 9)), False, False), op.constant(normal(1, 9))), "erf"),
        op.constant(normal(5, 9)), False, True), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_are_what_small_changes_do(name: str) -> None:
    layer = GraphLayer(graph_of(SMOOTH[name]))
    assert len(layer.trainable_variables) == 3
    for weight in layer.trainable_variables:
        slopes, tried = _slopes(layer, normal(COUNT, 8, 7, 6), weight)
        assert np.abs(slopes).max() > 0
        assert slopes == pytest.approx(tried, rel=0.02, abs=0.02 * np.abs(tried).max())


@pytest.mark.parametrize("name", [*CONVOLUTIONS, *GROUPS])
def test_every_convolution_has_a_gradient(name: str) -> None:
    """TensorFlow has none for some on a processor: dilated ones, groups."""
    layer = GraphLayer(graph_of((CONVOLUTIONS | GROUPS)[name]))
    slopes, tried = _slopes(layer, normal(COUNT, 8, 7, 6), layer.trainable_variables[0])
    assert slopes == pytest.approx(tried, rel=0.02, abs=0.02 * np.abs(tried).max())


@pytest.mark.parametrize("root", [0.25, 0.5])
def test_a_dead_channel_has_a_root_and_no_gradient(root: float) -> None:
    import tensorflow as tf

    kernel = normal(8, 8, 1, 1)
    kernel[3] = 0
    convolution = op.constant(kernel)

    def body(x: Any) -> Any:
        x = op.relu(op.convolution(x, convolution, [1, 1], [0, 0], [0, 0], [1, 1]))
        return op.power(op.reduce_mean(x, ints(2, 3), False), op.constant(np.float32(root)))

    layer = _agrees(graph_of(body))
    weight = layer.trainable_variables[0]
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(normal(COUNT, 8, 7, 6)))
    slopes = tape.gradient(total, weight.value).numpy()
    assert np.isfinite(slopes).all()
    assert not slopes[3].any()
    assert slopes[2].any()


def test_an_operator_that_is_not_known() -> None:
    graph = graph_of(lambda x: op.cum_sum(x, op.constant(np.int64(1)), name="the total"))
    message = (
        r"the operator CumSum \('the total', node 2 of the graph\) can't be trained: the operator is not supported; "
        r"a network with it can still be used frozen"
    )
    with pytest.raises(TopworkError, match=message):
        GraphLayer(graph)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (lambda x: op.convert(x, ov.Type.i32), r"Convert .* it converts to integers \(i32\)"),
        (lambda x: op.max_pool(x, [1, 1], [2, 2], [0, 0], [0, 0], [2, 2], "floor", "explicit").output(0),
         "MaxPool .* its window is dilated"),
        (lambda x: op.max_pool(x, [1, 1], [1, 1], [0, 0], [0, 0], [2, 2], "floor", "explicit").output(1),
         r"MaxPool .* its output 1 is used"),
        (lambda x: op.convolution(x, op.reshape(x, ints(6, 8, 7, 1), False), [1, 1], [0, 0], [0, 0], [1, 1]),
         "Convolution .* its kernel is computed from the picture"),
        (lambda x: op.pad(x, ints(1, 0, 0, 0), ints(0, 0, 0, 0), "constant"), "Pad .* it pads the axis of images"),
        (lambda x: op.gather(op.constant(normal(9, 4)), op.convert(x, ov.Type.i32), op.constant(np.int64(0))),
         "Convert .* it converts to integers"),
    ],
)  # fmt: skip
def test_a_use_that_cannot_be_trained(body: Body, reason: str) -> None:
    with pytest.raises(TopworkError, match=reason):
        GraphLayer(graph_of(body))(normal(1, 8, 7, 6))


def test_a_wrong_output_or_input() -> None:
    graph = build("efficientnet-lite0", size_px=32)
    with pytest.raises(InputError, match=r"the graph has 26 outputs; name the one to use: stem, "):
        GraphLayer(graph)
    with pytest.raises(InputError, match="unknown output 'logit'; did you mean 'logits'"):
        GraphLayer(graph, output="logit")
    with pytest.raises(InputError, match=r"expected images of shape \(N, 8, 7, 6\), .*; got \(1, 8, 6, 7\)"):
        GraphLayer(graph_of(op.relu)).compute_output_shape((1, 8, 6, 7))
    one, two = (op.parameter([1, 2], ov.Type.f32) for _ in range(2))
    with pytest.raises(InputError, match="expected a graph with one input, the images; this one has 2"):
        GraphLayer(ov.Model([op.add(one, two)], [one, two]))
    image = op.parameter([1, 3, -1, -1], ov.Type.f32)
    with pytest.raises(
        InputError, match=r"expected an input with a fixed size, \(N, ...\); got \[1,3,\?,\?\]; fix"
    ):
        GraphLayer(ov.Model([op.relu(image)], [image]))


def test_a_graph_whose_batch_cannot_be_one() -> None:
    image = op.parameter([2, 8], ov.Type.f32)
    graph = ov.Model([op.reshape(image, ints(2, 8), False)], [image])
    with pytest.raises(TopworkError, match=r"the graph can't take a single image \(its input is \[1,8\]\)"):
        GraphLayer(graph)


def test_a_size_that_depends_on_the_picture() -> None:
    with pytest.raises(TopworkError, match="the output size of NonZero depends on the picture's content"):
        GraphLayer(graph_of(lambda x: op.convert(op.non_zero(x), ov.Type.f32)))


def test_another_graphs_layer_is_not_patched_in() -> None:
    with pytest.raises(InputError, match="the layer was made from another graph; pass the graph that"):
        patch(_pixels(), GraphLayer(_pixels(16)))


def test_without_keras() -> None:
    code = (
        "import sys; sys.modules['keras'] = None\n"
        "from topwork.errors import MissingExtra\n"
        "try: import topwork.graphs.trainable.layer\n"
        "except MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == 'tuning a network needs an optional part: pip install "topwork[finetune]"\n'
