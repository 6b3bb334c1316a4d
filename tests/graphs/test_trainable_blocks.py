"""Blocks of a ViT, a Swin and a ConvNeXt as exporters write them, for any batch size: as a layer and as ONNX."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op
from openvino._offline_transformations import apply_moc_transformations

from on_a_backend import slope
from small_graphs import COUNT, Array, ints, rng, run_graph
from topwork.exports.keras_file import build
from topwork.exports.onnx.file import _for_any_number, convert
from topwork.graphs.trainable.layer import GraphLayer, patch
from topwork.graphs.trainable.plan import read

SIDE = 16
WIDTH = 12
RTOL = 1e-5


class Weights:
    """Draws weights, other ones each time."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(11)

    def __call__(self, *shape: int, mean: float = 0.0) -> Any:
        drawn = mean + self.random.normal(size=shape) / np.sqrt(max(shape[-1], 4))
        return op.constant(drawn.astype(np.float32))


def _picture(body: Callable[[Any, Weights], Any]) -> ov.Model:
    """`body` takes pictures (N, 3, S, S) with a free N, which is then fixed, as `read.dress` does."""
    image = op.parameter([-1, SIDE, SIDE, 3], ov.Type.u8, name="image")
    image.output(0).set_names({"image"})
    x = op.multiply(op.convert(image, ov.Type.f32), op.constant(np.float32(1 / 127.5)))
    x = op.transpose(op.subtract(x, op.constant(np.float32(1))), ints(0, 3, 1, 2))
    features = op.result(body(x, Weights()))
    features.output(0).set_names({"features"})
    graph = ov.Model([features], [image], "small")
    graph.reshape([1, SIDE, SIDE, 3])
    apply_moc_transformations(graph, False)
    graph.validate_nodes_and_infer_types()
    return graph


def _count(x: Any, axis: int = 0) -> Any:
    return op.gather(op.shape_of(x), ints(axis), op.constant(np.int64(0)))


def _shape(*parts: Any) -> Any:
    return op.concat([ints(part) if isinstance(part, int) else part for part in parts], 0)


def _normalised(x: Any, w: Weights, width: int = WIDTH) -> Any:
    x = op.mvn(x, ints(-1), True, 1e-5, "inside_sqrt")
    return op.add(op.multiply(x, w(width, mean=1)), w(width))


def _dense(x: Any, w: Weights, inputs: int, outputs: int) -> Any:
    return op.add(op.matmul(x, w(outputs, inputs), False, True), w(outputs))


def _perceptron(x: Any, w: Weights, mode: str = "erf") -> Any:
    return _dense(op.gelu(_dense(x, w, WIDTH, 2 * WIDTH), mode), w, 2 * WIDTH, WIDTH)


def _patches(x: Any, w: Weights) -> Any:
    x = op.convolution(x, w(WIDTH, 3, 4, 4), [4, 4], [0, 0], [0, 0], [1, 1])
    return op.add(x, w(1, WIDTH, 1, 1))


def vit(x: Any, w: Weights, *, fused: bool = True) -> Any:
    x = _patches(x, w)
    n = _count(x)
    x = op.transpose(op.reshape(x, _shape(n, WIDTH, -1), False), ints(0, 2, 1))
    x = op.concat([op.broadcast(w(1, 1, WIDTH), _shape(n, 1, WIDTH)), x], 1)
    length = op.squeeze(_count(x, 1), ints(0))
    zero, step = op.constant(np.int64(0)), op.constant(np.int64(1))
    x = op.add(x, op.gather(w(20, WIDTH), op.range(zero, length, step, ov.Type.i64), zero))
    y = _dense(_normalised(x, w), w, WIDTH, 3 * WIDTH)
    y = op.transpose(op.reshape(y, _shape(_count(y), _count(y, 1), 3, 2, 6), False), ints(2, 0, 3, 1, 4))
    q, k, v = (op.squeeze(part, ints(0)) for part in op.split(y, zero, 3).outputs())
    if fused:
        y = op.scaled_dot_product_attention(q, k, v)
    else:
        shares = op.softmax(op.matmul(op.multiply(q, op.constant(np.float32(6**-0.5))), k, False, True), -1)
        y = op.matmul(shares, v, False, False)
    y = op.reshape(op.transpose(y, ints(0, 2, 1, 3)), ints(0, 0, -1), True)
    x = op.add(x, op.multiply(_dense(y, w, WIDTH, WIDTH), w(WIDTH)))
    x = op.add(x, _perceptron(_normalised(x, w), w, "tanh"))
    return op.gather(_normalised(x, w), op.constant(np.int64(0)), op.constant(np.int64(1)))


