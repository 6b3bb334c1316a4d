"""How long Topwork takes, against the classic program, to train on the same images; and how good both are.

    python -m benchmarks.speed.textbook.compare [--repeats 3] [--classic-repeats N] [--seed 0] [--json FILE]

Data: the 2,624 solar cells of elpv-dataset as JPEG files (benchmarks/data/elpv.py), the first --images of them for a
quick trial; one manifest gives both programs the same train, validation and test images. Module: EfficientNet-Lite0
with the same published weights for both; its features are compared first, and that also brings both programs' files
into memory. --epochs are those of the classic program, --seed that of the split and of its first weights. The classic
program (program.py) starts from other random weights in each repeat; Topwork has nothing random.

A repeat runs, in turn: the classic program; `topwork train` with an empty feature store; the same again with the
features stored. Each is a process of its own; its time is the clock's, from its start to its end. Ratios are taken
within a repeat, so that a busy machine slows all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.data.elpv import FOLDER, write_elpv
from benchmarks.options import WORK, shared_options
from benchmarks.speed.textbook.environment import make_environment, run
from benchmarks.speed.textbook.module import check_module, make_module
from topwork.evaluation.significance import wilson
from topwork.parallel import core_count

PROGRAM = Path(__file__).with_name("program.py")
CLASSIC, COLD, STORED = "classic", "topwork, cold", "topwork, stored"
Row = dict[str, Any]  # one process: way, wall_s, test {n, accuracy}, seconds {…}, repeat


def run_classic(python: Path, manifest: Path, module: Path, logs: Path, *, epochs: int, seed: int) -> Row:
    options = ["--logs", logs, "--epochs", str(epochs), "--seed", str(seed)]
    start = time.perf_counter()
    printed = run([python, PROGRAM, manifest, module, *options])
    return {"way": CLASSIC, "wall_s": time.perf_counter() - start} | json.loads(printed.splitlines()[-1])


def run_topwork(way: str, manifest: Path, out: Path, cache: Path) -> Row:
    command = [sys.executable, "-m", "topwork", "train", manifest, "--out", out, "--json"]
    start = time.perf_counter()
    printed = run(command, os.environ | {"TOPWORK_CACHE": str(cache)})
    wall = time.perf_counter() - start
    told = json.loads(printed)
    test = {name: told["test"][name] for name in ("n", "accuracy")}
    return {"way": way, "wall_s": wall, "test": test, "seconds": told["seconds"]}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    WORK.mkdir(exist_ok=True)
    python = make_environment()
    manifest = write_elpv(WORK, seed=options.seed, limit=options.images)
    module = make_module(WORK, python)
    parity = check_module(module, manifest, python)
    away = parity["largest_difference"]
    print(f"the module's features differ from Topwork's by {away:.1e} at most", flush=True)
    for image in (WORK / FOLDER).rglob("*.jpg"):
        image.read_bytes()  # so that no program waits for the disk

    runs: list[Row] = []
    with tempfile.TemporaryDirectory(dir=WORK) as temporary:
        for repeat in range(options.repeats):
            folder = Path(temporary) / str(repeat)
            rows = []
            if repeat < options.classic_repeats:
                logs, seed = folder / "tensorboard", options.seed + repeat
                rows.append(run_classic(python, manifest, module, logs, epochs=options.epochs, seed=seed))
            rows.append(run_topwork(COLD, manifest, folder / "cold", folder / "cache"))
            rows.append(run_topwork(STORED, manifest, folder / "stored", folder / "cache"))
            took = ", ".join(f"{row['way']} {row['wall_s']:.1f} s" for row in rows)
            print(f"repeat {repeat + 1} of {options.repeats}: {took}", flush=True)
            runs += [row | {"repeat": repeat} for row in rows]
    if len(sizes := {row["test"]["n"] for row in runs}) != 1:
        raise RuntimeError(
            f"expected all programs to be tested on the same images; got {sorted(sizes)} images"
        )
    return {
        "settings": {name: value for name, value in vars(options).items() if name != "json"},
        "machine": describe_machine(),
        "parity": parity,
        "runs": runs,
        "ways": [summarise(way, runs) for way in (CLASSIC, COLD, STORED)],
        "ratios": {f"{CLASSIC} / {way}": ratio(way, runs) for way in (COLD, STORED)},
    }


def describe_machine() -> dict[str, Any]:
    packages = ("topwork", "openvino", "numpy", "pillow")
    return {
        "system": platform.system(),
        "processor": processor_name(),
        "cores": core_count(),
        "python": platform.python_version(),
    } | {name: version(name) for name in packages}


def processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def spread(values: Iterable[float]) -> dict[str, float]:
    values = list(values)
    return {
        "least": min(values),
        "median": statistics.median(values),
        "most": max(values),
        "count": len(values),
    }


def summarise(way: str, runs: list[Row]) -> dict[str, Any]:
    rows = [row for row in runs if row["way"] == way]
    accuracy = spread(row["test"]["accuracy"] for row in rows)
    n = rows[0]["test"]["n"]
    return {
        "way": way,
        "seconds": spread(row["wall_s"] for row in rows),
        "accuracy": accuracy,
        "interval": list(wilson(accuracy["median"] * n, n)),
        "n": n,
    }


def ratio(way: str, runs: list[Row]) -> dict[str, float]:
    seconds = {(row["way"], row["repeat"]): row["wall_s"] for row in runs}
    repeats = sorted(repeat for name, repeat in seconds if name == CLASSIC)
    return spread(seconds[CLASSIC, repeat] / seconds[way, repeat] for repeat in repeats)


def print_table(result: dict[str, Any]) -> None:
    n = result["ways"][0]["n"]
    print(f"\n{'seconds':16} {'least':>7} {'median':>7} {'most':>7} {'runs':>5}  ", end="")
    print(f"test accuracy on {n} images (95 % interval; least..most)")
    for row in result["ways"]:
        s, a, (low, high) = row["seconds"], row["accuracy"], row["interval"]
        print(
            f"{row['way']:16} {s['least']:7.1f} {s['median']:7.1f} {s['most']:7.1f} {s['count']:5} ",
            f"{a['median']:.1%} ({low:.1%} to {high:.1%}; {a['least']:.1%}..{a['most']:.1%})",
        )
    for name, s in result["ratios"].items():
        print(f"{name}: {s['median']:.1f} ({s['least']:.1f}..{s['most']:.1f}, {s['count']} repeats)")


def main() -> None:
    parser = shared_options(__doc__, repeats=3, seed=0, epochs=10, images=None, json=None)
    parser.add_argument(
        "--classic-repeats", type=int, help="run the slow classic program in the first N repeats only (all)"
    )
    options = parser.parse_args()
    if options.classic_repeats is None:
        options.classic_repeats = options.repeats
    if not 1 <= options.classic_repeats <= options.repeats:
        parser.error(
            f"--classic-repeats must be 1 to --repeats ({options.repeats}); got {options.classic_repeats}"
        )
    result = measure(options)
    print_table(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
