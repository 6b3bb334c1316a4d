"""Modules that OpenVINO can't read by itself, converted once through TensorFlow or Keras.

Each function writes an OpenVINO graph to a folder that it is given; `kept.converted` keeps it.
"""

from __future__ import annotations

import inspect
import math
import warnings
import zipfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from topwork.backbones.conversion.applications import APPLICATIONS, prepare
from topwork.backbones.conversion.kept import Converted
from topwork.backbones.conversion.tracing import first_line, keras_plainly, write_graph
from topwork.errors import InputError, MissingExtra, TopworkError, one_of

RAW = "its own preprocessing is unknown: the graph takes whatever range of pixels the model was trained with"
SIGNATURES = ("image_feature_vector", "default", "serving_default", "serve")


def convert_application(
    name: str, folder: str | Path, *, size_px: int | None = None, weights: str | Path | None = "imagenet"
) -> Converted:
    """A network of `keras.applications`, without its classes, its activations averaged over the picture.

    Args:
        name: as Keras has it, e.g. "InceptionV3".
        folder: where the graph is written.
        size_px: the side of its input; None for the size it was trained at.
        weights: "imagenet" (Keras downloads them), a file of weights, or None for random ones.

    Raises:
        InputError: an unknown name, a size too small, or a file of weights that doesn't fit.
        MissingExtra: TensorFlow or Keras is not installed.
        TopworkError: the weights can't be fetched, or the network can't be converted.
    """
    if name not in APPLICATIONS:
        raise InputError(one_of(name, APPLICATIONS, what="Keras application"))
    application = APPLICATIONS[name]
    size_px = application.size_px if size_px is None else size_px
    if size_px < application.smallest_px:
        raise InputError(
            f"{name}: the input size must be {application.smallest_px} px or more; got {size_px}"
        )
    if weights not in (None, "imagenet") and not Path(str(weights)).is_file():
        raise InputError(f"{name}: expected 'imagenet' or a file of weights; {weights} is not there")
    with keras_plainly(f"keras:{name}") as keras, warnings.catch_warnings():
        # MobileNet's warning that ImageNet weights were trained at another size: that is what `size_px` asks for.
        warnings.filterwarnings("ignore", message=".*input_shape", category=UserWarning)
        # One for each part of a file that doesn't fit; an error follows, which is ours to tell.
        warnings.filterwarnings("ignore", message="Skipping nested container", category=UserWarning)
        try:
            network = getattr(keras.applications, name)(
                include_top=False,
                pooling="avg",
                input_shape=(size_px, size_px, 3),  # stated, for Keras pads odd sizes otherwise when it knows
                weights=None if weights is None else str(weights),
            )
        except Exception as error:  # Keras raises a bare Exception where a download fails
            if weights == "imagenet":
                raise TopworkError(
                    f"{name}: its weights can't be fetched from Keras' server; {first_line(error)}. Try again "
                    "when online"
                ) from error
            raise InputError(f"{name}: {weights} is no file of its weights; {first_line(error)}") from error
        graph, width = write_graph(
            lambda image: network(prepare(image, application.pixels), training=False),
            Path(folder),
            size_px=size_px,
            name=f"keras:{name}",
        )
    return Converted(graph, size_px, False, "[0, 1]", width)


