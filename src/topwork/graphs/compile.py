"""Compile a graph for the processor."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from topwork.recipe import Precision

if TYPE_CHECKING:
    import openvino as ov


_TYPES = threading.Lock()


def compile_model(graph: ov.Model, precision: Precision, *, threads: int) -> ov.CompiledModel:
    """Compile for the CPU: `threads` streams of one thread each. `precision`: f32 or bf16."""
    import openvino as ov
    import openvino.properties as properties
    from openvino.properties import hint

    # The first such call, made by two threads at once, hangs for good (OpenVINO 2026.4): the two wait for each
    # other, one importing NumPy's types, one initialising OpenVINO's table of them.
    with _TYPES:
        ov.Type.u8.to_dtype()
    options = {
        properties.num_streams: threads,
        properties.inference_num_threads: threads,
        hint.inference_precision: {"f32": ov.Type.f32, "bf16": ov.Type.bf16}[precision],
    }
    return ov.Core().compile_model(graph, "CPU", options)
