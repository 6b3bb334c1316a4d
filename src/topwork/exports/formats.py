"""The export formats: what each supports, and the module that writes it."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType

from topwork.errors import InputError, MissingExtra, one_of


@dataclass(frozen=True, slots=True)
class Format:
    """An export format."""

    name: str
    module: str
    suffix: str  # of the file; empty if it is a folder
    precisions: tuple[str, ...]
    any_size: bool  # whether it can include the resizer
    runtime: str
    needs: tuple[str, ...]  # packages beyond the core


FORMATS = (
    Format("openvino", "openvino_file", "", ("f32", "bf16", "fp16", "int8"), True, "OpenVINO", ()),
    Format(
        "onnx",
        "onnx.file",
        ".onnx",
        ("f32", "fp16", "int8"),
        True,
        "ONNX Runtime",
        ("onnx", "onnxruntime"),
    ),
    Format("savedmodel", "savedmodel", "", ("f32",), True, "TensorFlow", ("tensorflow", "keras")),
    # No int8: the converter also quantises the head, and the predicted class was the same in only a third of the
    # pictures; docs/notes/parity.md, "Export".
    Format(
        "litert",
        "litert",
        ".tflite",
        ("f32", "fp16"),
        True,
        "LiteRT's interpreter",
        ("tensorflow", "keras", "ai_edge_litert"),
    ),
    Format("keras", "keras_file", ".keras", ("f32",), False, "Keras", ("tensorflow", "keras")),
)


def format_of(name: str, *, precision: str, input: str) -> Format:
    """Look up a format, and check that it supports the precision and input.

    Raises:
        InputError: there is no such format, or it doesn't support this precision or pictures of any size.
    """
    known = {f.name: f for f in FORMATS}
    if name not in known:
        raise InputError(one_of(name, [*known, "tfhub"], what="format"))
    found = known[name]
    if precision not in found.precisions:
        others = ", ".join(f.name for f in FORMATS if precision in f.precisions)
        raise InputError(
            f"the format {name} supports {', '.join(found.precisions)}; got the precision {precision!r}"
            + (f" (supported by {others})" if others else "")
        )
    if input == "any" and not found.any_size:
        others = ", ".join(f.name for f in FORMATS if f.any_size)
        raise InputError(
            f"the format {name} takes pictures of a fixed size; for pictures of any size use {others}"
        )
    return found


def code_of(export_format: Format) -> ModuleType:
    """The format's module, with its writer and loader.

    Raises:
        MissingExtra: a required package is not installed.
    """
    for package in export_format.needs:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(f"the format {export_format.name}", "export")
    return importlib.import_module(f"topwork.exports.{export_format.module}")