def _windows(x: Any, w: Weights, mask: Array) -> Any:
    """Attention within windows of 2 x 2 of (N, 4, 4, C)."""
    x = op.reshape(x, ints(-1, 2, 2, 2, 2, WIDTH), False)
    x = op.reshape(op.transpose(x, ints(0, 1, 3, 2, 4, 5)), ints(-1, 4, WIDTH), False)
    x = op.reshape(_dense(x, w, WIDTH, 3 * WIDTH), ints(0, 0, 3, 2, 6), True)
    parts = op.variadic_split(op.transpose(x, ints(2, 0, 3, 1, 4)), op.constant(np.int64(0)), ints(1, 1, -1))
    q, k, v = (op.squeeze(part, ints(0)) for part in parts.outputs())
    scores = op.add(op.matmul(q, op.transpose(k, ints(0, 1, 3, 2)), False, False), w(1, 2, 4, 4))
    scores = op.add(op.reshape(scores, ints(-1, 4, 2, 4, 4), False), op.constant(mask))
    shares = op.softmax(op.reshape(scores, ints(-1, 2, 4, 4), False), -1)
    x = op.reshape(
        op.transpose(op.matmul(shares, v, False, False), ints(0, 2, 1, 3)), ints(-1, 4, WIDTH), False
    )
    x = op.reshape(_dense(x, w, WIDTH, WIDTH), ints(-1, 2, 2, 2, 2, WIDTH), False)
    return op.reshape(op.transpose(x, ints(0, 1, 3, 2, 4, 5)), ints(-1, 4, 4, WIDTH), False)


def swin(x: Any, w: Weights) -> Any:
    """One block with shifted windows, and the merging of patches."""
    x = op.transpose(_patches(x, w), ints(0, 2, 3, 1))
    area = np.repeat([0, 1, 2], [2, 1, 1])  # as Swin numbers what a shift brings together
    regions = (3 * area[:, None] + area).reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(4, 4)
    mask = np.where(regions[:, None] == regions[:, :, None], 0, -100).astype(np.float32)
    y = op.roll(_normalised(x, w), ints(-1, -1), ints(1, 2))
    y = op.roll(_windows(y, w, mask[None, :, None]), ints(1, 1), ints(1, 2))
    x = op.add(x, y)
    x = op.add(x, _perceptron(_normalised(x, w), w))
    quarters = [
        op.strided_slice(x, ints(0, i, j, 0), ints(0, 99, 99, 0), ints(1, 2, 2, 1), [1, 0, 0, 1], [1, 0, 0, 1])
        for j in range(2) for i in range(2)
    ]  # fmt: skip
    x = _normalised(op.concat(quarters, -1), w, 4 * WIDTH)
    return op.reduce_mean(op.matmul(x, w(2 * WIDTH, 4 * WIDTH), False, True), ints(1, 2), False)


def convnext(x: Any, w: Weights) -> Any:
    """A block with global response normalisation (version 2), and the downsampling after it."""
    x = _patches(x, w)
    x = op.add(
        op.multiply(op.mvn(x, ints(1), True, 1e-6, "inside_sqrt"), w(1, WIDTH, 1, 1)), w(1, WIDTH, 1, 1)
    )
    y = op.group_convolution(x, w(WIDTH, 1, 1, 7, 7), [1, 1], [3, 3], [3, 3], [1, 1])
    y = op.transpose(op.add(y, w(1, WIDTH, 1, 1)), ints(0, 2, 3, 1))
    y = op.gelu(_dense(_normalised(y, w), w, WIDTH, 24), "erf")
    norm = op.reduce_l2(y, ints(1, 2), True)
    norm = op.divide(norm, op.add(op.reduce_mean(norm, ints(-1), True), op.constant(np.float32(1e-6))))
    y = op.add(op.add(op.multiply(op.multiply(y, norm), w(1, 1, 1, 24)), w(1, 1, 1, 24)), y)
    y = op.multiply(_dense(y, w, 24, WIDTH), w(WIDTH))
    x = op.add(x, op.transpose(y, ints(0, 3, 1, 2)))
    x = op.convolution(x, w(16, WIDTH, 2, 2), [2, 2], [0, 0], [0, 0], [1, 1])
    return _normalised(op.reduce_mean(x, ints(2, 3), False), w, 16)


