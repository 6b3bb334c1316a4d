"""Read a published network's files into an OpenVINO graph, without its framework, and adapt it to decoded pictures.

A graph as read takes floats in some range and layout. After `dress`, it takes a decoded picture, `image` uint8
(1, S, S, 3) RGB; its constants are folded (batch norm into the preceding convolutions) and its shapes fixed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from topwork.errors import InputError
from topwork.graphs.fold import fold, is_antialiased
from topwork.graphs.pixels import Pixels

if TYPE_CHECKING:
    import openvino as ov

Layout = Literal["NHWC", "NCHW"]
FRONTENDS = {".onnx": "onnx", ".tflite": "tflite"}


class UnreadableError(Exception):
    """OpenVINO can't read the network: a SavedModel without a usable signature, or a Keras file. Convert it first."""


@dataclass(frozen=True, slots=True)
class ImageInput:
    """A network's image input."""

    layout: Layout
    size_px: int | None  # None if the caller may choose
    takes_bytes: bool  # uint8 rather than floats

    @property
    def channel_axis(self) -> int:
        return 3 if self.layout == "NHWC" else 1


def read_graph(path: Path) -> ov.Model:
    """Read a SavedModel folder (its serving signature), or an .onnx, .tflite or .xml file.

    Raises:
        InputError: it is damaged, or in another format.
        UnreadableError: it needs the framework that wrote it.
    """
    import openvino as ov
    from openvino.frontend import FrontEndManager

    suffix = path.suffix.lower()
    if path.is_file() and suffix == ".keras":
        raise UnreadableError("a .keras file")
    try:
        if (
            path.is_file() and suffix in FRONTENDS
        ):  # chosen by extension; OpenVINO would try other readers too
            reader = FrontEndManager().load_by_framework(FRONTENDS[suffix])
            graph = reader.convert(reader.load(str(path)))
        else:
            graph = ov.Core().read_model(path)
    except (
        RuntimeError,
        TypeError,
        *_failures(),
    ) as error:  # OpenVINO raises these for anything it can't read
        if path.is_dir():
            raise UnreadableError(f"no readable signature ({_first_line(error)})") from None
        raise InputError(
            f"{path}: expected a network in {suffix or 'a known format'}; it can't be read ({_first_line(error)}); "
            "download or export it again"
        ) from None
    if path.is_dir() and not graph.inputs:
        raise UnreadableError("its signature takes no input")
    return graph


def find_image_input(graph: ov.Model, *, name: str) -> ImageInput:
    """Find the network's image input.

    Raises:
        InputError: its input is not a picture.
    """
    import openvino as ov

    shapes = [output.get_partial_shape() for output in graph.inputs]
    told = ", ".join(f"{_name(o)} {s}" for o, s in zip(graph.inputs, shapes, strict=True))
    wrong = InputError(
        f"{name}: expected a network with one input, a picture with three channels; its inputs are {told}"
    )
    if len(shapes) > 1 and any("pixel" in name for output in graph.inputs for name in output.get_names()):
        raise InputError(
            f"{name}: it takes {told}: a network for pictures and text in one; take the file of its tower for "
            "pictures alone, such as onnx/vision_model.onnx"
        )
    if len(shapes) != 1 or shapes[0].rank.is_dynamic or len(shapes[0]) != 4:
        raise wrong
    sides = [None if side.is_dynamic else side.get_length() for side in shapes[0]]
    if sides[3] == 3:
        layout: Layout = "NHWC"
        height, width = sides[1:3]
    elif sides[1] == 3:
        layout = "NCHW"
        height, width = sides[2:]
    elif (
        sides[3] is None and sides[1] is None
    ):  # not stated: the first convolution tells, else TensorFlow's layout
        layout = "NCHW" if _convolved_axis(graph) == 1 else "NHWC"
        height, width = sides[2:] if layout == "NCHW" else sides[1:3]
    else:
        raise wrong
    if height != width:
        raise InputError(f"{name}: expected a network for square pictures; it takes {height} x {width}")
    if sides[0] not in (None, 1):
        raise InputError(
            f"{name}: expected a batch size of 1 or a free one; it is fixed at {sides[0]}: export it again"
        )
    return ImageInput(layout, height, graph.input(0).get_element_type() == ov.Type.u8)


def _convolved_axis(graph: ov.Model) -> int | None:
    """The input's axis of which the first convolution takes three channels; None if there is no such convolution."""
    axes, value = [0, 1, 2, 3], graph.input(0)
    for _ in range(64):
        targets = [t for t in value.get_target_inputs() if t.get_node().get_type_name() != "ShapeOf"]
        if not targets:
            return None
        node = targets[0].get_node()
        kind = node.get_type_name()
        if kind in ("Convolution", "GroupConvolution"):
            return axes[1] if targets[0].get_index() == 0 else None
        if kind == "Transpose" and node.input_value(1).get_node().get_type_name() == "Constant":
            axes = [axes[int(i)] for i in node.input_value(1).get_node().data.ravel()]
        value = node.output(0)
    return None


