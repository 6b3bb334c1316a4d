"""Every network of `keras.applications` as a layer that can be trained: are its numbers and its gradients right?

    python -m benchmarks.parity.import_parity [--only NAME ...] [--out docs/import-parity.md]
        [--rows ROWS.jsonl] [--jax PYTHON] [--torch PYTHON]

One network at a time, each step in a process of its own. Random weights, stirred as in `keras_applications`, are
converted to a graph; a fresh process imports it with `topwork.graphs.trainable.layer.GraphLayer` and compares

- what the layer gives for two pictures, float32, with what OpenVINO gives for each, float32;
- its gradient with central differences, in float64, so that they are good to many digits. The loss is a fixed random
  mixture of the features. The directions: the gradient itself, stretched in each weight to that weight's own length
  (so a part that is wrong shows, however small it is beside others), and two random ones;
- the gradient in float32, as it is trained with, with that in float64.

With --rows, a broken-off run goes on where it was. --jax and --torch: a Python with Topwork and Keras on that
backend; five networks are then checked on it too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.options import shared_options
from benchmarks.parity.keras_applications import SEED, installed, picture, stir
from topwork.backbones.conversion.applications import APPLICATIONS

SIDE_PX = 96  # enough for three pixels or more before the last average
# But in these, whose convolutions without a border leave one of 96: their last batch norms' statistics would be of a
# dozen numbers, some nearly equal, and magnify rounding.
LARGER_PX = {"InceptionV3": 150, "InceptionResNetV2": 150}
PICTURES = 12  # that the batch norms' statistics are taken of
OTHERS = ("MobileNetV2", "ResNet50", "EfficientNetB0", "DenseNet121", "ConvNeXtTiny")
ALLOWED = 1e-4
STEPS = (
    1e-7,
    1e-8,
    1e-6,
    1e-9,
)  # what the loss, about 1, should change by; the first that agrees to AGREED is kept
AGREED = 1e-6
RANDOM = 2
BRANCH = 0.3
Array = np.ndarray[Any, Any]
COLUMNS = """\
- *Relative* (L2) and *largest difference*: the layer's features in float32 against OpenVINO's in float32; *largest
  feature* says what the difference is of.
- *Rounding*: how far OpenVINO's features are from the layer's in float64 (relative); two programs in float32 agree no
  better.
- *Along* and *sideways*: a central difference of the loss against the gradient, both in float64, relative: along the
  gradient, stretched in each weight to that weight's length, and in the worse of two random directions. The step
  changes the loss by {step} of the features' length; where a rectifier's kink lies within it, others are tried and
  the best of four is shown. No step makes a wrong gradient agree.
- *Single*: the gradient in float32 against that in float64, relative (L2): what rounding, and kinks within it, do to
  so sensitive a network of random weights.
