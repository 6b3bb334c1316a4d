"""TensorFlow's SavedModel for TF Serving, with the signatures `serving_default` and `describe` (the metadata)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.backbones.conversion.tracing import keras_plainly
from topwork.exports.contents import Contents
from topwork.exports.tensorflow_graph import Resize, make_call

if TYPE_CHECKING:
    import openvino as ov

Array = np.ndarray[Any, np.dtype[Any]]


def write(
    graph: ov.Model,
    contents: Contents,
    path: Path,
    *,
    precision: str,
    pictures: Array,
    resize: Resize | None = None,
) -> None:
    """Write the new folder `path`.

    The input is `image` uint8 (N, S, S, 3) with any N; with `resize`, (1, H, W, 3) of any size. The outputs are the
    graph's. The signature `describe` has no inputs and returns `topwork`, the metadata as JSON, and `classes`, the
    class names in the order of `probabilities`.
    """
    with keras_plainly("writing a SavedModel"):
        import tensorflow as tf

        layer, call, shape = make_call(graph, contents, resize)
        module = tf.Module()
        module.weights = [variable.value for variable in layer.variables]

        def describe() -> dict[str, Any]:
            return {"topwork": tf.constant(contents.to_json()), "classes": tf.constant(contents.classes)}

        given = [tf.TensorSpec(shape, tf.uint8, name="image")]
        tf.saved_model.save(
            module,
            str(path),
            signatures={
                "serving_default": tf.function(call, autograph=False, input_signature=given),
                "describe": tf.function(describe, autograph=False, input_signature=[]),
            },
        )


def load(path: Path) -> Callable[[Array], dict[str, Array]]:
    """Load the folder in TensorFlow, and call its signature like TF Serving."""
    import tensorflow as tf

    module = tf.saved_model.load(str(path))
    signature = module.signatures["serving_default"]

    def run(image: Array) -> dict[str, Array]:
        # This reference keeps the module's variables alive.
        assert module is not None
        return {name: value.numpy() for name, value in signature(image=tf.constant(image)).items()}

    return run
