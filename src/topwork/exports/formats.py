"""The formats there are: what each can hold, and where its writer is."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType

from topwork.errors import InputError, MissingExtra, one_of


@dataclass(frozen=True, slots=True)
class Format:
    """`suffix`: of its one file; empty where it is a folder. `any_size`: whether it can hold the resizer."""

    name: str
    module: str
    suffix: str
    precisions: tuple[str, ...]
    any_size: bool
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
    # No 8-bit numbers: the converter makes the head's so, too, and the class was the same in a third of pictures
    # only; docs/notes/parity.md, "Export".
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
    """The format of a name, checked to hold what is wanted.

    Raises:
        InputError: there is none of that name, or it can't hold that precision, or pictures of any size.
    """
    known = {format.name: format for format in FORMATS}
    if name not in known:
        raise InputError(one_of(name, [*known, "tfhub"], what="format"))
    format = known[name]
    if precision not in format.precisions:
        others = ", ".join(f.name for f in FORMATS if precision in f.precisions)
        raise InputError(
            f"the format {name} holds {', '.join(format.precisions)}; got the precision {precision!r}"
            + (f", which {others} can hold" if others else "")
        )
    if input == "any" and not format.any_size:
        others = ", ".join(f.name for f in FORMATS if f.any_size)
        raise InputError(
            f"the format {name} takes pictures of one size; for pictures of any size take {others}"
        )
    return format


def code_of(format: Format) -> ModuleType:
    """Its writer and its runner.

    Raises:
        MissingExtra: a package that it needs is not installed.
    """
    for package in format.needs:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(f"the format {format.name}", "export")
    return importlib.import_module(f"topwork.exports.{format.module}")