- *Parameters*: Keras', in millions. *Seconds*: importing and all checks, on two busy cores, once.
"""


def main() -> None:
    parser = shared_options(__doc__, only=list(APPLICATIONS), out=None, rows=None)
    parser.add_argument("--jax", help="the Python that has JAX")
    parser.add_argument("--torch", help="the Python that has PyTorch")
    parser.add_argument("--convert", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--check", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.convert:
        print(json.dumps(convert(*options.convert)))
    elif options.check:
        print(json.dumps(check(Path(options.check))))
    else:
        pythons = {"tensorflow": sys.executable, "jax": options.jax, "torch": options.torch}
        rows = measured(options.only, pythons, options.rows)
        if options.out:
            options.out.write_text(page(rows), encoding="utf-8")


def measured(names: list[str], pythons: dict[str, str | None], kept: Path | None) -> list[dict[str, Any]]:
    lines = kept.read_text().splitlines() if kept and kept.exists() else []
    known = {(row["name"], row["backend"]): row for row in map(json.loads, lines)}
    rows = []
    for name in names:
        backends = [b for b, python in pythons.items() if python and (b == "tensorflow" or name in OTHERS)]
        with tempfile.TemporaryDirectory() as folder:
            made: dict[str, Any] | None = None
            for backend in backends:
                row = known.get((name, backend))
                if row is None:
                    made = made or _child("tensorflow", sys.executable, "--convert", name, folder)
                    found = made if "why" in made else _child(backend, pythons[backend], "--check", folder)
                    row = {"name": name, "backend": backend, **made, **found}
                    if kept:
                        with kept.open("a") as file:
                            file.write(json.dumps(row) + "\n")
                rows.append(row)
                print(line(row), flush=True)
    return rows


def _child(backend: str, python: str | None, *arguments: str) -> dict[str, Any]:
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": backend,
        "JAX_ENABLE_X64": "1",
        "JAX_PLATFORMS": "cpu",
    }
    command = [str(python), "-W", "ignore", "-m", __spec__.name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"the process ended with {done.returncode}"]
        return {"why": why[0]}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def convert(name: str, folder: str) -> dict[str, Any]:
    """Writes `graph.xml`; on TensorFlow."""
    import keras

    from topwork.backbones.conversion.convert import convert_application

    size_px = max(LARGER_PX.get(name, SIDE_PX), APPLICATIONS[name].smallest_px)
    random = np.random.default_rng(SEED)
    keras.utils.set_random_seed(SEED)
    build = getattr(keras.applications, name)
    preprocess = sys.modules[build.__module__].preprocess_input
    model = build(include_top=False, pooling="avg", weights=None, input_shape=(size_px, size_px, 3))
    stir(model, preprocess(255 * np.concatenate([picture(size_px, random) for _ in range(PICTURES)])), random)
    damp(model)
    weights = Path(folder, "network.weights.h5")
    model.save_weights(weights)
    parameters = model.count_params()
    del model
    keras.backend.clear_session()
    convert_application(name, folder, size_px=size_px, weights=weights)
    weights.unlink()
    return {"size_px": size_px, "parameters": parameters}


def damp(model: Any) -> None:
    """Make what is added to a shortcut small, as it is in trained networks: else rounding grows from block to block.

    Where each of a hundred blocks of random weights weighs as much as all before it, two programs in float32 come
    to numbers that differ in the second digit, and nothing is learnt about either.
    """
    for layer in model.layers:
        if type(layer).__name__ != "Add":
            continue
        for tensor in layer._inbound_nodes[0].input_tensors:
            source = tensor._keras_history.operation
            while type(source).__name__ in ("Dropout", "StochasticDepth"):
                source = source._inbound_nodes[0].input_tensors[0]._keras_history.operation
            if type(source).__name__ == "BatchNormalization" and source.gamma is not None:
                source.gamma.assign(BRANCH * source.gamma)


def check(folder: Path) -> dict[str, Any]:
    """The graph in the folder, by Keras' backend of this process."""
    import openvino as ov

    from topwork.graphs.trainable.layer import GraphLayer

    began = time.perf_counter()
    core = ov.Core()
    graph = core.read_model(folder / "graph.xml")
    random = np.random.default_rng(SEED)
    images: Array = np.concatenate([picture(graph.inputs[0].shape[1], random) for _ in range(2)])
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    wanted: Array = np.concatenate([compiled(image[None])[0] for image in images])
    del compiled
    mixture = random.standard_normal(wanted.shape) / np.linalg.norm(wanted)
    layer = GraphLayer(graph)
    found, single = _slopes(layer, images, mixture)
    weights = sum(int(np.prod(w.shape)) for w in layer.trainable_variables)
    del layer
    layer = GraphLayer(graph, dtype="float64")
    exact, double = _slopes(layer, images.astype(np.float64), mixture)
    off = np.sqrt(sum(_length(s - d) ** 2 for s, d in zip(single, double, strict=True)))
    whole = np.sqrt(sum(_length(d) ** 2 for d in double))
    del single
    along, sideways = _tried(layer, images.astype(np.float64), mixture, double)
    return {
        "weights": weights,
        "relative": _length(found - wanted) / _length(wanted),
        "most": float(np.abs(found - wanted).max()),
        "largest": float(np.abs(wanted).max()),
        "exact": _length(exact - wanted) / _length(wanted),
        "single": float(off / whole),
        "along": along,
        "sideways": sideways,
        "seconds": time.perf_counter() - began,
    }


def _length(x: Array) -> float:
    return float(np.linalg.norm(x.ravel()))


def _slopes(layer: Any, images: Array, mixture: Array) -> tuple[Array, list[Array]]:
    """The features, and the gradient of their mixture for each weight, by the backend's own differentiation."""
    import keras

    backend, weights = keras.backend.backend(), layer.trainable_variables
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            features = layer(images)
            loss = keras.ops.sum(features * keras.ops.cast(mixture, features.dtype))
        slopes = tape.gradient(loss, [w.value for w in weights])
    elif backend == "jax":
        import jax

        def loss_of(values: list[Any]) -> tuple[Any, Any]:
            features, _ = layer.stateless_call(values, [], images)
            return keras.ops.sum(features * keras.ops.cast(mixture, features.dtype)), features

        slopes, features = jax.jit(jax.grad(loss_of, has_aux=True))([w.value for w in weights])
    else:
        features = layer(keras.ops.convert_to_tensor(images))
        keras.ops.sum(features * keras.ops.cast(mixture, features.dtype)).backward()
        slopes = [w.value.grad for w in weights]
    numbers = keras.ops.convert_to_numpy
    return numbers(features), [
        np.zeros(tuple(w.shape)) if s is None else numbers(s) for w, s in zip(weights, slopes, strict=True)
    ]


