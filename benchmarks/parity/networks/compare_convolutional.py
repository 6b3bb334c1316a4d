"""Whether the builders' convolutional networks are timm's and Transformers', with random weights.

    python -m benchmarks.parity.networks.compare_convolutional [--only NAME …] [--family FAMILY] [--most 60e6]
        [--sizes 64 96] [--oracle .venv-networks/bin/python]

Each architecture of `timm_convolutional.tsv`, and the configurations of Transformers below, as large as `--most`
parameters; max|a − b| / max|b| of the features, at its own size if no sizes are given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parity.networks.random_tensors import random_pixels, random_tensor, write_safetensors
from topwork.backbones.weights.families import convnext, efficientnet, mobilenet, regnet, resnet
from topwork.backbones.weights.network import Weights
from topwork.backbones.weights.safetensors import read_tensors

ROOT = Path(__file__).parents[3]
TABLE = ROOT / "src/topwork/backbones/weights/timm_convolutional.tsv"
TIMM = {
    "convnext": convnext.build_timm_convnext,
    "resnet": resnet.build_timm_resnet,
    "regnet": regnet.build_timm_regnet,
    "efficientnet": efficientnet.build_timm_efficientnet,
}
SMALL_EFFICIENTNET = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}
TRANSFORMERS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "ConvNext": (convnext.build_convnext, [{}, {"layer_scale_init_value": 0.0, "hidden_act": "gelu_new"}]),
    "ConvNextV2": (convnext.build_convnext, [{}]),
    "DINOv3ConvNext": (convnext.build_dinov3_convnext, [{}]),
    "ResNet": (
        resnet.build_resnet,
        [
            {},
            {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]},
            {"layer_type": "basic", "depths": [2, 2], "hidden_sizes": [64, 128], "hidden_act": "silu"},
            {"downsample_in_bottleneck": True, "downsample_in_first_stage": True, "hidden_act": "gelu"},
        ],
    ),
    "RegNet": (
        regnet.build_regnet,
        [{}, {"layer_type": "x", "downsample_in_first_stage": False}, {"hidden_act": "silu"}],
    ),
    "EfficientNet": (
        mobilenet.build_efficientnet,
        [SMALL_EFFICIENTNET, SMALL_EFFICIENTNET | {"depthwise_padding": [5, 11], "depth_coefficient": 1.1}],
    ),
    "MobileNetV1": (mobilenet.build_mobilenet_v1, [{}, {"tf_padding": False, "depth_multiplier": 0.5}]),
    "MobileNetV2": (
        mobilenet.build_mobilenet_v2,
        [{}, {"tf_padding": False, "first_layer_is_expansion": False, "depth_multiplier": 0.5}],
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--family", nargs="*", default=[*TIMM, "transformers"])
    parser.add_argument("--most", type=float, default=60e6)
    parser.add_argument("--sizes", nargs="*", type=int, default=[])
    parser.add_argument("--oracle", default=str(ROOT / "benchmarks/.venv-networks/bin/python"))
    options = parser.parse_args()
    command = [options.oracle, "-m", "benchmarks.parity.networks.oracle_convolutional"]
    oracle = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert oracle.stdin is not None
    assert oracle.stdout is not None
    counts: Counter[str] = Counter()
    for shown, library, name, build, config in _asked(options):
        sizes = options.sizes or ([] if library == "timm" else [224])
        made_with = {} if library == "timm" else config
        asked = {"library": library, "name": name, "sizes": sizes, "config": made_with}
        oracle.stdin.write(json.dumps(asked | {"most_parameters": options.most}) + "\n")
        oracle.stdin.flush()
        answer = json.loads(oracle.stdout.readline())
        verdict, told = "too large", ""
        if answer["outputs"]:
            try:
                apart = max(_differences(build, config, answer))
                verdict, told = _verdict(apart), f"{apart:.1e}"
            except Exception as error:
                verdict, told = "failed", f"{type(error).__name__}: {str(error)[:300]}"
        counts[verdict] += 1
        print(f"{shown:<40} {answer['parameters'] / 1e6:7.1f} M  {verdict}  {told}", flush=True)
    print(dict(counts))
    oracle.stdin.close()
    oracle.wait()


def _verdict(apart: float) -> str:
    return "equal to 1e-5" if apart <= 1e-5 else "equal to 1e-4" if apart <= 1e-4 else "DIFFERS"


def _asked(options: Any) -> Any:
    for line in TABLE.read_text(encoding="utf-8").splitlines()[2:]:
        name, family, facts = line.split("\t")
        if family in options.family and (not options.only or name in options.only):
            yield name, "timm", name, TIMM[family], json.loads(facts)
    if "transformers" in options.family:
        for name, (build, configs) in TRANSFORMERS.items():
            if not options.only or name in options.only:
                for config in configs:
                    yield f"{name} {json.dumps(config)}", "transformers", name, build, config


def _differences(build: Any, config: dict[str, Any], answer: dict[str, Any]) -> Any:
    import openvino as ov

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        tensors = {name: random_tensor(name, tuple(shape)) for name, shape in answer["shapes"].items()}
        write_safetensors(path, tensors)
        for size_px, expected in answer["outputs"].items():
            weights = Weights(read_tensors(path), shown="model.safetensors")
            network = build(config, weights, size_px=int(size_px))
            if left := weights.left():
                raise ValueError(f"{len(left)} tensors are left over, such as {left[:3]}")
            exact = {"INFERENCE_PRECISION_HINT": "f32"}
            made = ov.compile_model(network.graph, "CPU", exact)(random_pixels(int(size_px)))
            last = made["last"]
            if min(made[stage].min() for stage in network.stages) < 0:
                raise ValueError("a stage is negative")
            if network.rectified and last.min() < 0:
                raise ValueError("features are negative")
            yield float(np.abs(last - np.array(expected)).max() / np.abs(expected).max())


if __name__ == "__main__":
    main()
