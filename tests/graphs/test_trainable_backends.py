"""A graph's layer on each of Keras' backends that is installed; and a vision transformer's, by way of TensorFlow."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from exact import in_f32

HERE = Path(__file__).parents[1] / "support"
BACKENDS = ("tensorflow", "jax", "torch")
Array = np.ndarray[Any, Any]


def _check(backend: str, *graphs: Path) -> list[dict[str, Any]]:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "on_a_backend.py"), *map(str, graphs)],
        capture_output=True, text=True, env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()[-len(graphs) :]]


def _right(result: dict[str, Any], backend: str) -> None:
    assert result["backend"] == backend
    assert result["gap"] < 1e-5
    assert result["slope"] < 1e-6
    assert result["patched"] < 1e-5
    assert result["moved"] > 1e-3


def _weights(*shape: int) -> Any:
    drawn = np.random.default_rng(len(shape)).normal(size=shape) / np.sqrt(np.prod(shape[1:]))
    return op.constant(drawn.astype(np.float32))


def _ints(*values: int) -> Any:
    return op.constant(np.array(values, np.int64))


def _small() -> ov.Model:
    """Convolutions of all kinds, an average, a root of averages, and products of matrices."""
    image = op.parameter([1, 12, 12, 3], ov.Type.f32, name="image")
    x: Any = op.transpose(image, _ints(0, 3, 1, 2))
    x = op.convolution(x, _weights(8, 3, 3, 3), [2, 2], [0, 0], [0, 0], [1, 1], auto_pad="same_upper")
    x = op.swish(op.add(x, _weights(1, 8, 1, 1)))
    x = op.group_convolution(x, _weights(8, 1, 1, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])
    x = op.group_convolution(op.tanh(x), _weights(2, 6, 4, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])
    x = op.convolution(x, _weights(9, 12, 1, 1), [1, 1], [0, 0], [0, 0], [1, 1])
    x = op.avg_pool(op.sigmoid(x), [2, 2], [1, 1], [1, 1], [3, 3], True, "floor", "explicit")
    means = op.reduce_mean(x, _ints(2, 3), False)
    roots = op.power(op.reduce_mean(op.hswish(x), _ints(2, 3), False), op.constant(np.float32(0.25)))
    rows = op.matmul(op.concat([means, roots], 1), _weights(7, 18), False, True)
    return ov.Model([op.gelu(op.add(rows, _weights(1, 7)), "erf")], [image], "small")


def _vision_transformer(side: int = 16, width: int = 12) -> Any:
    """Patches, positions, two blocks of attention and a perceptron, and the mean of the tokens, in Keras' layers."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(5)
    entry = keras.Input((side, side, 3))
    x = layers.Reshape((-1, width))(layers.Conv2D(width, 4, strides=4)(entry))
    positions = layers.Embedding(x.shape[1], width, embeddings_initializer="random_normal")
    x = layers.Add()([x, positions(np.arange(x.shape[1])[None])])
    for _ in range(2):
        y = layers.LayerNormalization(gamma_initializer="random_uniform")(x)
        x = layers.Add()([x, layers.MultiHeadAttention(3, 4, bias_initializer="random_normal")(y, y)])
        y = layers.Dense(2 * width, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(width)(layers.Dropout(0.1)(y))])
    x = layers.LayerNormalization(gamma_initializer="random_uniform")(x)
    return keras.Model(entry, layers.GlobalAveragePooling1D()(x))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "graph.xml"
    ov.save_model(_small(), path, compress_to_fp16=False)
    return path


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Its graph, made of the SavedModel that Keras writes, and the model itself."""
    pytest.importorskip("tensorflow")
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("the transformer is made with Keras on TensorFlow")
    from topwork.backbones.conversion.convert import convert_saved_model

    folder, model = tmp_path_factory.mktemp("transformer"), _vision_transformer()
    model.export(folder / "saved", verbose=False)
    return Path(convert_saved_model(folder / "saved", folder / "graph", size_px=16).graph), model


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_numbers_gradients_and_patches(small: Path, backend: str, request: pytest.FixtureRequest) -> None:
    """Of the small network, and of the transformer where it can be made."""
    graphs = [small]
    if importlib.util.find_spec("tensorflow") is not None:
        graphs.append(request.getfixturevalue("transformer")[0])
    for result in _check(backend, *graphs):
        _right(result, backend)


def test_a_vision_transformer_as_keras_has_it(transformer: tuple[Path, Any]) -> None:
    """The same numbers; and every matrix and kernel of it can be learnt."""
    from topwork.graphs.trainable.layer import GraphLayer

    path, model = transformer
    images = np.random.default_rng(1).random((4, 16, 16, 3), np.float32)
    layer = GraphLayer(ov.Core().read_model(path))
    found, wanted = np.asarray(layer(images)), model.predict(images, verbose=0)
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()
    kernels = Counter(int(np.prod(w.shape)) for w in model.trainable_variables if len(w.shape) > 1)
    assert not kernels - Counter(int(np.prod(w.shape)) for w in layer.trainable_variables)


@pytest.mark.parametrize(
    ("equation", "first", "second", "constant"),
    [
        ("btnh,bsnh->bnts", (1, 4, 3, 5), (1, 4, 3, 5), None),  # attention's shares
        ("bnts,bsnh->btnh", (1, 3, 4, 5), (1, 5, 3, 4), None),
        ("abcd,dcef->bafe", (1, 4, 3, 5), (5, 3, 2, 2), 1),
        ("cd,bhqd->cbhq", (6, 5), (1, 4, 3, 5), 0),
        ("ab,bc->ca", (4, 15), (15, 2), 1),
    ],
)
def test_einsum(equation: str, first: tuple[int, ...], second: tuple[int, ...], constant: int | None) -> None:
    """Of two tensors of the picture, or of it and a constant."""
    pytest.importorskip("keras")
    from topwork.graphs.trainable.layer import GraphLayer

    image = op.parameter([1, 4, 3, 5], ov.Type.f32, name="image")
    operands = [
        _weights(*shape)
        if i == constant
        else op.reshape(op.tanh(image) if i else image, _ints(*shape), False)
        for i, shape in enumerate((first, second))
    ]
    graph = ov.Model([op.einsum(operands, equation)], [image], "einsum")
    images = np.random.default_rng(2).normal(size=(3, 4, 3, 5)).astype(np.float32)
    compiled = in_f32(graph)
    wanted = np.concatenate([np.array(compiled([some[None]])[0]) for some in images])
    layer = GraphLayer(graph)
    found = np.asarray(layer(images))
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_an_einsum_that_sums_what_only_one_operand_has() -> None:
    pytest.importorskip("keras")
    from topwork.errors import TopworkError
    from topwork.graphs.trainable.layer import GraphLayer

    image = op.parameter([1, 4, 3, 5], ov.Type.f32, name="image")
    layer = GraphLayer(ov.Model([op.einsum([image, op.tanh(image)], "abcd,efgh->aebf")], [image], "einsum"))
    with pytest.raises(TopworkError, match=r"Einsum .* its equation is 'abcd,efgh->aebf'"):
        layer(np.zeros((2, 4, 3, 5), np.float32))
