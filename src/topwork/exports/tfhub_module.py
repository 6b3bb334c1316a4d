"""Publish a backbone as a reusable TensorFlow 2 SavedModel, like the modules of TensorFlow Hub.

The interface is defined in https://www.tensorflow.org/hub/reusable_saved_models and
https://www.tensorflow.org/hub/common_signatures/images.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.errors import InputError, TopworkError

if TYPE_CHECKING:
    import openvino as ov

AGREEMENT = 1e-4  # largest relative L2 difference of the features
SIGNATURE = "serving_default"
FEATURES = "features"


def publish_backbone(graph: ov.Model, out: str | Path, *, size_px: int) -> Path:
    """Write a backbone's graph to the new folder `out`, as a module for `tensorflow_hub`, frozen or trainable.

    The module takes `images` float32 (N, S, S, 3), RGB in [0, 1], with any N, and optionally `training`. It returns
    float32 (N, D), the graph's features of 255 times the images, without rounding. Its weights are in
    `trainable_variables` and `variables`; `regularization_losses` is empty. Batch norm is folded into the weights, so
    `training` has no effect. The signature `serving_default` maps `images` to `features`. OpenVINO can read it
    without a framework; the module is read back and compared before `out` is created.

    Args:
        graph: a graph with one input, uint8 (1, S, S, 3) RGB in [0, 255], and an output named `features`.
        out: a new or empty folder.
        size_px: S.

    Raises:
        InputError: `out` is not empty, the graph has other inputs or outputs, or Keras uses another backend.
        MissingExtra: TensorFlow or Keras is not installed.
        TopworkError: the graph has an operator that can't be trained, or the module differs when OpenVINO reads it.
    """
    from topwork.backbones.conversion.tracing import keras_plainly

    out = Path(out)
    _check_graph(graph, size_px)
    _check_free(out)
    with keras_plainly("publishing a module"):
        from topwork.graphs.trainable.layer import GraphLayer

        layer = GraphLayer(graph, output=FEATURES, dtype="float32")
        part = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-", suffix=".part"))
        try:
            _save(layer, part, size_px)
            _compare(graph, part, size_px)
            part.chmod(0o777 & ~_umask(part))
            if out.is_dir():
                out.rmdir()  # fails if files have been added meanwhile
            part.rename(out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return out


def _check_free(out: Path) -> None:
    found = "files in it" if out.is_dir() and any(out.iterdir()) else "a file"
    if out.exists() and (found != "a file" or not out.is_dir()):
        raise InputError(f"{out}: expected a new or empty folder, found {found}; choose another")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: its folder can't be created ({error.strerror}); choose another") from error


def _check_graph(graph: ov.Model, size_px: int) -> None:
    wanted = f"uint8 (1, {size_px}, {size_px}, 3)"
    shapes = [f"{entry.element_type.to_string()} {entry.partial_shape}" for entry in graph.inputs]
    if shapes != [f"u8 [1,{size_px},{size_px},3]"]:
        raise InputError(f"expected a backbone's graph, with one input {wanted}; got {', '.join(shapes)}")
    names = sorted(name for output in graph.outputs for name in output.names)
    if FEATURES not in names:
        raise InputError(
            f"expected a backbone's graph, with an output {FEATURES!r}; its outputs are {', '.join(names)}"
        )


def _save(layer: Any, folder: Path, size_px: int) -> None:
    """Save an object with the attributes that the interface requires: the call in both modes, and its variables."""
    import tensorflow as tf

    images = tf.TensorSpec((None, size_px, size_px, 3), tf.float32, name="images")

    def call(images: Any, training: bool = False) -> Any:
        return layer(255.0 * images)

    def serve(images: Any) -> dict[str, Any]:
        return {FEATURES: layer(255.0 * images)}

    traced = tf.function(call, autograph=False)
    for training in (False, True):
        traced.get_concrete_function(images, training=training)
    module = tf.train.Checkpoint()
    module.__call__ = traced
    module.variables = [variable.value for variable in layer.variables]
    module.trainable_variables = [variable.value for variable in layer.trainable_variables]
    module.regularization_losses = []
    signature = tf.function(serve, autograph=False, input_signature=[images])
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: signature})


def _compare(graph: ov.Model, folder: Path, size_px: int) -> None:
    """Compare the graph and the written module in OpenVINO, on a picture of noise.

    The tolerance takes the network's sensitivity to rounding into account, which can be large if it is untrained.
    """
    import openvino as ov

    core, exact = ov.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (1, size_px, size_px, 3), np.uint8)
    unit = np.float32(image) / np.float32(255)
    shaken = unit * (1 + 1e-6 * random.standard_normal(unit.shape)).astype(np.float32)
    wanted = core.compile_model(graph, "CPU", exact)(image)[FEATURES]
    try:
        written = core.compile_model(core.read_model(folder), "CPU", exact)
        found, beside = (written([pixels])[0].copy() for pixels in (unit, shaken))
    except RuntimeError as error:
        raise TopworkError(f"OpenVINO can't read the published module back: {error}") from error
    length = np.linalg.norm(wanted)
    gap, shake = (float(np.linalg.norm(found - other) / length) for other in (wanted, beside))
    allowed = max(AGREEMENT, 10 * shake)
    if not gap <= allowed:
        raise TopworkError(
            f"the published module's features differ from the backbone's by {gap:.1e} (relative L2; {allowed:.0e} "
            "is allowed): it was not written"
        )


def _umask(folder: Path) -> int:
    """The umask of new folders here; a temporary folder is only accessible to its owner."""
    probe = folder / "permissions"
    probe.mkdir()
    mode = probe.stat().st_mode & 0o777
    probe.rmdir()
    return 0o777 & ~mode
