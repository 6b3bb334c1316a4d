"""The one place where tests run a graph: in float32 on every processor, whatever "auto" would take there."""

from __future__ import annotations

from pathlib import Path

import openvino as ov


def in_f32(graph: ov.Model | Path | str) -> ov.CompiledModel:
    """Compile `graph` for the CPU in float32. OpenVINO's own default is bf16 where the processor computes in it."""
    return ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
