"""Graphs as `.keras` files of Keras' own parts: the same numbers, weights that learn, nothing of ours needed."""

from __future__ import annotations

import json
import subprocess
import sys
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
    Body,
    conv,
    graph_of,
    ints,
    normal,
    pooled,
    run_graph,
)
from topwork.exporting import contents_of, export
from topwork.exports.contents import Contents
from topwork.exports.keras_file import build
from topwork.training import Run

# Keras' own use of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")
FACTS = Contents(("a",), (7, 6), "sized", "stretch", 1.0, None, None, {}, "x", "y", "f32", {})


def _network(body: Body) -> ov.Model:
    """From pixels to (1, K): the operator in between."""

    def whole(image: ov.Node) -> ov.Node:
        x = op.transpose(op.divide(op.convert(image, "f32"), op.constant(np.float32(99))), ints(0, 3, 1, 2))
        x = body(conv(8, 3, 1, 1)(x))
        return op.reshape(x, ints(1, -1), False)

    image = op.parameter([1, *FACTS.size_px, 3], ov.Type.u8, name="image")
    image.output(0).set_names({"image"})
    answer = whole(image)
    answer.output(0).set_names({"features"})
    return ov.Model([answer], [image], "small")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["convolutions", "pools", "others"])
def test_networks_of_every_operator(kind: str, tmp_path: Path) -> None:
    bodies = {
        "convolutions": CONVOLUTIONS | GROUPS,
        "pools": {name: pooled(which, **POOLS[name]) for which in ("max", "average") for name in POOLS},
        "others": EACH,
    }[kind]
    pictures = np.random.default_rng(0).integers(0, 256, (3, *FACTS.size_px, 3), np.uint8)
    for name, body in bodies.items():
        graph = _network(body)
        path = tmp_path / "net.keras"
        build(graph, FACTS).save(path)
        found = keras.saving.load_model(path, compile=False)(pictures)["features"]
        expected = run_graph(graph, pictures)
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found, expected, atol=1e-5 * scale, rtol=1e-3, err_msg=name)
        path.unlink()


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
    pictures = np.random.default_rng(0).integers(0, 256, (3, *FACTS.size_px, 3), np.uint8)
    np.testing.assert_allclose(model(pictures)["features"], run_graph(graph, pictures), atol=1e-4)


@pytest.mark.slow
def test_a_classifier_loads_where_topwork_is_not(run: Run, tmp_path: Path) -> None:
    exported = export(run.path, tmp_path / "out", format="keras")
    assert exported.path.name == "out.keras"
    assert exported.parity is not None
    assert exported.parity.gap < 1e-3
    with zipfile.ZipFile(exported.path) as file:
        assert file.read("labels.txt").decode().splitlines() == list(run.classifier.classes)
        assert (
            json.loads(file.read("topwork.json"))["versions"]
            == contents_of(run.classifier, precision="f32", input="sized").versions
        )
    code = (
        "import sys; sys.modules['topwork'] = None\nimport keras, numpy as np\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "pictures = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)\n"
        "model.compile('sgd', {'probabilities': 'categorical_crossentropy'})\n"
        "before = model.predict(pictures, verbose=0)['probabilities']\n"
        "model.fit(pictures, {'probabilities': np.eye(before.shape[1])[[0, 1, 0, 1]]}, epochs=3, verbose=0)\n"
        "print(abs(model.predict(pictures, verbose=0)['probabilities'] - before).max() > 1e-4)"
    )
    called = [sys.executable, "-c", code, str(exported.path)]
    told = subprocess.run(called, capture_output=True, text=True, check=False, timeout=300)
    assert (told.returncode, told.stdout) == (0, "True\n"), told.stderr[-2000:]


def test_graph_of_one_is_kept_out() -> None:
    """The graph's own input is left alone."""
    graph = _network(EACH["relu"])
    before = len(graph.get_ordered_ops())
    build(graph, FACTS)
    assert len(graph.get_ordered_ops()) == before
    assert graph_of(EACH["relu"]).inputs[0].any_name == "image"