def _tried(layer: Any, images: Array, mixture: Array, slopes: list[Array]) -> tuple[float, float]:
    """How far central differences are from the gradient, relative: along it, and the worst of random directions."""
    import keras

    weights = layer.trainable_variables
    lengths = [_length(keras.ops.convert_to_numpy(w)) for w in weights]

    features = _forward(layer, images)

    def loss() -> float:
        return float(np.sum(keras.ops.convert_to_numpy(features()) * mixture))

    def move(direction: Callable[[int], Array], step: float) -> None:
        for i, weight in enumerate(weights):
            weight.assign_add(step * direction(i))

    def error(direction: Callable[[int], Array]) -> float:
        expected = sum(float(np.vdot(slope, direction(i))) for i, slope in enumerate(slopes))
        errors = []
        for change in STEPS:
            step = change / abs(expected)
            sides = []
            for side in (step, -2 * step):  # without a copy of the weights: one network has 350 million
                move(direction, side)
                sides.append(loss())
            move(direction, step)
            errors.append(abs((sides[0] - sides[1]) / (2 * change) - np.sign(expected)))
            if errors[-1] <= AGREED:
                break
        return float(min(errors))

    def along(i: int) -> Array:
        return slopes[i] * (lengths[i] / (_length(slopes[i]) or 1.0))

    def sideways(seed: int) -> Callable[[int], Array]:
        def direction(i: int) -> Array:
            drawn = np.random.default_rng([SEED, seed, i]).standard_normal(slopes[i].shape)
            return drawn * (lengths[i] / np.sqrt(drawn.size))

        return direction

    return error(along), max(error(sideways(seed)) for seed in range(RANDOM))


def _forward(layer: Any, images: Array) -> Callable[[], Any]:
    """The features by the weights as they are: no gradient, and compiled where that is the backend's way."""
    import keras

    if keras.backend.backend() == "torch":
        import torch

        return torch.no_grad()(lambda: layer(keras.ops.convert_to_tensor(images)))
    if keras.backend.backend() == "jax":
        import jax

        compiled = jax.jit(lambda values: layer.stateless_call(values, [], images)[0])
        return lambda: compiled([w.value for w in layer.trainable_variables])
    return lambda: layer(images)


def line(row: dict[str, Any]) -> str:
    start = f"| {row['name']} | {row['backend']} | {row.get('size_px', '')} |"
    if "why" in row:
        return f"{start} | | | | | | | | | no: {row['why'].replace('|', ' ')} |"
    worst = max(row[key] for key in ("relative", "along", "sideways"))
    agrees = "yes" if worst <= ALLOWED else f"no: {worst:.1e}"
    errors = " | ".join(f"{row[key]:.1e}" for key in ("exact", "along", "sideways", "single"))
    return (
        f"{start} {row['parameters'] / 1e6:.1f} | {row['relative']:.1e} | {row['most']:.1e} | {row['largest']:.2g} "
        f"| {errors} | {row['seconds']:.0f} | {agrees} |"
    )


def page(rows: list[dict[str, Any]]) -> str:
    from importlib.metadata import version

    good = sum(line(row).endswith("| yes |") for row in rows)
    used = ", ".join(f"{name} {version(name.lower())}" for name in ("Keras", "OpenVINO", "NumPy"))
    tensorflow = next(filter(None, map(installed, ("tensorflow", "tensorflow-cpu"))), "?")
    return "\n".join(
        [
            "# Keras Applications, imported as layers that can be trained",
            "",
            "`python -m benchmarks.parity.import_parity --jax PYTHON --torch PYTHON`",
            "",
            f"{good} of {len(rows)} rows agree within {ALLOWED:.0e}. The networks have no classes, average over the",
            f"image, and have random weights (seed {SEED}); the last batch norm of a residual branch is scaled by",
            f"{BRANCH}. Two images each.",
            "",
            COLUMNS.format(step=f"{STEPS[0]:.0e}"),
            f"{used}, TensorFlow {tensorflow}.",
            "",
            "| network | backend | px | parameters | relative | largest difference | largest feature | rounding "
            "| along | sideways | single | seconds | agrees |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
            *map(line, rows),
            "",
        ]
    )


if __name__ == "__main__":
    main()
