"""A classifier as one graph: attaching head and novelty to the backbone, and removing them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.graphs.features import source_of, with_output

if TYPE_CHECKING:
    import openvino as ov

    from topwork.classifiers.novelty import Novelty
    from topwork.heads.head import Head


def attach(
    graph: ov.Model,
    head: Head,
    columns: np.ndarray[Any, Any],
    *,
    novelty: tuple[Novelty, np.ndarray[Any, Any]] | None = None,
) -> ov.Model:
    """The complete classifier as one graph with outputs `probabilities` (1, K), `features` (1, D), `novelty` (1, 1).

    `columns`: the features that the head uses, int64 (D_head,). `novelty`: the rule for "none of these" and the
    features that it uses.
    """
    import openvino as ov
    from openvino import opset13 as op

    graph = graph.clone()
    x = features = source_of(graph, "features")
    if not np.array_equal(columns, np.arange(features.shape[1])):
        x = op.gather(x, op.constant(columns), op.constant(np.int64(1))).output(0)
    for i, layer in enumerate(head.layers):
        if i and head.landmarks is not None:
            x = _likeness(x, head.landmarks)
        elif i:
            x = op.relu(x).output(0)
        product = op.matmul(x, op.constant(layer.weight), False, False)
        x = op.add(product, op.constant(layer.bias[None])).output(0)
    probabilities = op.softmax(op.divide(x, op.constant(np.float32(head.temperature))), 1)
    probabilities.output(0).set_names({"probabilities"})
    outputs = [probabilities.output(0), features]
    if novelty is not None:
        outputs.append(_novelty(features, *novelty))
    return ov.Model(outputs, graph.get_parameters())


def _novelty(features: Any, rule: Novelty, columns: np.ndarray[Any, Any]) -> Any:
    """`Novelty.score`, (1, 1)."""
    import openvino as ov
    from openvino import opset13 as op

    def constant(value: Any) -> Any:
        return op.constant(np.asarray(value, np.float32))

    def square_sum(x: Any) -> Any:
        return op.reduce_sum(op.multiply(x, x), op.constant(np.array([1])), True)

    x = op.gather(features, op.constant(columns), op.constant(np.int64(1)))
    rooted = op.multiply(op.sign(x), op.sqrt(op.abs(x)))
    length = op.maximum(op.sqrt(square_sum(rooted)), constant(1e-12))
    centred = op.subtract(op.divide(rooted, length), constant(rule.mean[None]))
    inside = op.matmul(centred, constant(rule.axes), False, False)
    z = op.matmul(inside, constant(rule.whiten), False, False)
    products = op.matmul(z, constant(rule.centres), False, True)
    own = constant((rule.centres**2).sum(axis=1)[None])
    squares = op.add(op.subtract(square_sum(z), op.multiply(products, constant(2.0))), own)
    near = op.maximum(op.reduce_min(squares, op.constant(np.array([1])), True), constant(0.0))
    rest = op.maximum(op.subtract(square_sum(centred), square_sum(inside)), constant(0.0))
    scaled = op.multiply(rest, constant(rule.axes.shape[1] / rule.outside))
    score = op.divide(op.add(near, scaled), constant(rule.threshold))
    assert score.get_element_type() == ov.Type.f32
    score.output(0).set_names({"novelty"})
    return score.output(0)


def _likeness(y: Any, landmarks: np.ndarray[Any, Any]) -> Any:
    """exp(−‖y − ℓ‖²) to each landmark, as in `heads.head.likeness`."""
    from openvino import opset13 as op

    products = op.matmul(y, op.constant(2 * landmarks), False, True)
    own = op.reduce_sum(op.multiply(y, y), op.constant(np.array([1])), True)
    theirs = op.constant(np.einsum("ij,ij->i", landmarks, landmarks)[None])
    exponent = op.subtract(op.subtract(products, own), theirs)
    return op.exp(op.minimum(exponent, op.constant(np.float32(0)))).output(0)


def without_head(graph: ov.Model) -> ov.Model:
    """The backbone of a graph made by `attach`: `image` to `features`."""
    import openvino as ov

    graph = graph.clone()
    return with_output(ov.Model([source_of(graph, "features")], graph.get_parameters()), "features")
