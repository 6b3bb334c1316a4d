"""Publish a backbone as others read it: a reusable TensorFlow 2 SavedModel, as TensorFlow Hub's modules are.

The interface: https://www.tensorflow.org/hub/reusable_saved_models, and of images
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

AGREEMENT = 1e-4  # relative L2 of the features, at most
SIGNATURE = "serving_default"
FEATURES = "features"


def publish_backbone(graph: ov.Model, out: str | Path, *, size_px: int) -> Path:
    """Write a backbone's graph to the new folder `out`, as a module that `tensorflow_hub` loads, freezes or tunes.

    The module is called with `images` float32 (N, S, S, 3), RGB in [0, 1], any N, and optionally `training`; it gives
    float32 (N, D), the graph's features of 255 times the images, with no rounding. Its weights are in
    `trainable_variables`, and in `variables`; `regularization_losses` is empty. Batch norm stands folded in the
    weights, so `training` makes no difference. The signature `serving_default` takes `images` and gives
    `features`; OpenVINO reads it with no framework, and it is read back and compared before the folder is there.

    Args:
        graph: one input, uint8 (1, S, S, 3) RGB in [0, 255]; an output named `features`.
        out: a folder that does not exist, or an empty one.
        size_px: S.

    Raises:
        InputError: `out` is taken, the graph takes or gives something else, or Keras runs on another backend.
        MissingExtra: TensorFlow or Keras is not installed.
        TopworkError: an operator that can't be trained, or OpenVINO reads back something else.
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
                out.rmdir()  # refuses if it has been filled meanwhile
            part.rename(out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return out


def _check_free(out: Path) -> None:
    found = "files in it" if out.is_dir() and any(out.iterdir()) else "a file"
    if out.exists() and (found != "a file" or not out.is_dir()):
        raise InputError(f"{out}: expected a folder that is new or empty, found {found}; name another")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: its folder can't be made ({error.strerror}); name another") from error


def _check_graph(graph: ov.Model, size_px: int) -> None:
    wanted = f"uint8 (1, {size_px}, {size_px}, 3)"
    shapes = [f"{entry.element_type.to_string()} {entry.partial_shape}" for entry in graph.inputs]
    if shapes != [f"u8 [1,{size_px},{size_px},3]"]:
        raise InputError(f"expected a backbone's graph, whose one input is {wanted}; got {', '.join(shapes)}")
    names = sorted(name for output in graph.outputs for name in output.names)
    if FEATURES not in names:
        raise InputError(
            f"expected a backbone's graph, with an output {FEATURES!r}; its outputs: {', '.join(names)}"
        )


def _save(layer: Any, folder: Path, size_px: int) -> None:
    """The restored object has what the interface asks for: the call in both modes, and its variables."""
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
    """On a picture of noise, by OpenVINO: the graph, and what was written.

    What rounding does to the network is allowed for: an untrained one may take the last bit of its input far.
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
    """Which permissions a new folder doesn't get here: a temporary one has only its owner's."""
    probe = folder / "permissions"
    probe.mkdir()
    mode = probe.stat().st_mode & 0o777
    probe.rmdir()
    return 0o777 & ~mode
