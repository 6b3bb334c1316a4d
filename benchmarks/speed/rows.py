"""The head of up to a million images: time and peak memory on feature rows that are made without pictures.

    python -m benchmarks.speed.rows [--rows 100000 1000000] [--width 1280] [--classes 20]

Rows are drawn when they are read, from a seed of their own: noise, and a class's centre in a part of the features.
They are not held anywhere but where the head keeps them, so the peak is the head's own: a process for each number of
rows, five folds, the default path of strengths. It fails where the peak is over 2 GB.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np

from benchmarks.options import ROOT, shared_options

LIMIT_MB, BLOCK = 2048, 512
PROGRAM = """
import json, resource, sys, time
import numpy as np
from benchmarks.speed.rows import Drawn
from topwork.heads.linear import fit_linear
rows, width, classes = map(int, sys.argv[1:])
targets = np.random.default_rng(1).integers(0, classes, rows)
began = time.perf_counter()
fit = fit_linear(Drawn(targets, width, classes), targets, class_count=classes, folds=np.arange(rows) % 5)
print(json.dumps({"s": time.perf_counter() - began, "held_out": fit.held_out_accuracy, "strength": fit.strength,
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


class Drawn:
    """Rows as `topwork.heads.design.Rows`: (N, D), each the same whenever it is read."""

    def __init__(self, targets: np.ndarray, width: int, classes: int) -> None:
        self._targets, self._width = targets, width
        centres = np.random.default_rng(2).standard_normal((classes, width), dtype=np.float32)
        centres[:, width // 8 :] = 0
        self._centres = centres * np.float32(3 / np.sqrt(width // 8))

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, rows: Any) -> np.ndarray:
        numbers = np.arange(len(self))[rows]
        out = np.empty((len(numbers), self._width), np.float32)
        for block in np.unique(numbers // BLOCK).tolist():
            inside = numbers // BLOCK == block
            drawn = np.random.default_rng(block).standard_normal((BLOCK, self._width), dtype=np.float32)
            out[inside] = drawn[numbers[inside] % BLOCK]
        return out + self._centres[self._targets[numbers]]


def main() -> None:
    parser = shared_options(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--width", type=int, default=1280, help="numbers in a row")
    parser.add_argument("--classes", type=int, nargs="+", default=[20])
    options = parser.parse_args()
    print("| rows | width | classes | head, s | held-out accuracy | peak, MB |\n|---|---|---|---|---|---|")
    over = False
    for classes in options.classes:
        for rows in options.rows:
            command = [sys.executable, "-c", PROGRAM, str(rows), str(options.width), str(classes)]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout)
            accuracy = f"{100 * found['held_out']:.2f} %"
            print(
                f"| {rows:,} | {options.width:,} | {classes} | {found['s']:.0f} | {accuracy} | {found['peak']:.0f} |",
                flush=True,
            )
            over |= found["peak"] > LIMIT_MB
    sys.exit(over)


if __name__ == "__main__":
    main()
