"""Whether a prediction in bulk stands kills: every image once in the CSV, and what it costs in time and memory.

    python -m benchmarks.hostile.predict_bulk RUN [--images 100000] [--kills 5] [--seed 0] [--work FOLDER]

Makes small JPEG pictures that all differ, in folders of 10,000, and ten files that are none. Runs `topwork predict
RUN PICTURES --csv out.csv`, kills it with SIGKILL at random moments and starts it again, until it ends by itself;
then compares the file with one that was made at once. The pictures stay in FOLDER for another time.
"""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.options import WORK, shared_options

SIDE_PX, BLOCKS, IN_A_FOLDER, BROKEN = 48, 6, 10_000, 10


# The command, with every row counted in a file that outlives the process.
COUNTED = """
import mmap, struct, sys
from topwork.jobs import predictions_csv
file = open(sys.argv.pop(1), "r+b")
counter = mmap.mmap(file.fileno(), 8)
add = predictions_csv.Rows.add
def counted(*given, **named):
    add(*given, **named)
    counter[:] = struct.pack("<q", struct.unpack("<q", counter[:])[0] + 1)
predictions_csv.Rows.add = counted
from topwork.cli.main import main
main()
"""


def main() -> None:
    parser = shared_options(__doc__, images=100_000, seed=0, work=WORK)
    parser.add_argument("run", type=Path, help="folder of a run; one at 32 px ends soon")
    parser.add_argument("--kills", type=int, default=5, help="times that the command is killed")
    options = parser.parse_args()

    pictures = make(options.work / f"pictures-{options.images}", options.images)
    whole, killed = options.work / "whole.csv", options.work / "killed.csv"
    n = options.images + BROKEN
    seconds, rss_mb, _, _ = predict(options.run, pictures, whole)
    print(
        f"at once: {n:,} images in {seconds:.1f} s, {n / seconds:.0f} img/s, {rss_mb:.0f} MB at most",
        flush=True,
    )

    choose = random.Random(options.seed)
    spent, computed, there = 0.0, 0, 0
    for attempt in range(options.kills + 1):
        # So that the kills lie anywhere in what is left, and leave something to the next.
        left_s = seconds * (n - there) / n
        last = attempt == options.kills
        after_s = None if last else 1 + choose.random() * 2 * left_s / (options.kills - attempt + 1)
        took, rss_mb, rows, ended = predict(
            options.run, pictures, killed, new=not attempt, kill_after_s=after_s
        )
        spent, computed, there = spent + took, computed + rows, rows_in(killed)
        how = "ended" if ended else "killed"
        print(f"  {how} after {took:.1f} s: {there:,} whole rows, {rss_mb:.0f} MB at most", flush=True)
        if ended:
            break
    counts = names_in(killed)
    expected = {str(path) for path in pictures.rglob("*.jpg")}
    exact = set(counts) == expected and set(counts.values()) == {1}
    print(f"with {attempt} kills: {spent:.1f} s in all, {computed - n:,} rows computed again")
    print(
        f"every image once: {exact}; the same bytes as at once: {killed.read_bytes() == whole.read_bytes()}"
    )
    sys.exit(not exact)


def predict(
    run: Path, pictures: Path, out: Path, *, new: bool = True, kill_after_s: float | None = None
) -> tuple[float, float, int, bool]:
    """Run the command, for so long at most: seconds, most memory in MB, rows made, whether it ended by itself."""
    counter = out.with_suffix(".rows")
    counter.write_bytes(bytes(8))
    command = [sys.executable, "-c", COUNTED, str(counter), "predict", str(run), str(pictures)]
    options = ["--csv", str(out), *(["--overwrite"] if new else [])]
    began = time.perf_counter()
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    killer = threading.Timer(kill_after_s or 0, os.kill, (process.pid, signal.SIGKILL))
    if kill_after_s is not None:
        killer.start()
    _, status, usage = os.wait4(process.pid, 0)
    killer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"topwork predict ended with {process.returncode}")
    rows = int.from_bytes(counter.read_bytes(), "little")
    return time.perf_counter() - began, usage.ru_maxrss / 1024, rows, process.returncode == 0


def make(root: Path, count: int) -> Path:
    """`count` pictures of coloured blocks, no two alike, and some files that are no pictures."""
    for number in range(count):
        path = root / f"{number // IN_A_FOLDER:03}" / f"{number:07}.jpg"
        if number % IN_A_FOLDER == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            blocks = np.random.default_rng(number).integers(0, 256, (BLOCKS, BLOCKS, 3), np.uint8)
            image = Image.fromarray(blocks).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)
            image.save(path, quality=85)
    for number in range(BROKEN):
        (root / "000" / f"broken-{number}.jpg").write_bytes(b"no picture")
    return root


def names_in(path: Path) -> Counter[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return Counter(row["image"] for row in csv.DictReader(file))


def rows_in(path: Path) -> int:
    """Whole rows, the first apart: these names hold no line ends."""
    return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0


if __name__ == "__main__":
    main()
