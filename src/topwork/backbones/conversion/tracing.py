"""From a TensorFlow function to an OpenVINO graph: traced at one size, read, checked against it, written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.backbones.conversion.kept import GRAPH
from topwork.errors import InputError, MissingExtra, TopworkError

if TYPE_CHECKING:
    import openvino as ov

AGREEMENT = 1e-3  # relative L2 of the features, at most
_OUTPUTS = ("features", "feature_vector", "default")  # of several, the one that gives the features


@contextmanager
def keras_plainly(feature: str, extra: str = "tfhub") -> Iterator[Any]:
    """Keras 3 on TensorFlow, channels last, in float32, whatever the program around it chose; then as it was.

    Raises:
        MissingExtra: TensorFlow or Keras is not installed.
        InputError: Keras runs on another backend, whose models TensorFlow can't trace.
    """
    try:
        import keras
        import tensorflow  # noqa: F401
    except ImportError as error:
        if error.name not in ("keras", "tensorflow"):
            raise
        raise MissingExtra(feature, extra) from None
    if (backend := keras.backend.backend()) != "tensorflow":
        raise InputError(
            f"{feature} needs Keras on TensorFlow; it runs on {backend}: set KERAS_BACKEND=tensorflow before "
            "Python starts"
        )
    layout, policy = keras.config.image_data_format(), keras.config.dtype_policy()
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")
    try:
        yield keras
    finally:
        keras.config.set_image_data_format(layout)
        keras.config.set_dtype_policy(policy)


def write_graph(network: Callable[[Any], Any], folder: Path, *, size_px: int, name: str) -> tuple[Path, int]:
    """Trace a network and write its OpenVINO graph to `folder/graph.xml` and `.bin`; the path and the width.

    `network` is given a TensorFlow tensor, float32 (1, S, S, 3), and gives (1, D), or activations (1, H, W, D),
    which are averaged over their pixels; or a dictionary with one of either. The graph has one input, `image`,
    float32 (1, S, S, 3), and one output, `features`, float32 (1, D). Its weights are constants, in float32.
    It is run beside the network, on a made-up picture; only a graph that agrees is written.

    Raises:
        InputError: the network can't be run at this size, or gives something else than one feature vector.
        TopworkError: OpenVINO can't read it, or gives other features; or the folder can't be written to.
    """
    import tensorflow as tf

    def features(image: Any) -> dict[str, Any]:
        return {"features": _feature_vector(network(image), name)}

    try:
        traced = tf.function(features, autograph=False).get_concrete_function(
            tf.TensorSpec((1, size_px, size_px, 3), tf.float32, name="image")
        )
    except TopworkError:
        raise
    except Exception as error:  # whatever the module's own code or the framework's raises
        raise InputError(f"{name}: it can't be run at {size_px} px; {first_line(error)}") from error
    with _aside(folder) as aside:
        graph = _read(traced, name, aside / "saved_model")
        _compare(traced, graph, size_px, name)
        _write(graph, aside, folder)
        return folder / GRAPH, int(graph.output(0).shape[1])


def _feature_vector(output: Any, name: str) -> Any:
    import tensorflow as tf

    if isinstance(output, dict):
        keys = list(output)
        key = next((key for key in _OUTPUTS if key in output), keys[0] if len(keys) == 1 else None)
        if key is None:
            raise InputError(f"{name}: expected one output; it has {', '.join(map(str, keys))}")
        output = output[key]
    if isinstance(output, list | tuple) and len(output) == 1:
        output = output[0]
    shape: Any = getattr(output, "shape", None)
    if not tf.is_tensor(output) or shape.rank not in (2, 4) or shape[-1] is None:
        given = shape if shape is not None else f"a {type(output).__name__}"
        raise InputError(
            f"{name}: expected features (1, D), or activations (1, height, width, D); it gives {given}"
        )
    output = tf.cast(output, tf.float32)
    output = tf.reduce_mean(output, (1, 2)) if shape.rank == 4 else output
    return tf.ensure_shape(output, (1, shape[-1]))


def _read(traced: Any, name: str, folder: Path) -> ov.Model:
    """By way of a SavedModel on disk, and no `openvino.convert_model`: given a function, that looks each of its
    variables up among all; and it reports its use to OpenVINO's makers."""
    import openvino as ov
    import tensorflow as tf
    from openvino._offline_transformations import apply_moc_transformations

    holder = tf.Module()
    holder.kept = list(traced.variables)  # a SavedModel holds what its root does
    try:
        tf.saved_model.save(holder, str(folder), signatures=traced)
        graph = ov.Core().read_model(folder)
        apply_moc_transformations(graph, False)  # folds what is constant, as `convert_model` would
    except Exception as error:  # OpenVINO's errors have no base of their own
        raise TopworkError(
            f"{name}: OpenVINO can't read it; {first_line(error)}. Another published form of it (ONNX, TFLite) "
            "may do"
        ) from error
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or graph.get_variables():
        raise TopworkError(
            f"{name}: expected a graph that gives features from an image alone; it has {len(graph.inputs)} "
            f"inputs, {len(graph.outputs)} outputs and {len(graph.get_variables())} variables"
        )
    graph.input(0).set_names({"image"})
    graph.output(0).set_names({"features"})
    return graph