BLOCKS: dict[str, Callable[..., Any]] = {
    "vit": vit,
    "vit, unfused": lambda x, w: vit(x, w, fused=False),
    "swin": swin,
    "convnext": convnext,
}


def _images() -> Array:
    return rng().integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8)


def _gap(found: Any, expected: Array) -> float:
    found = np.asarray(found)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", BLOCKS)
def test_as_a_layer(name: str) -> None:
    """For one picture and for three different ones; before and after the weights have changed."""
    graph, images = _picture(BLOCKS[name]), _images()
    layer, expected = GraphLayer(graph), run_graph(graph, images)
    assert _gap(layer(images), expected) < RTOL
    assert _gap(layer(images[:1]), expected[:1]) < RTOL
    for weight in layer.trainable_variables:
        weight.assign(weight + 0.1 * rng().standard_normal(weight.shape).astype(np.float32))
    changed = run_graph(patch(graph, layer), images)
    assert _gap(layer(images), changed) < 5 * RTOL
    assert _gap(changed, expected) > 0.01


@pytest.mark.parametrize("name", BLOCKS)
def test_gradients(name: str) -> None:
    layer = GraphLayer(_picture(BLOCKS[name]), dtype="float64")
    assert slope(layer, _images().astype(np.float64), rng()) < 1e-5


@pytest.mark.parametrize("name", BLOCKS)
def test_mixed_precision(name: str) -> None:
    graph, images = _picture(BLOCKS[name]), _images()
    found = GraphLayer(graph, dtype="mixed_bfloat16")(images)
    assert found.dtype == "bfloat16"
    assert _gap(keras.ops.cast(found, "float32"), run_graph(graph, images)) < 0.05


@pytest.mark.parametrize("batch", ["one", "free"])
@pytest.mark.parametrize("name", BLOCKS)
def test_as_onnx(name: str, batch: str) -> None:
    """For one picture, without a trace of the sizes that were computed; and for any number."""
    import onnx
    import onnxruntime

    graph, images = _picture(BLOCKS[name]), _images()
    model = convert(graph if batch == "one" else _for_any_number(graph))
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[0] == {"one": 1, "free": "N"}[batch]
    batches = [images] if batch == "free" else [image[None] for image in images]
    found = np.concatenate([session.run(["features"], {"image": some})[0] for some in batches])
    assert _gap(found, run_graph(graph, images)) < RTOL
    if batch == "one":
        assert not {node.op_type for node in model.graph.node} & {"Shape", "Range", "Expand"}


@pytest.mark.parametrize("name", BLOCKS)
def test_as_a_keras_model(name: str) -> None:
    graph, images = _picture(BLOCKS[name]), _images()
    model = build(graph, SimpleNamespace(size_px=(SIDE, SIDE)))  # type: ignore[arg-type]
    assert _gap(model.predict_on_batch(images)["features"], run_graph(graph, images)) < RTOL


def test_weights_of_a_vit() -> None:
    """The class token, and as many positions as the graph needs."""
    plan = read(_picture(vit))
    assert not {step.kind for step in plan.steps} & {"ShapeOf", "Range", "Broadcast"}
    weights = [some for some in plan.constants.values() if some.trainable]
    assert [some.value.shape for some in weights if some.used_by == "Concat"] == [(1, 1, WIDTH)]
    assert sum(some.value.size for some in weights if 17 in some.value.shape) == 17 * WIDTH


def test_a_mask_of_windows_is_no_weight() -> None:
    plan = read(_picture(swin))
    masks = [some for some in plan.constants.values() if some.value.size and some.value.min() <= -100]
    assert len(masks) == 1
    assert not masks[0].trainable
    assert (1, 2, 4, 4) in {some.value.shape for some in plan.constants.values() if some.trainable}
