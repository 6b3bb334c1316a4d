"""Constant folding of a graph whose sizes are fixed, shapes included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.graphs.resampling import Resampling, kernel

if TYPE_CHECKING:
    import openvino as ov

KEPT = {"Parameter", "Result", "Constant"}


def fold(graph: ov.Model, *, widen: bool = True) -> None:
    """Replace all nodes that don't depend on the picture's pixels with constants, in place.

    A node that depends on the picture's size alone becomes a constant too, also if the batch size is free.
    OpenVINO's pass `ConstantFolding` skips these where the network was exported for any batch size, even after the
    size has been fixed.

    A constant has its node's name; output 1 of a node with several outputs becomes `name.1`. If `widen` is False,
    constants converted from a small type (weights stored in half precision) stay as they are.
    """
    for node in graph.get_ordered_ops():
        if node.get_type_name() in KEPT or (not widen and _is_widened(node)):
            continue
        values = _values(node) or []
        for number, value in enumerate(values):
            name = node.get_friendly_name() + (f".{number}" if len(values) > 1 else "")
            _replace(node.output(number), value, name)
    graph.validate_nodes_and_infer_types()


def is_antialiased(node: Any) -> bool:
    """Whether a node resizes with antialiasing in a way that OpenVINO's processor plugin leaves out."""
    if node.get_type_name() != "Interpolate":
        return False
    told = node.get_attributes()
    return bool(told.get("antialias")) and told.get("mode") in ("cubic", "linear_onnx")


def _antialiased(node: Any) -> list[ov.Tensor] | None:
    """A constant resized as the network's library does it; None if it isn't one, or lies on another grid."""
    import openvino as ov

    told, source = node.get_attributes(), node.input_value(0).get_node()
    if source.get_type_name() != "Constant" or "half_pixel" not in str(
        told["coordinate_transformation_mode"]
    ):
        return None
    value = np.asarray(source.data, np.float64)
    how: Resampling = "bicubic_antialiased" if told["mode"] == "cubic" else "bilinear_antialiased"
    for axis, wanted in enumerate(node.output(0).shape):
        if value.shape[axis] != wanted:
            value = np.moveaxis(
                np.moveaxis(value, axis, -1) @ kernel(value.shape[axis], wanted, how).T, -1, axis
            )
    return [ov.Tensor(np.ascontiguousarray(value, node.get_output_element_type(0).to_dtype()))]


def _is_widened(node: Any) -> bool:
    """Whether it converts weights that are stored in at most 16 bits."""
    return bool(node.get_type_name() == "Convert" and node.get_input_element_type(0).size <= 2)


def _values(node: Any) -> list[ov.Tensor] | None:
    """The values of a node's outputs, or None if they aren't known."""
    import openvino as ov

    kind, inputs = node.get_type_name(), node.input_values()
    if any(output.partial_shape.is_dynamic for output in node.outputs()):
        return None
    if kind == "ShapeOf":
        shape, dtype = inputs[0].get_partial_shape(), node.get_output_element_type(0).to_dtype()
        return None if shape.is_dynamic else [ov.Tensor(np.array(shape.to_shape(), dtype))]
    if kind == "ConvertLike" and inputs[0].get_node().get_type_name() == "Constant":
        return [ov.Tensor(inputs[0].get_node().data.astype(node.get_output_element_type(0).to_dtype()))]
    if is_antialiased(node):
        return _antialiased(node)
    first = _evaluated(node, inputs, 2)
    if first is None or all(value.get_node().get_type_name() == "Constant" for value in inputs):
        return first
    second = _evaluated(node, inputs, 3)  # a part of a shape is known if it doesn't contain an unknown size
    same = second is not None and all((a.data == b.data).all() for a, b in zip(first, second, strict=True))
    return first if same else None


def _evaluated(node: Any, inputs: list[Any], free: int) -> list[ov.Tensor] | None:
    import openvino as ov

    given = [_tensor(value, free) for value in inputs]
    if not given or any(tensor is None for tensor in given):
        return None
    found = [ov.Tensor(output.element_type, output.shape) for output in node.outputs()]
    try:
        return found if node.evaluate(found, given) else None
    except RuntimeError:  # the operator has no reference implementation
        return None


def _tensor(value: Any, free: int) -> ov.Tensor | None:
    """A constant's value, or a shape, with `free` for its unknown sizes."""
    import openvino as ov

    node = value.get_node()
    if node.get_type_name() == "Constant":
        return ov.Tensor(node.data, node.shape, node.get_element_type())
    shape = node.input(0).get_partial_shape() if node.get_type_name() == "ShapeOf" else None
    if shape is None or shape.rank.is_dynamic:
        return None
    sizes = [size.get_length() if size.is_static else free for size in shape]
    return ov.Tensor(np.array(sizes, value.get_element_type().to_dtype()))


def _replace(output: Any, value: ov.Tensor, name: str) -> None:
    from openvino import opset13 as op

    constant = op.constant(value)
    constant.set_friendly_name(name)
    output.replace(constant.output(0))