def convert_kerashub(preset: str, folder: str | Path, *, size_px: int | None = None) -> Converted:
    """The backbone of a KerasHub preset, with the scale and offset of its image converter inside.

    Its activations are averaged over the picture. Of a vision transformer's tokens, the first is taken (the
    class token), or the mean where they fill a square, for then all are patches.

    Args:
        preset: a name that KerasHub knows, or the path of a saved preset's folder.
        folder: where the graph is written.
        size_px: the side of its input; None for the preset's own.

    Raises:
        InputError: an unknown preset, one that is not of images, or a size that it can't take.
        MissingExtra: KerasHub, TensorFlow or Keras is not installed.
        TopworkError: the preset can't be fetched or converted.
    """
    name = f"kerashub:{preset}"
    with keras_plainly(name, "kerashub") as keras:
        try:
            import keras_hub
        except ImportError as error:
            raise MissingExtra(name, "kerashub") from error
        try:
            backbone = keras_hub.models.Backbone.from_preset(preset)
        except ValueError as error:
            raise InputError(f"{name}: expected a preset that KerasHub knows; {first_line(error)}") from error
        except Exception as error:  # what the hubs' clients raise has no base in common
            raise TopworkError(f"{name}: it can't be fetched or read; {first_line(error)}") from error
        inputs = backbone.inputs
        if len(inputs) != 1:
            raise InputError(f"{name}: expected a network of images; it has {len(inputs)} inputs")
        own, fixed = _sides(inputs[0].shape, name)
        try:
            converter = keras_hub.layers.ImageConverter.from_preset(preset)
        except Exception:
            converter = None  # a backbone may be saved without one
        if not fixed and converter is not None and converter.image_size is not None:
            own, _ = _sides((None, *converter.image_size[:2], 3), name)
        size_px = _size(own, fixed, size_px, name)

        def network(image: Any) -> Any:
            if converter is not None:
                image = image * 255.0
                image = image if converter.scale is None else image * converter.scale
                image = image if converter.offset is None else image + converter.offset
            output = backbone(image, training=False)
            if not isinstance(output, dict) and len(output.shape) == 3:  # (1, tokens, D)
                square = math.isqrt(output.shape[1]) ** 2 == output.shape[1]
                output = keras.ops.mean(output, 1) if square else output[:, 0]
            return output

        graph, width = write_graph(network, Path(folder), size_px=size_px, name=name)
    if converter is None:
        return Converted(graph, size_px, fixed, "unknown", width, (RAW,))
    return Converted(graph, size_px, fixed, "[0, 1]", width)


def convert_keras_file(path: str | Path, folder: str | Path, *, size_px: int | None = None) -> Converted:
    """A model in a `.keras` file, as it is: its preprocessing, unless it is a layer of it, is not known.

    It is loaded in Keras' safe mode: a file may hold Python code, which is not run.

    Args:
        path: the file.
        folder: where the graph is written.
        size_px: the side of its input, where the model leaves it open.

    Raises:
        InputError: no `.keras` file, one that holds code or layers that Keras lacks, or not a model of images.
        MissingExtra: TensorFlow or Keras is not installed.
        TopworkError: OpenVINO can't read it.
    """
    path = Path(path)
    if path.suffix != ".keras" or not path.is_file() or not zipfile.is_zipfile(path):
        raise InputError(
            f"{path}: expected a .keras file (a zip archive, as `model.save` of Keras 3 writes it); "
            + ("it is not one" if path.exists() else "it is not there")
        )
    with keras_plainly(str(path)) as keras:
        try:
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # a damaged file fails in many ways
            raise _unloaded(path, error) from error
        inputs: list[Any] = getattr(model, "inputs", None) or []
        if len(inputs) != 1:
            raise InputError(f"{path}: expected a model with one input, an image; it has {len(inputs)}")
        own, fixed = _sides(inputs[0].shape, str(path))
        size_px = _size(own, fixed, size_px, str(path))
        dtype = inputs[0].dtype
        graph, width = write_graph(
            lambda image: model(keras.ops.cast(image, dtype), training=False),
            Path(folder),
            size_px=size_px,
            name=str(path),
        )
    return Converted(graph, size_px, fixed, "unknown", width, (RAW,))


def convert_saved_model(path: str | Path, folder: str | Path, *, size_px: int | None = None) -> Converted:
    """A SavedModel, by its `__call__` without training; one without it (TF1 Hub's), by its signature.

    **TensorFlow runs the module's operators here, and they can read and write files**: convert only what comes
    from someone you trust. (What is then kept is a graph of OpenVINO's operators, which can't.)

    Args:
        path: the folder with `saved_model.pb`.
        folder: where the graph is written.
        size_px: the side of its input, where the module leaves it open.

    Raises:
        InputError: no SavedModel, one that takes no images, or a size that it can't take.
        MissingExtra: TensorFlow or Keras is not installed.
        TopworkError: OpenVINO can't read it.
    """
    path, name = Path(path), str(path)
    if not (path / "saved_model.pb").is_file():
        raise InputError(f"{path}: expected a SavedModel, a folder with saved_model.pb; there is none")
    with keras_plainly(name):
        module = _load_saved_model(path)
        call, spec = _callable_of(module, name)
        own, fixed = _sides(spec.shape, name)
        size_px = _size(own, fixed, size_px, name)

        def network(image: Any) -> Any:
            import tensorflow as tf

            return call(tf.cast(image, spec.dtype))

        graph, width = write_graph(network, Path(folder), size_px=size_px, name=name)
    notes = ("TensorFlow ran the module's own operators to convert it; they could read and write files",)
    return Converted(graph, size_px, fixed, "[0, 1]", width, notes, runs_code=True)


