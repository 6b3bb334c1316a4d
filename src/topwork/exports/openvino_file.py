"""OpenVINO: a folder with `model.xml` and `model.bin`, and the metadata in the model's `rt_info`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.exports.contents import HEAD, KEY, Contents
from topwork.exports.quantise import quantised

if TYPE_CHECKING:
    import openvino as ov

PRECISIONS = ("f32", "bf16", "fp16", "int8")
NAME = "model.xml"
LARGE = 1000  # numbers; smaller constants are not converted

Array = np.ndarray[Any, np.dtype[Any]]
Answers = dict[str, Array]


def write(
    graph: ov.Model,
    contents: Contents,
    path: Path,
    *,
    precision: str,
    pictures: Array,
    finish: Callable[[ov.Model], ov.Model] | None = None,
) -> None:
    """Write `model.xml` and `model.bin` to the new folder `path`.

    "fp16" and "bf16" store weights in half the size; the runtime computes in the precision that is best on its
    processor. "int8" stores and computes convolutions and matrix products in 8 bits, by NNCF's post-training
    quantisation (https://github.com/openvinotoolkit/nncf) on `pictures`, uint8 (M, S, S, 3); the head is kept.

    `finish` is applied to the graph after its weights have been converted. `model_info` has the entries that
    OpenVINO's classification tools read (`labels`, `model_type`).

    Raises:
        MissingExtra: "int8" without nncf.
    """
    import openvino as ov

    graph = graph.clone()
    if precision == "int8":
        names = [node.get_friendly_name() for node in graph.get_ordered_ops()]
        kept = [name for name in names if name.startswith(HEAD)]
        graph = quantised(graph, [picture[None] for picture in pictures], kept=kept)
    elif precision != "f32":
        _store_narrow(graph, precision)
    if finish is not None:
        graph = finish(graph)
    graph.set_rt_info(contents.to_json(), [KEY])
    graph.set_rt_info("Classification", ["model_info", "model_type"])
    graph.set_rt_info(" ".join(name.replace(" ", "_") for name in contents.classes), ["model_info", "labels"])
    path.mkdir()
    ov.save_model(graph, path / NAME, compress_to_fp16=False)


def load(path: Path) -> Callable[[Array], Answers]:
    """Load the folder in OpenVINO: uint8 (1, H, W, 3) → outputs by name."""
    import openvino as ov

    compiled = ov.Core().compile_model(path / NAME, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(image: Array) -> Answers:
        found = compiled(image)
        return {output.any_name: found[output].copy() for output in compiled.outputs}

    return run


def read_contents(path: Path) -> Contents:
    """Read the metadata of an exported folder."""
    import openvino as ov

    return Contents.from_json(ov.Core().read_model(path / NAME).get_rt_info([KEY]).astype(str))


def _store_narrow(graph: ov.Model, precision: str) -> None:
    """Store the backbone's large constants in 16 bits; they are converted to float32 when the graph is compiled."""
    import openvino as ov
    from openvino import opset13 as op

    for node in graph.get_ordered_ops():
        if (
            node.get_type_name() != "Constant"
            or node.get_element_type() != ov.Type.f32
            or node.data.size < LARGE
        ):
            continue
        if node.get_friendly_name().startswith(HEAD):
            continue
        targets = node.output(0).get_target_inputs()
        narrow = node.data.astype(np.float16) if precision == "fp16" else _as_bf16(node.data)
        wide = op.convert(op.constant(narrow), "f32")
        wide.set_friendly_name(node.get_friendly_name())
        for target in targets:
            target.replace_source_output(wide.output(0))


def _as_bf16(values: Array) -> ov.Tensor:
    """Convert to bf16, rounding to nearest, ties to even."""
    import openvino as ov

    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    upper = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    tensor = ov.Tensor(ov.Type.bf16, ov.Shape(values.shape))
    tensor.data.view(np.uint16)[...] = upper
    return tensor
