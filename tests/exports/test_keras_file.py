"""Graphs as `.keras` files of Keras' own parts: the same numbers, weights that learn, nothing of ours needed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import keras
import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from small_graphs import (
    CONVOLUTIONS,
    EACH,
    GROUPS,
    POOLS,
    Array,
    Body,
    conv,
    graph_of,
    ints,
    normal,
    pooled,
    run_graph,
)
from topwork.errors import TopworkError
from topwork.exports.contents import Contents
from topwork.exports.keras_file import build
from topwork.images.framing import Framing
from topwork.jobs.export import contents_of, export
from topwork.jobs.train import Run

# Keras' own use of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")
FACTS = Contents(("a",), (7, 6), "sized", Framing("stretch"), 1.0, None, None, {}, "x", "y", "f32", {})


def _pictures(count: int) -> Array:
    return np.random.default_rng(0).integers(0, 256, (count, *FACTS.size_px, 3), np.uint8)


def _network(*bodies: Body) -> ov.Model:
    """From pixels to (1, K): the operators in between, side by side."""
    image = op.parameter([1, *FACTS.size_px, 3], ov.Type.u8, name="image")
    image.output(0).set_names({"image"})
    x = op.transpose(op.divide(op.convert(image, "f32"), op.constant(np.float32(99))), ints(0, 3, 1, 2))
    x = conv(8, 3, 1, 1)(x)
    answer = op.concat([op.reshape(body(x), ints(1, -1), False) for body in bodies], 1)
    answer.output(0).set_names({"features"})
    return ov.Model([answer], [image], "small")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["convolutions", "pools", "others"])
def test_networks_of_every_operator(kind: str, tmp_path: Path) -> None:
    bodies = {
        "convolutions": CONVOLUTIONS | GROUPS,
        "pools": {
            f"{which} {name}": pooled(which, **POOLS[name]) for which in ("max", "average") for name in POOLS
        },
        "others": EACH,
    }[kind]
    pictures = _pictures(3)
    graph = _network(*bodies.values())
    build(graph, FACTS).save(tmp_path / "net.keras")
    found = np.asarray(keras.saving.load_model(tmp_path / "net.keras", compile=False)(pictures)["features"])
    expected = run_graph(graph, pictures)
    assert found.shape == expected.shape
    joined = graph.output(0).get_node().input_value(0).get_node()
    ends = np.cumsum([value.get_shape()[1] for value in joined.input_values()])[:-1]
    parts = zip(bodies, np.split(found, ends, axis=1), np.split(expected, ends, axis=1), strict=True)
    for name, one, other in parts:
        scale = max(1.0, float(np.abs(other).max()))
        np.testing.assert_allclose(one, other, atol=1e-5 * scale, rtol=1e-3, err_msg=name)


def test_what_is_added_becomes_the_layers_own_bias() -> None:
    row, long = op.constant(normal(1, 8, 1, 1)), op.constant(normal(1, 5))

    def body(x: ov.Node) -> ov.Node:
        x = op.relu(op.add(row, conv(8, 1, 1, 3, 3, pads=([1, 1], [1, 1]))(x)))
        return op.add(
            op.matmul(op.reduce_mean(x, ints(2, 3), False), op.constant(normal(8, 5)), False, False), long
        )

    graph = _network(body)
    model = build(graph, FACTS)
    layers = [layer for layer in model.layers if layer.weights]
    assert [type(layer).__name__ for layer in layers] == ["Conv2D", "DepthwiseConv2D", "Dense"]
    assert [len(layer.weights) for layer in layers] == [1, 2, 2]
    assert len(model.trainable_variables) == 5
    pictures = _pictures(3)
    np.testing.assert_allclose(model(pictures)["features"], run_graph(graph, pictures), atol=1e-4)


@pytest.mark.slow
def test_a_classifier_can_be_trained_on(run: Run, tmp_path: Path) -> None:
    exported = export(run.path, tmp_path / "out", format="keras")
    assert exported.path.name == "out.keras"
    assert exported.parity is not None
    assert exported.parity.gap < 1e-3
    assert exported.parity.novelty_gap is not None
    assert exported.parity.novelty_gap < 1e-3
    with zipfile.ZipFile(exported.path) as file:
        assert file.read("labels.txt").decode().splitlines() == list(run.classifier.classes)
        told = Contents.from_json(file.read("topwork.json").decode())
        config = file.read("config.json").decode()
    assert told == contents_of(run.classifier, precision="f32", input="sized")
    assert "topwork." not in config  # no layer or function is ours
    model = keras.saving.load_model(exported.path)
    pictures = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    before = np.asarray(model(pictures)["probabilities"])
    model.compile("sgd", {"probabilities": "categorical_crossentropy"}, run_eagerly=True)
    model.train_on_batch(pictures, {"probabilities": np.eye(before.shape[1])[[0, 1, 0, 1]]})
    assert np.abs(np.asarray(model(pictures)["probabilities"]) - before).max() > 1e-4


def test_what_keras_has_not_is_named() -> None:
    unknown = _network(lambda x: op.cum_sum(x, op.constant(np.int64(1))))
    with pytest.raises(TopworkError, match=r"the operator CumSum .*can't be trained"):
        build(unknown, FACTS)


def test_graph_of_one_is_kept_out() -> None:
    """The graph's own input is left alone."""
    graph = _network(EACH["relu"])
    before = len(graph.get_ordered_ops())
    build(graph, FACTS)
    assert len(graph.get_ordered_ops()) == before
    assert graph_of(EACH["relu"]).inputs[0].any_name == "image"
