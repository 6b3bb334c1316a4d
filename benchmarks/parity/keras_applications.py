"""Which networks of `keras.applications` can be converted, how long it takes, and how well the features agree.

    python -m benchmarks.parity.keras_applications [--only NAME ...] [--out docs/keras-applications.md]
        [--rows ROWS.jsonl]

One network at a time, in a process of its own, with random weights (no download), at the size it was published for.
Random weights with Keras' defaults would test little: batch norms that do nothing, features of 1e-9, alike for all
pictures. So biases, gains and layer scales are drawn anew, and each batch norm gets the statistics that two pictures
have at its place. Keras' own features of one of them, `model.predict(preprocess_input(255 x))`, are the reference;
how far the two pictures' features lie apart says what an agreement is worth.
With --rows, a broken-off run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.options import ROOT, shared_options
from topwork.backbones.conversion.applications import APPLICATIONS
from topwork.backbones.conversion.convert import convert_application
from topwork.errors import TopworkError

SEED = 0
ALLOWED = 1e-3


def main() -> None:
    parser = shared_options(
        __doc__, only=list(APPLICATIONS), out=ROOT / "docs" / "keras-applications.md", rows=None
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child)))
        return
    kept = options.rows.read_text().splitlines() if options.rows and options.rows.exists() else []
    rows = {row["name"]: row for row in map(json.loads, kept)}
    for name in options.only:
        if name not in rows:
            rows[name] = in_a_process(name)
            if options.rows:
                with options.rows.open("a") as file:
                    file.write(json.dumps(rows[name]) + "\n")
        print(line(rows[name]), flush=True)
    options.out.write_text(page([rows[name] for name in options.only]), encoding="utf-8")


def in_a_process(name: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", __spec__.name, "--child", name]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    )
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"the process ended with {done.returncode}"]
        return {"name": name, "why": why[0]}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def measure(name: str) -> dict[str, Any]:
    import keras
    import openvino as ov

    size_px = APPLICATIONS[name].size_px
    build = getattr(keras.applications, name)
    preprocess = sys.modules[build.__module__].preprocess_input
    random = np.random.default_rng(SEED)
    keras.utils.set_random_seed(SEED)
    model = build(include_top=False, pooling="avg", weights=None, input_shape=(size_px, size_px, 3))
    images = np.concatenate([picture(size_px, random) for _ in range(2)])
    stir(model, preprocess(255 * images), random)
    image, wanted = images[:1], model.predict(preprocess(255 * images[:1]), verbose=0)
    other = model.predict(preprocess(255 * images[1:]), verbose=0)
    row = {"name": name, "size_px": size_px, "parameters": model.count_params()}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "network.weights.h5")
        model.save_weights(weights)
        del model
        keras.backend.clear_session()
        began = time.perf_counter()
        try:
            made = convert_application(name, folder, weights=weights)
        except TopworkError as error:
            return {**row, "why": str(error)}
        seconds = time.perf_counter() - began
        network = ov.Core().compile_model(made.graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        found = network(image)[0]
    return {
        **row,
        "width": made.width,
        "seconds": seconds,
        "relative": float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted)),
        "most": float(np.abs(found - wanted).max()),
        "largest": float(np.abs(wanted).max()),
        "apart": float(np.linalg.norm(other - wanted) / np.linalg.norm(wanted)),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def picture(size_px: int, random: np.random.Generator) -> Any:
    """Float32 (1, S, S, 3) in [0, 1]: soft patches and noise. Noise alone looks the same to the last layers."""
    from PIL import Image

    small = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
    patches = np.asarray(small.resize((size_px, size_px), Image.Resampling.BICUBIC), np.float32) / 255
    noise: Any = random.random((size_px, size_px, 3), np.float32)
    return (0.7 * patches + 0.3 * noise)[None]


def stir(model: Any, images: Any, random: np.random.Generator) -> None:
    """Move every vector of weights off its default, so that leaving one out, or folding it wrongly, shows."""
    from keras import layers

    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    for weight in model.trainable_weights:
        if len(weight.shape) == 1:
            shape, bias = tuple(weight.shape), weight.name in ("bias", "beta")
            drawn = random.normal(0, 0.2, shape) if bias else random.uniform(0.5, 1.5, shape)
            weight.assign(drawn.astype(np.float32))
    for layer in model.layers:
        if isinstance(layer, layers.Dropout):
            layer.rate = 0.0
        if isinstance(layer, layers.Normalization) and layer.input_mean is None:  # EfficientNet's, of pixels
            layer.adapt_mean.assign(random.uniform(0.4, 0.6, layer.adapt_mean.shape).astype(np.float32))
            layer.adapt_variance.assign(random.uniform(0.04, 0.09, layer.adapt_mean.shape).astype(np.float32))
            layer.finalize_state()
    if norms:
        for weight in model.trainable_weights:
            if len(weight.shape) == 4:  # so that activations are not drowned in the norms' epsilon
                weight.assign(weight * 4.0)
        before = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        model(images, training=True)  # the statistics of these become the layers' own
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


def line(row: dict[str, Any]) -> str:
    if "seconds" not in row:
        return (
            f"| {row['name']} | {row.get('size_px', '')} | | | | | | | | no: {row['why'].replace('|', ' ')} |"
        )
    ok = row["relative"] <= ALLOWED and row["most"] <= ALLOWED
    why = "yes" if ok else f"no: {max(row['relative'], row['most']):.1e} is more than {ALLOWED:.0e}"
    return (
        f"| {row['name']} | {row['size_px']} | {row['width']} | {row['parameters'] / 1e6:.1f} | "
        f"{row['seconds']:.0f} | {row['relative']:.1e} | {row['most']:.1e} | {row['largest']:.2g} | "
        f"{row['apart']:.2g} | {why} |"
    )


def page(rows: list[dict[str, Any]]) -> str:
    from importlib.metadata import version

    good = sum(line(row).endswith("| yes |") for row in rows)
    used = [f"{name} {version(name.lower().replace(' ', '-'))}" for name in ("Keras", "OpenVINO", "NumPy")]
    tensorflow = next(filter(None, map(installed, ("tensorflow", "tensorflow-cpu"))), "?")
    return "\n".join(
        [
            "# Keras Applications, converted",
            "",
            "`python -m benchmarks.parity.keras_applications`",
            "",
            f"{good} of {len(rows)} networks of `keras.applications` convert and give Keras' own features within",
            f"{ALLOWED:.0e}, both relative (L2) and in the largest difference of one number. Without classes,",
            "averaged over the image, float32, one image, random weights (seed 0) with batch norms that have",
            "statistics of their own; the reference is",
            "`model.predict(preprocess_input(255 x))`. *Apart*: how far another image's features are, relative (L2).",
            "",
            "Seconds: `convert_application`, from building the network to the checked graph on disk, once; importing",
            "TensorFlow (5 to 10 s) not counted. Two cores of an AMD EPYC; other work was running on them, so a",
            "quiet machine is faster.",
            "",
            f"{', '.join(used)}, TensorFlow {tensorflow}.",
            "",
            "| network | px | width | parameters, M | seconds | relative | largest difference | largest feature "
            "| apart | agrees |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *map(line, rows),
            "",
        ]
    )


def installed(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
