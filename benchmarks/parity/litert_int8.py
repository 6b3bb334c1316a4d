"""Why `topwork export --format litert` holds no 8-bit numbers: what TensorFlow's converter makes of a run.

    python -m benchmarks.parity.litert_int8 RUN [--images 200] [--seed 0]

RUN was trained on the ELPV cells (`export_parity` leaves one in its folder). Three files in 8 bits by
the converter's own way, which calibrates on training cells: the whole run; the whole run, its weights alone in 8
bits; the trunk, whose features the run's own head then takes. Each is compared with the run on cells of the test
part.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from benchmarks.options import shared_options
from topwork.backbones.conversion.tracing import keras_plainly
from topwork.classifiers.classifier import Classifier
from topwork.cli.demo import load_cells, split_cells
from topwork.data.dataset import Dataset, Example
from topwork.evaluation.significance import mcnemar
from topwork.images.decode import decode
from topwork.jobs.export import whole_graph

CALIBRATING = 100
Array = np.ndarray[Any, Any]


def main() -> None:
    parser = shared_options(__doc__, images=200, seed=0)
    parser.add_argument("run", type=Path, help="folder of a run trained on the ELPV cells")
    options = parser.parse_args()
    classifier = Classifier.load(options.run)
    cells = split_cells(*load_cells(), seed=options.seed)
    test, learnt = (
        drawn(cells, part, n, options.seed) for part, n in (("test", options.images), ("train", CALIBRATING))
    )
    size_px, fit = classifier.backbone.facts.size_px, classifier.backbone.facts.fit
    pictures, calibrating = (
        [decode(e.image.read(), size_px, fit=fit)[None] for e in p] for p in (test, learnt)
    )
    found = list(classifier.predict(Dataset(tuple(test), classifier.classes, "cells")))
    own = np.stack([p.probabilities for p in found if p.probabilities is not None])
    truth = np.array([classifier.classes.index(e.label) for e in test if e.label is not None])
    columns = classifier.backbone.facts.columns(classifier.blocks)
    whole, trunk = (whole_graph(classifier), "probabilities"), (classifier.backbone.graph, "features")
    for name, (graph, output), given in (
        ("the whole run", whole, calibrating),
        ("the whole run, weights alone", whole, None),
        ("the trunk, and the run's own head", trunk, calibrating),
    ):
        answer = converted(graph, output, given)
        answers = np.concatenate([answer(picture) for picture in pictures])
        if output == "features":
            answers = classifier.probabilities(np.ascontiguousarray(answers[:, columns]))
        change = mcnemar(answers.argmax(axis=1) == truth, own.argmax(axis=1) == truth)
        row = {
            "8 bits": name,
            "images": len(own),
            "same_class": int((answers.argmax(1) == own.argmax(1)).sum()),
        }
        print(json.dumps(row | {"change": change.difference, "interval": list(change.interval)}), flush=True)


def drawn(cells: Dataset, part: str, count: int, seed: int) -> list[Example]:
    examples = [example for example in cells if example.split == part]
    return [examples[i] for i in np.sort(np.random.default_rng(seed).permutation(len(examples))[:count])]


def converted(graph: ov.Model, output: str, calibrating: list[Array] | None) -> Callable[[Array], Array]:
    """One output of a graph in LiteRT's interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    with keras_plainly("converting"):
        import tensorflow as tf

        from topwork.graphs.trainable.layer import GraphLayer

        layer = GraphLayer(graph, output=output, dtype="float32")
        module = tf.Module()
        module.weights = [variable.value for variable in layer.variables]
        given = [tf.TensorSpec(list(graph.inputs[0].shape), tf.uint8, name="image")]
        module.call = tf.function(
            lambda image: {output: layer(image)}, autograph=False, input_signature=given
        )
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [module.call.get_concrete_function()], module
        )
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if calibrating is not None:
            converter.representative_dataset = lambda: ([picture] for picture in calibrating)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "8.tflite"
            path.write_bytes(converter.convert())
            runner = Interpreter(str(path)).get_signature_runner()
    return lambda picture: np.asarray(runner(image=picture)[output]).copy()


if __name__ == "__main__":
    main()
