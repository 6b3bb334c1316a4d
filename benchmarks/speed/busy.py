"""What `topwork train` takes beside other programs: no phase may slow down by more than its share of the processor.

    python -m benchmarks.speed.busy [--images 500] [--repeats 3] [--work FOLDER]

Photos and network are those of growth.py, at 64 px in f32. The features are stored beforehand, so that what is
measured is everything else. Each training runs in a process of its own; in each repeat, first alone, then beside two
programs that do nothing but compute, pinned nowhere. On two cores a fair share is then a half: twice the time.

The program fails if a phase that takes more than 0.5 s beside them is slower than three times. The slowdown is taken
within a repeat; medians of the repeats are printed and judged.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.options import WORK, shared_options
from benchmarks.speed.growth import PROGRAM, write_photos
from benchmarks.speed.textbook.environment import run

CLASSES, LOOPS = 20, 2
SLOWER, NOTABLE_S = 3.0, 0.5
LOOP = """
import os
parent = os.getppid()
while os.getppid() == parent:  # ends by itself, should this program be killed
    for _ in range(100_000):
        pass
"""
Seconds = dict[str, float]  # by phase


@contextmanager
def busy_loops() -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(LOOPS)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def trained(photos: Path, cache: Path) -> Seconds:
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-c", PROGRAM, photos, f"{place}/run"]
        printed = run(command, os.environ | {"TOPWORK_CACHE": str(cache)})
    return json.loads(printed.splitlines()[-1])["seconds"]


def measure(photos: Path, repeats: int) -> list[tuple[Seconds, Seconds]]:
    """Of each repeat: alone, and beside the busy loops."""
    pairs = []
    with tempfile.TemporaryDirectory() as cache:
        trained(photos, Path(cache))  # stores the features
        for _ in range(repeats):
            alone = trained(photos, Path(cache))
            with busy_loops():
                pairs.append((alone, trained(photos, Path(cache))))
    return pairs


def main() -> None:
    options = shared_options(__doc__, images=500, repeats=3, work=WORK).parse_args()
    pairs = measure(write_photos(options.work, options.images, CLASSES), options.repeats)
    print("| phase | alone, s | beside two busy loops, s | times slower |")
    print("|---" * 4 + "|")
    faults = []
    for phase in pairs[0][0]:
        alone, beside = (statistics.median(pair[i][phase] for pair in pairs) for i in (0, 1))
        slower = statistics.median(pair[1][phase] / max(pair[0][phase], 0.001) for pair in pairs)
        print(f"| {phase} | {alone:.2f} | {beside:.2f} | {slower:.1f} |")
        if beside > NOTABLE_S and slower > SLOWER:
            faults.append(f"{phase}: {slower:.1f} times slower beside {LOOPS} busy loops")
    print("\n" + ("\n".join(faults) or "no phase slower than its share allows"))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
