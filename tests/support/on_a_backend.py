"""A program for `test_trainable_backends.py`, run with KERAS_BACKEND set: is a graph's layer right on that backend?

Takes paths of graphs with one output; prints a line of JSON for each: `backend`; `gap`: of the layer's numbers from
OpenVINO's, as a part of the largest; `slope`: of a central difference in float64 from the gradient, relative;
`patched`: of the layer's numbers, its weights moved, from those of the patched graph;
`moved`: how far that moved them.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import keras
import numpy as np
import openvino as ov

from exact import in_f32
from topwork.graphs.trainable.layer import GraphLayer, patch

Array = np.ndarray[Any, Any]
numbers = keras.ops.convert_to_numpy


def main(path: str) -> None:
    graph = ov.Core().read_model(path)
    random = np.random.default_rng(3)
    images = random.random((3, *graph.inputs[0].shape[1:]), np.float32)
    layer = GraphLayer(graph)
    wanted = run(graph, images)
    result = {"backend": keras.backend.backend(), "gap": gap(numbers(layer(images)), wanted)}
    result["slope"] = slope(GraphLayer(graph, dtype="float64"), images.astype(np.float64), random)
    for weight in layer.trainable_variables:
        weight.assign(weight + 0.1 * random.standard_normal(weight.shape).astype(np.float32))
    patched = run(patch(graph, layer), images)
    print(
        json.dumps({**result, "patched": gap(numbers(layer(images)), patched), "moved": gap(patched, wanted)})
    )


def run(graph: ov.Model, images: Array) -> Array:
    compiled = in_f32(graph)
    return np.concatenate([np.array(compiled([image[None]])[0]) for image in images])


def gap(found: Array, wanted: Array) -> float:
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def slope(layer: GraphLayer, images: Array, random: np.random.Generator) -> float:
    """Of a random mixture of the features, along its own gradient."""
    mixture = random.standard_normal((len(images), *layer.plan.result_shape[1:]))
    slopes = gradient(layer, images, mixture)
    expected = sum(float(np.sum(s * s)) for s in slopes)
    tried, step = [], 1e-7 / expected
    for side in (step, -2 * step):
        for weight, direction in zip(layer.trainable_variables, slopes, strict=True):
            weight.assign(weight + side * direction)
        tried.append(float(np.sum(numbers(layer(images)) * mixture)))
    return abs((tried[0] - tried[1]) / (2 * step) - expected) / expected


def gradient(layer: GraphLayer, images: Array, mixture: Array) -> list[Array]:
    def loss(features: Any) -> Any:
        return keras.ops.sum(features * keras.ops.convert_to_tensor(mixture, dtype="float64"))

    weights = [weight.value for weight in layer.trainable_variables]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            total = loss(layer(images))
        return [numbers(s) for s in tape.gradient(total, weights)]
    if keras.backend.backend() == "jax":
        import jax

        return [numbers(s) for s in jax.grad(lambda v: loss(layer.stateless_call(v, [], images)[0]))(weights)]
    loss(layer(images)).backward()
    return [numbers(weight.grad) for weight in weights]


if __name__ == "__main__":
    for path in sys.argv[1:]:
        main(path)