def _compare(traced: Any, graph: ov.Model, size_px: int, name: str) -> None:
    """Run both on one picture. What rounding does to the network is allowed for: an untrained one may be so
    sensitive that TensorFlow doesn't agree with itself, run op by op and as a graph."""
    import openvino as ov
    import tensorflow as tf

    def wanted(image: Any) -> Any:
        return traced(tf.constant(image))["features"].numpy()

    random = np.random.default_rng(0)
    patches = np.kron(random.random((1, 8, 8, 3)), np.ones((1, size_px // 8 + 1, size_px // 8 + 1, 1)))
    grain = random.random((1, size_px, size_px, 3))
    image = (0.7 * patches[:, :size_px, :size_px] + 0.3 * grain).astype(np.float32)
    first = wanted(image)
    if not np.isfinite(first).all():
        raise TopworkError(f"{name}: its features are not numbers (NaN or infinite)")
    if _distance(wanted(image), first) > AGREEMENT:
        raise TopworkError(
            f"{name}: it gives other features each time it is run: expected none that are random"
        )
    shaken = image * (1 + 1e-6 * random.standard_normal(image.shape)).astype(np.float32)
    allowed = max(AGREEMENT, 10 * _distance(wanted(shaken), first))
    found = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image)[0]
    off = _distance(found, first)
    if not off <= allowed:
        raise TopworkError(
            f"{name}: the converted graph gives other features than TensorFlow: they differ by {off:.1e} of their "
            f"length, and {allowed:.0e} is allowed. Nothing was kept"
        )


def _distance(features: Any, wanted: Any) -> float:
    """Relative L2."""
    return float(np.linalg.norm(features - wanted) / (np.linalg.norm(wanted) or 1.0))


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A folder in `folder` for what is half done; gone afterwards. `OSError` becomes a message."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=folder, prefix=".converting-", ignore_cleanup_errors=True
        ) as aside:
            yield Path(aside)
    except OSError as error:
        raise TopworkError(f"can't write the converted graph to {folder}: {first_line(error)}") from error


def _write(graph: ov.Model, aside: Path, folder: Path) -> None:
    """The weights first: where `graph.xml` is, all is."""
    import openvino as ov

    path = aside / GRAPH
    try:
        ov.save_model(graph, path, compress_to_fp16=False)
    except RuntimeError as error:  # so where the disk is full
        raise OSError(str(error)) from error
    path.with_suffix(".bin").replace(folder / "graph.bin")
    path.replace(folder / GRAPH)


def first_line(error: Exception) -> str:
    """The error's kind and the beginning of its text: a framework's may be pages long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
