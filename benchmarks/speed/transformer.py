"""A transformer built from its weights against OpenVINO's own conversion of it from PyTorch: time of one picture.

    python -m benchmarks.speed.transformer FOLDER [--pictures 15]

FOLDER is what `benchmarks.parity.networks.converted` wrote. Both run in f32 on one stream of one thread, interleaved;
Topwork's backbone computes its stages besides. The ratio is that of the least times.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import openvino as ov

from benchmarks.options import shared_options
from topwork.backbones.backbone import load_backbone

OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
SIZE_PX = 224


def main() -> None:
    parser = shared_options(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=15)
    told = parser.parse_args()
    backbone = load_backbone(str(told.folder), size_px=SIZE_PX, precision="f32")
    inputs = {
        "converted": np.zeros((1, 3, SIZE_PX, SIZE_PX), np.float32),
        "Topwork": np.zeros((1, SIZE_PX, SIZE_PX, 3), np.uint8),
    }
    core = ov.Core()
    networks = {
        "converted": core.compile_model(told.folder / "converted.xml", "CPU", OPTIONS),
        "Topwork": core.compile_model(backbone.graph, "CPU", OPTIONS),
    }
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(told.pictures):
        for name, network in networks.items():
            began = time.perf_counter()
            network({0: inputs[name]})
            seconds[name].append(time.perf_counter() - began)
    for name, some in seconds.items():
        print(f"{name}: {1e3 * min(some):.0f} ms, median {1e3 * statistics.median(some):.0f}")
    print(f"converted / Topwork: {min(seconds['converted']) / min(seconds['Topwork']):.2f}")


if __name__ == "__main__":
    main()