def dress(graph: ov.Model, entry: ImageInput, *, size_px: int, pixels: Pixels, name: str) -> ov.Model:
    """The same network with the input `image` uint8 (1, S, S, 3) RGB and folded constants. `graph` is consumed.

    Raises:
        InputError: it can't take pictures of this size.
    """
    import openvino as ov
    from openvino import opset13 as op
    from openvino._offline_transformations import apply_moc_transformations

    old = graph.get_parameters()[0]
    shape = [1, size_px, size_px, 3] if entry.layout == "NHWC" else [1, 3, size_px, size_px]
    try:
        graph.reshape({graph.input(0): ov.PartialShape(shape)})
        if _is_unsettled(graph):
            _settle(graph, name)
        outputs = [tuple(output.shape) for output in graph.outputs]
        _check_shapes(graph)
    except RuntimeError as error:
        raise InputError(
            f"{name}: it can't take pictures of {size_px} px ({_first_line(error)}); omit --size, or try a multiple "
            "of 32"
        ) from None
    if any(0 in output for output in outputs):
        raise InputError(f"{name}: {size_px} px is too small for it; choose a larger --size")

    image = op.parameter([1, size_px, size_px, 3], ov.Type.u8, name="image")
    image.output(0).set_names({"image"})
    x: Any = image
    if not entry.takes_bytes:
        x = op.convert(x, ov.Type.f32)
        if pixels.range != "0..255":
            x = op.multiply(x, op.constant(np.array(pixels.scale, np.float32)))
        if any(pixels.offset):
            x = op.add(x, op.constant(np.array(pixels.offset, np.float32)))
    if pixels.bgr:
        x = op.gather(x, op.constant(np.array([2, 1, 0])), op.constant(np.int64(3)))
    if entry.layout == "NCHW":
        x = op.transpose(x, op.constant(np.array([0, 3, 1, 2])))
    if not entry.takes_bytes and old.get_element_type() != ov.Type.f32:
        x = op.convert(x, old.get_element_type())
    for target in old.output(0).get_target_inputs():
        target.replace_source_output(x.output(0))
    dressed = ov.Model(graph.get_results(), [image], graph.get_friendly_name())
    apply_moc_transformations(dressed, False)
    dressed.validate_nodes_and_infer_types()
    return dressed


def _is_unsettled(graph: ov.Model) -> bool:
    """Whether shapes stay unknown though the picture's is fixed, or positions are resized with antialiasing."""
    nodes = graph.get_ordered_ops()
    shapes = (output.get_partial_shape() for node in nodes for output in node.outputs())
    return any(shape.is_dynamic for shape in shapes) or any(map(is_antialiased, nodes))


def _settle(graph: ov.Model, name: str) -> None:
    """Fold all that the picture's pixels don't change. Raises `InputError` where antialiasing is left."""
    from openvino._offline_transformations import apply_moc_transformations

    fold(graph, widen=False)
    if any(out.get_partial_shape().is_dynamic for node in graph.get_ordered_ops() for out in node.outputs()):
        apply_moc_transformations(graph, False)
        fold(graph, widen=False)
        for node in graph.get_ordered_ops():
            if any(out.get_partial_shape().is_dynamic for out in node.outputs()):
                shown = f"{node.get_type_name()} {node.get_friendly_name()!r}"
                raise RuntimeError(f"what its {shown} gives has no fixed size")
    if any(map(is_antialiased, graph.get_ordered_ops())):
        raise InputError(
            f"{name}: it resizes maps with antialiasing, which OpenVINO leaves out, so its features would be wrong; "
            "take its weights (model.safetensors) instead, or export it without antialiasing"
        )


def _check_shapes(graph: ov.Model) -> None:
    """Check that a new input size still fits the layers.

    OpenVINO would pass a map of 2,048 numbers to a layer that takes 512 as a batch of four pictures.
    """
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "Reshape":
            given, wanted = tuple(node.input_value(0).shape), tuple(node.output(0).shape)
            if math.prod(given) != math.prod(wanted):
                raise RuntimeError(f"a map of shape {given} can't be reshaped to {wanted}")
    for output in graph.outputs:
        if len(output.shape) > 1 and output.shape[0] != 1:
            raise RuntimeError(f"one picture would yield {output.shape[0]} rows")


def _failures() -> Any:
    """The exceptions of OpenVINO's readers; they have no common base class."""
    from openvino import frontend

    return (
        RuntimeError,
        TypeError,
        frontend.GeneralFailure,
        frontend.InitializationFailure,
        frontend.NotImplementedFailure,
        frontend.OpConversionFailure,
        frontend.OpValidationFailure,
    )


def _name(output: Any) -> str:
    return output.get_any_name() if output.get_names() else "(unnamed)"


def _first_line(error: Exception) -> str:
    """OpenVINO's message without the locations in its source code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '", "FrontEnd API"))]
    return (told or lines or [type(error).__name__])[0][:200]
