"""What a person waits for before anything happens: `--help`, the import, one cold prediction.

python -m benchmarks.speed.startup RUN PHOTO [--repeats 10]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.options import shared_options


def main() -> None:
    parser = shared_options(__doc__, repeats=10)
    parser.add_argument("run", help="folder of a run")
    parser.add_argument("photo", help="the photo to predict")
    options = parser.parse_args()
    topwork = [sys.executable, "-m", "topwork"]
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import topwork": [sys.executable, "-c", "import topwork"],
        "topwork --help": [*topwork, "--help"],
        "topwork predict RUN PHOTO": [*topwork, "predict", options.run, options.photo],
    }
    print(f"whole processes, {options.repeats} repeats after one to warm up: median (least to most)")
    for name, command in commands.items():
        with tempfile.TemporaryDirectory() as cache:
            times = [seconds(command, cache) for _ in range(options.repeats + 1)][1:]
        print(f"{name:28} {statistics.median(times):.3f} s ({min(times):.3f} to {max(times):.3f})")


def seconds(command: list[str], cache: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "TOPWORK_CACHE": cache})
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
