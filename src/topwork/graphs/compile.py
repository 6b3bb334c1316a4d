"""Compile a graph for the CPU."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from topwork.recipe import Precision

if TYPE_CHECKING:
    import openvino as ov


_TYPES = threading.Lock()


def computes_in_bf16() -> bool:
    """Whether this processor has bf16 instructions."""
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def precision_here(precision: Precision) -> Precision:
    """The precision used on this processor: f32 instead of bf16 if it has no bf16 instructions."""
    return "f32" if precision == "bf16" and not computes_in_bf16() else precision


def compile_model(graph: ov.Model, precision: Precision, *, threads: int) -> ov.CompiledModel:
    """Compile for the CPU, with `threads` streams of one thread each. For `precision`, see `precision_here`."""
    import openvino as ov
    import openvino.properties as properties
    from openvino.properties import hint

    # Two threads that make this call for the first time at once deadlock (OpenVINO 2026.4): one imports NumPy's
    # types while the other initialises OpenVINO's table of them.
    with _TYPES:
        ov.Type.u8.to_dtype()
    options = {
        properties.num_streams: threads,
        properties.inference_num_threads: threads,
        hint.inference_precision: {"f32": ov.Type.f32, "bf16": ov.Type.bf16}[precision_here(precision)],
    }
    return ov.Core().compile_model(graph, "CPU", options)
