"""Training a whole network: Topwork's layer, made of its graph, against the network as Keras publishes it.

    python -m benchmarks.speed.finetune.whole_network [--only NAME ...] [--batch 32] [--repeats 7]
        [--steps 3] [--json FILE]

Both are Keras models on TensorFlow with a new last layer, AdamW and the same batch, on `train_on_batch`; all weights
learn, and so do the published network's batch norms, which are folded into the weights in Topwork's. They take
turns, `--steps` steps each, so that other work on the machine meets both. The ratio is that of each turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.options import shared_options

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
CLASSES, SIZE_PX = 5, 224
NAMES = ("MobileNetV2", "EfficientNetB0", "EfficientNet-Lite0")
Array = np.ndarray[Any, Any]


def main() -> None:
    parser = shared_options(__doc__, only=list(NAMES), batch=32, repeats=7, json=None)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options)))
        return
    rows = []
    for name in options.only:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", __spec__.name, "--child", name, *sys.argv[1:]],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(line(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    import keras

    from topwork.graphs.trainable.layer import GraphLayer

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    pixels: Array = random.random((options.batch, SIZE_PX, SIZE_PX, 3), np.float32)
    labels: Array = np.arange(options.batch) % CLASSES
    lite = name == "EfficientNet-Lite0"
    prepared = 255 * pixels if lite else _preprocess(name)(255 * pixels)
    graph = _lite_graph() if lite else _converted(name)  # in float32, whatever learns
    keras.config.set_dtype_policy(options.precision)
    published = trainer(_lite_published() if lite else _published(name), prepared, labels)
    imported = trainer(GraphLayer(graph), 255 * pixels if lite else pixels, labels)
    seconds: dict[str, list[float]] = {"published": [], "imported": []}
    for _ in range(options.repeats):
        for key, train in (("published", published), ("imported", imported)):
            began = time.perf_counter()
            for _ in range(options.steps):
                train()
            seconds[key].append((time.perf_counter() - began) / options.steps)
    ratios = [p / i for p, i in zip(seconds["published"], seconds["imported"], strict=True)]
    speeds = {key: options.batch / statistics.median(values) for key, values in seconds.items()}
    return {"name": name, "batch": options.batch, "precision": options.precision, "images_per_second": speeds,
            "ratio": statistics.median(ratios), "ratios": ratios}  # fmt: skip


def trainer(body: Any, images: Array, labels: Array) -> Callable[[], Any]:
    """One step of learning, on the same batch again and again; the first, which compiles, is done here."""
    import keras

    entry = keras.Input(images.shape[1:])
    model = keras.Model(entry, keras.layers.Dense(CLASSES, dtype="float32")(body(entry)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-5), loss)

    def step() -> Any:
        return model.train_on_batch(images, labels)

    step()
    step()
    return step


def _published(name: str) -> Any:
    import keras

    build = getattr(keras.applications, name)
    return build(include_top=False, pooling="avg", weights=None, input_shape=(SIZE_PX, SIZE_PX, 3))


def _preprocess(name: str) -> Callable[[Array], Array]:
    import keras

    module = sys.modules[getattr(keras.applications, name).__module__]
    preprocess: Callable[[Array], Array] = module.preprocess_input
    return preprocess


def _converted(name: str) -> Any:
    import openvino as ov

    from topwork.backbones.conversion.convert import convert_application

    with tempfile.TemporaryDirectory() as folder:
        made = convert_application(name, folder, size_px=SIZE_PX, weights=None)
        return ov.Core().read_model(Path(made.graph).read_bytes(), Path(folder, "graph.bin").read_bytes())


def _lite_published() -> Any:
    from benchmarks.speed.finetune.peer_keras import network

    return network(SIZE_PX, pixels="float32")


def _lite_graph() -> Any:
    from topwork.backbones.efficientnet_lite import build
    from topwork.graphs.features import pool

    return pool(build("efficientnet-lite0", size_px=SIZE_PX), ["last"])


def line(row: dict[str, Any]) -> str:
    speeds = row["images_per_second"]
    return (
        f"| {row['name']} | {row['precision']} | {speeds['published']:.1f} | {speeds['imported']:.1f} | "
        f"{row['ratio']:.2f} ({min(row['ratios']):.2f} to {max(row['ratios']):.2f}) |"
    )


if __name__ == "__main__":
    main()