def _load_saved_model(path: Path) -> Any:
    import tensorflow as tf

    # TF1 Hub's modules carry no tag, and TensorFlow looks for "serve" unless told.
    tags: list[str] | None = [] if (path / "tfhub_module.pb").is_file() else None
    try:
        return tf.saved_model.load(str(path), tags=tags)
    except Exception as error:  # a damaged file fails in many ways
        if "add_slot" in str(error):
            raise TopworkError(
                f"{path}: it was saved with the state of a Keras 2 optimizer, which TensorFlow reads only beside "
                "Keras 2: pip install tf_keras, and `import tf_keras` before the conversion"
            ) from error
        raise InputError(f"{path}: TensorFlow can't load this SavedModel; {first_line(error)}") from error


def _callable_of(module: Any, name: str) -> tuple[Callable[[Any], Any], Any]:
    """How to call a restored module with an image, and the tensor's specification that it was traced with."""
    call: Any = module.__call__ if callable(module) else None
    if hasattr(call, "concrete_functions"):
        traces = [c.structured_input_signature[0] for c in call.concrete_functions]
        spec = _image_spec(arguments[0] for arguments in traces if arguments)
        if spec is not None:
            frozen = {"training": False} if "training" in inspect.signature(call).parameters else {}
            return partial(call, **frozen), spec
    signatures = getattr(module, "signatures", {})
    for key in (*(key for key in SIGNATURES if key in signatures), *signatures):
        entries = signatures[key].structured_input_signature[1]
        spec = _image_spec(entries.values())
        if len(entries) == 1 and spec is not None:
            return partial(_call_by_name, signatures[key], *entries), spec
    raise InputError(
        f"{name}: expected a module of images: `__call__`, or a signature, that takes float32 (batch, height, "
        f"width, 3). It has {'a' if call else 'no'} `__call__`; signatures: {', '.join(signatures) or 'none'}"
    )


def _call_by_name(signature: Any, argument: str, image: Any) -> Any:
    return signature(**{argument: image})


def _image_spec(specs: Iterable[Any]) -> Any:
    """The first that could be a batch of colour pictures."""
    for spec in specs:
        shape = getattr(spec, "shape", None)
        if shape is not None and shape.rank == 4 and shape[-1] in (3, None):
            return spec
    return None


def _sides(shape: Sequence[int | None], name: str) -> tuple[int | None, bool]:
    """The side of the square input, if the module says it, and whether it does."""
    if len(shape) != 4 or shape[-1] not in (3, None):
        raise InputError(f"{name}: expected an input (batch, height, width, 3); its is {tuple(shape)}")
    height, width = shape[1], shape[2]
    if height is not None and width is not None and height != width:
        raise InputError(f"{name}: expected a square input; its is {height} x {width}")
    side = width if height is None else height
    return side, side is not None


def _size(own: int | None, fixed: bool, chosen: int | None, name: str) -> int:
    if fixed and chosen not in (None, own):
        raise InputError(f"{name}: its input is {own} px and no other; got {chosen}: leave the size out")
    size_px = own if chosen is None else chosen
    if size_px is None:
        raise InputError(f"{name}: it takes pictures of any size and names none: choose one, for example 224")
    if size_px < 1:
        raise InputError(f"{name}: the input size must be a positive number of pixels; got {size_px}")
    return size_px


def _unloaded(path: Path, error: Exception) -> InputError:
    text = str(error)
    if "safe_mode" in text or "unsafe" in text:
        return InputError(
            f"{path}: expected a model that Keras loads in safe mode; this one holds Python code, which would run "
            "when it is loaded. If you trust it, load it yourself and save it as a SavedModel (`model.export`)"
        )
    if "Could not locate" in text or "could not be deserialized" in text:
        return InputError(
            f"{path}: expected a model of Keras' own layers; this one has others. Where they are defined, load it "
            "and save it as a SavedModel (`model.export`)"
        )
    return InputError(f"{path}: Keras can't load it; {first_line(error)}")
