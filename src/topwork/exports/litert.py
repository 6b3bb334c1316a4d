"""LiteRT (TensorFlow Lite): one file with a zip of metadata appended, as for TFLite's associated files."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.backbones.conversion.tracing import keras_plainly
from topwork.exports.contents import KEY, Contents
from topwork.exports.tensorflow_graph import Resize, make_call

if TYPE_CHECKING:
    import openvino as ov

LABELS = "labels.txt"

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
    """Write the new file `path`.

    The input is `image` uint8 (1, S, S, 3); with `resize`, (1, H, W, 3), and the caller sets its size before each
    picture. Only LiteRT's own operators are used, none of TensorFlow's. "fp16" stores weights in 16 bits. The file
    can be opened as a zip with `labels.txt` and `topwork.json`.
    """
    with keras_plainly("writing a LiteRT file"):
        import tensorflow as tf

        layer, call, shape = make_call(graph, contents, resize)
        module = tf.Module()
        module.weights = [variable.value for variable in layer.variables]
        shape = [1, *shape[1:]]
        module.call = tf.function(
            call, autograph=False, input_signature=[tf.TensorSpec(shape, tf.uint8, name="image")]
        )
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [module.call.get_concrete_function()], module
        )
        if precision != "f32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "fp16":
            converter.target_spec.supported_types = [tf.float16]
        path.write_bytes(converter.convert())
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(LABELS, "\n".join(contents.classes))
        file.writestr(f"{KEY}.json", contents.to_json())


def load(path: Path) -> Callable[[Array], dict[str, Array]]:
    """Load the file in LiteRT's interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    (entry,) = interpreter.get_input_details()
    runner_of = interpreter.get_signature_list()
    names = _names(interpreter)
    interpreter.allocate_tensors()
    assert runner_of is not None

    def run(image: Array) -> dict[str, Array]:
        if tuple(interpreter.get_input_details()[0]["shape"]) != image.shape:
            interpreter.resize_tensor_input(entry["index"], image.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(entry["index"], image)
        interpreter.invoke()
        return {name: interpreter.get_tensor(index).copy() for name, index in names.items()}

    return run


def _names(interpreter: Any) -> dict[str, int]:
    """The index of each output. With two outputs, the one with a single column is the novelty."""
    found = interpreter.get_output_details()
    if len(found) == 1:
        return {"probabilities": found[0]["index"]}
    return {"novelty" if d["shape"][-1] == 1 else "probabilities": d["index"] for d in found}
