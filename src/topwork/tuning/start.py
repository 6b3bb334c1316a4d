"""The head that a tuning begins with: solved on the very features that its tail gives before it learns."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.engine import compile_model, core_count, stream
from topwork.heads.head import Layer
from topwork.heads.linear import fit_linear, fold_affine, moments
from topwork.tuning.learner import Start
from topwork.tuning.loop import Lesson

if TYPE_CHECKING:
    import openvino as ov

Array = np.ndarray[Any, Any]
BOTH = 5000  # images, up to which the head sees each as it is and changed
FOLDS = 5


def solve_start(tail: ov.Model, lesson: Lesson, columns: Array, *, seed: int) -> Start:
    """A linear head on features of the tail, of changed pictures as the network will see them.

    Where a network learns from turned pictures, a head that never saw one would begin far off.
    """
    random = np.random.default_rng([seed, 0x5747])
    changed = _features(tail, lesson, random)[:, columns]
    parts = [changed]
    if len(lesson.learn) <= BOTH:
        parts = [_features(tail, lesson, None)[:, columns], changed]
    x = np.concatenate(parts)
    count = len(parts)
    targets = np.tile(lesson.targets[lesson.learn], count)
    weights = np.tile(lesson.weights[lesson.learn], count).astype(np.float64)
    folds = np.tile(random.permutation(len(lesson.learn)) % min(FOLDS, len(lesson.learn)), count)
    mean, deviation = moments(x, weights)
    fit = fit_linear(x, targets, class_count=lesson.class_count, weights=weights, folds=folds)
    layer = fit.head.layers[0]
    known = np.isfinite(deviation)
    scale = np.where(known, deviation, 1.0).astype(np.float32)
    # The head's own sharpness: logits by their temperature are what the loss should see.
    weight = layer.weight * scale[:, None] / fit.head.temperature
    bias = (layer.bias + mean @ layer.weight) / fit.head.temperature
    return Start(columns, mean.astype(np.float32), scale, weight.astype(np.float32), bias.astype(np.float32))


def head_layer(start: Start, kernel: Array, bias: Array) -> Layer:
    """A learnt head as one affine step on features as they are."""
    return fold_affine(kernel, bias, start.mean, start.deviation)


def _features(tail: ov.Model, lesson: Lesson, random: np.random.Generator | None) -> Array:
    """Of the images to learn from, float32 (N, D), by the engine."""
    threads = core_count()
    compiled = compile_model(tail, "f32", threads=threads)
    local = threading.local()
    picture = tail.inputs[0].get_element_type().to_dtype()

    def run(inputs: list[Array]) -> Array:
        request = getattr(local, "request", None)
        if request is None:
            request = local.request = compiled.create_infer_request()
        late = request.infer([inputs[0].astype(picture)])[0][0]
        return np.concatenate([*(early[0] for early in inputs[1:]), late]).astype(np.float32)

    def each() -> Any:
        for row in lesson.learn:
            one = np.array([row])
            yield lesson.source.plain(one) if random is None else lesson.source.changed(one, 0, random)

    with closing(stream(run, each(), workers=threads)) as results:
        return np.stack(list(results))
