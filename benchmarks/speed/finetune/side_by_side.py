"""`topwork train --finetune tail` beside fine-tuning end to end in plain PyTorch and plain Keras, in one run.

    python -m benchmarks.speed.finetune.side_by_side --torch PYTHON [--data textures] [--minutes 2] [--epochs 8]
        [--repeats 1] [--rate 5e-4] [--precision float32] [--norms moving] [--rows ROWS.jsonl]

All three get the same pictures (a dataset of benchmarks/data/packaged.py), 224 px, EfficientNet-Lite0, mirrored as
--flips says, and the same test part. Each is a process of its own, timed from its start to its end: imports,
decoding, and for Topwork the frozen classifier, too. They take turns. The accuracies are compared on the same test
images, by a paired bootstrap. --precision bfloat16 pays for PyTorch only where the processor has it; elsewhere it is
emulated. --minutes and --cut are Topwork's, --epochs and --rate those of the two peers. The Python that runs this has
Topwork with TensorFlow; --torch: one with PyTorch (CPU) and the weights.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.packaged import write_dataset
from benchmarks.options import WORK, shared_options
from topwork.evaluation.significance import paired_bootstrap

PROGRAMS = ("topwork", "torch", "keras")
VALIDATION, SIZE_PX = 0.15, 224
Array = np.ndarray[Any, Any]
Row = dict[str, Any]


def main() -> None:
    parser = shared_options(
        __doc__,
        work=WORK,
        minutes=2.0,
        cut=None,
        epochs=8,
        rate=5e-4,
        flips="horizontal",
        repeats=1,
        only=list(PROGRAMS),
        rows=None,
    )
    parser.add_argument("--torch", required=True, help="the Python that has PyTorch")
    parser.add_argument("--data", default="textures")
    parser.add_argument("--tail-epochs", type=int, default=15)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="PyTorch's")
    parser.add_argument("--norms", choices=("moving", "fixed"), default="moving", help="Keras' statistics")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        manifest = parts(write_dataset(options.data, options.work), Path(folder))
        for repeat in range(options.repeats):
            for name in options.only:
                row = {"repeat": repeat, "who": name, **run(name, manifest, Path(folder), options)}
                rows.append(row)
                print(f"{name}: {row['seconds']:.0f} s, test {100 * row['accuracy']:.2f} %", flush=True)
                if options.rows:
                    with options.rows.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
    print(table(rows))


def parts(manifest: Path, folder: Path) -> Path:
    """The manifest again, some of its training images set aside for validation: the same for all."""
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    train = [row for row in rows if row["split"] == "train"]
    for i in np.random.default_rng(0).permutation(len(train))[: round(VALIDATION * len(train))]:
        train[i]["split"] = "validation"
    path = folder / "manifest.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "split"], extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "path": str((manifest.parent / row["path"]).resolve())})
    return path


def run(name: str, manifest: Path, folder: Path, options: argparse.Namespace) -> Row:
    """Seconds of the whole process, and the test images' labels and probabilities by path."""
    common = ["--epochs", str(options.epochs), "--rate", str(options.rate), "--flips", options.flips]
    commands = {
        "torch": [
            options.torch,
            "-m",
            "benchmarks.speed.finetune.peer_torch",
            str(manifest),
            *common,
            "--precision",
            options.precision,
        ],
        "keras": [
            sys.executable,
            "-m",
            "benchmarks.speed.finetune.peer_keras",
            str(manifest),
            *common,
            "--norms",
            options.norms,
        ],
    }
    began = time.perf_counter()
    if name != "topwork":
        done = subprocess.run(commands[name], stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.perf_counter() - began
        told = json.loads(done.stdout.splitlines()[-1])
        test = {
            r["path"]: (told["classes"].index(r["label"]), int(np.argmax(r["probabilities"])))
            for r in told["test"]
        }
        more = {"images_per_second": told["images_per_second"], "epochs": told["epochs"]}
        return {"seconds": seconds, **scored(test), **more}
    out = folder / f"run{time.time_ns()}"
    recipe = folder / "recipe.toml"
    lines = [
        "[finetune]", f"epochs = {options.tail_epochs}", f"views = {2 if options.flips == 'horizontal' else 4}",
        *([f'cut = "{options.cut}"'] if options.cut else []),
        "[finetune.augment]", f'flips = "{options.flips}"',
    ]  # fmt: skip
    recipe.write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "topwork", "train", str(manifest), "--out", str(out), "--recipe", str(recipe),
               "--finetune", "tail", "--minutes", str(options.minutes)]  # fmt: skip
    environment = {
        **os.environ,
        "TOPWORK_CACHE": str(folder / f"cache{time.time_ns()}"),
    }  # nothing is known yet
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {"seconds": seconds, **scored(predicted(out, manifest)), "finetune": report["finetune"]}


def predicted(out: Path, manifest: Path) -> dict[str, tuple[int, int]]:
    from topwork import Classifier

    with manifest.open(encoding="utf-8", newline="") as file:
        test = {row["path"]: row["label"] for row in csv.DictReader(file) if row["split"] == "test"}
    classifier = Classifier.load(out)
    told = classifier.predict(list(test))
    return {
        path: (classifier.classes.index(label), int(np.argmax(p.probabilities)))
        for (path, label), p in zip(test.items(), told, strict=True)
        if p.probabilities is not None
    }


def scored(test: dict[str, tuple[int, int]]) -> Row:
    right = {path: label == guess for path, (label, guess) in test.items()}
    return {"accuracy": float(np.mean(list(right.values()))), "right": right}


def table(rows: list[Row]) -> str:
    lines = [
        "| who | seconds | test accuracy, % | its seconds over Topwork's | Topwork's accuracy less its (95 %) |",
        "|---|---|---|---|---|",
    ]
    ours = [row for row in rows if row["who"] == "topwork"]
    for name in dict.fromkeys(row["who"] for row in rows):
        mine = [row for row in rows if row["who"] == name]
        seconds = ", ".join(f"{row['seconds']:.0f}" for row in mine)
        accuracy = ", ".join(f"{100 * row['accuracy']:.2f}" for row in mine)
        ratio = gap = ""
        if name != "topwork" and ours:
            pairs = list(zip(ours, mine, strict=False))
            ratio = ", ".join(f"{theirs['seconds'] / our['seconds']:.2f}" for our, theirs in pairs)
            gap = "; ".join(compared(our["right"], theirs["right"]) for our, theirs in pairs)
        lines.append(f"| {name} | {seconds} | {accuracy} | {ratio} | {gap} |")
    return "\n".join(lines)


def compared(ours: dict[str, bool], theirs: dict[str, bool]) -> str:
    paths = sorted(ours)
    a, b = (np.array([right[path] for path in paths]) for right in (ours, theirs))
    low, high = paired_bootstrap(b, a)
    return f"{100 * (a.mean() - b.mean()):+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"


if __name__ == "__main__":
    main()
