"""Every figure of the README, measured in one run and written to docs/benchmarks.md and README.md: `make bench`.

    python -m benchmarks.figures [--quick] [--dry]

Measured: what a person waits for before anything happens (`--help`, one photo predicted by a fresh process); the
main job on the 2,624 solar cells of elpv-dataset, with nothing stored and with all stored, beside the textbook
program, a good program in PyTorch and scikit-learn (see benchmarks/speed/textbook) and the floor (decoding and
inferring alone); the size of an environment that has the core alone. `--quick` leaves the other programs and the
environment out, runs the rest once and prints only, in under five minutes; so does `--dry` after the whole.
Environments are made where they are missing: benchmarks/.venv-classic, .venv-torch and .venv-core.
"""

from __future__ import annotations

import datetime
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data.elpv import FOLDER, write_elpv
from benchmarks.options import ROOT, WORK, shared_options
from benchmarks.speed.floor import SUM, floor
from benchmarks.speed.textbook.compare import (
    CLASSIC,
    COLD,
    STORED,
    Row,
    describe_machine,
    run_classic,
    run_topwork,
)
from benchmarks.speed.textbook.environment import make_environment
from benchmarks.speed.textbook.module import check_module, make_module
from benchmarks.speed.textbook.peer import PEER, check_peer, make_peer_environment, run_peer
from topwork.evaluation.significance import wilson

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
HELP, PHOTO, SIZE = (
    "`topwork --help`",
    "`topwork predict`, one photo, a fresh process",
    "the core's environment",
)
FLOOR = "the floor: decoding, inferring and importing alone"
NAMES = {
    CLASSIC: "textbook program",
    PEER: "PyTorch and scikit-learn",
    COLD: "`topwork train`, nothing stored",
    STORED: "`topwork train`, features stored",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table."""

    what: str
    median: float
    least: float
    most: float
    runs: int
    unit: str
    note: str = ""

    def __str__(self) -> str:
        digits = 2 if self.unit == "s" and self.median < 2 else 0 if self.unit == "MB" else 1
        shown = f"{self.median:.{digits}f} {self.unit}"
        spread = (
            f"{self.least:.{digits}f} to {self.most:.{digits}f}, {self.runs} runs"
            if self.runs > 1
            else "1 run"
        )
        return f"| {self.what} | {shown} | {spread} | {self.note} |"


def figure(what: str, values: Iterable[float], unit: str = "s", note: str = "") -> Figure:
    values = list(values)
    return Figure(what, statistics.median(values), min(values), max(values), len(values), unit, note)


def seconds(command: list[str | Path], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - began


def start_up(run: Path, photo: Path, repeats: int) -> list[Figure]:
    """Whole processes, after one to warm up; the prediction with an empty cache."""
    topwork = [sys.executable, "-m", "topwork"]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "TOPWORK_CACHE": cache}
        return [
            figure(name, [seconds([*topwork, *command], environment) for _ in range(repeats + 1)][1:])
            for name, command in ((HELP, ["--help"]), (PHOTO, ["predict", run, photo]))
        ]


def main_job(repeats: int, *, classic: bool, keep: Path) -> list[Row]:
    """The textbook program once, where asked for; then `topwork train`, cold and stored, and the peer, in turn."""
    manifest = write_elpv(WORK, seed=0)
    rows: list[Row] = []
    for image in (WORK / FOLDER).rglob("*.jpg"):
        image.read_bytes()  # so that no program waits for the disk
    if classic:
        python = make_environment()
        module = make_module(WORK, python)
        check_module(module, manifest, python)
        rows.append(run_classic(python, manifest, module, keep / "tensorboard", epochs=10, seed=0))
        print(f"{CLASSIC}: {rows[-1]['wall_s']:.1f} s", flush=True)
        peer = make_peer_environment()
        check_peer(peer, manifest)
    for repeat in range(repeats):
        if classic:
            rows.append(run_peer(peer, manifest))
            print(f"{PEER}: {rows[-1]['wall_s']:.1f} s {rows[-1]['seconds']}", flush=True)
        for way in (COLD, STORED):
            out = keep / f"{way.split()[-1]}-{repeat}"
            rows.append(run_topwork(way, manifest, out, keep / f"cache-{repeat}"))
            print(f"{way}: {rows[-1]['wall_s']:.1f} s {rows[-1]['seconds']}", flush=True)
    return rows


def job_figures(rows: list[Row]) -> list[Figure]:
    found = []
    for way, name in NAMES.items():
        mine = [row for row in rows if row["way"] == way]
        if not mine:
            continue
        accuracy, n = statistics.median(row["test"]["accuracy"] for row in mine), mine[0]["test"]["n"]
        low, high = wilson(accuracy * n, n)
        tested = f"test {accuracy:.1%} ({low:.1%} to {high:.1%} of {n})"
        parts = sorted(mine[0].get("seconds", {}).items(), key=lambda part: -part[1])
        phases = ", ".join(f"{name} {took:.1f}" for name, took in parts if name != "total" and took >= 0.5)
        found.append(figure(name, (row["wall_s"] for row in mine), note=f"{tested}; {phases}".rstrip("; ")))
    return found


def floor_figure(repeats: int) -> Figure:
    parts = floor(write_elpv(WORK, seed=0), repeats)
    total = parts.pop(SUM)
    note = ", ".join(f"{name} {statistics.median(took):.1f}" for name, took in parts.items())
    return figure(FLOOR, total, note=note)


def core_size() -> Figure:
    """What `pip install .` brings, with the interpreter's own environment: MB on disk."""
    folder = ROOT / "benchmarks" / ".venv-core"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", ROOT], check=True)
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
    return figure(SIZE, [size / 1e6], "MB", "`pip install .`")


def instructions() -> str:
    """What the processor has of the instructions that networks run faster with."""
    path = Path("/proc/cpuinfo")
    flags = path.read_text(encoding="utf-8") if path.exists() else ""
    has = [name for name, flag in (("AVX-512", "avx512f"), ("bf16", "avx512_bf16")) if flag in flags]
    return ", ".join(has) or "neither AVX-512 nor bf16"


def table(figures: list[Figure], quick: bool) -> str:
    facts = describe_machine()
    commit = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    machine = f"{facts['cores']} cores of {facts['processor']} ({instructions()})"
    by = {one.what: one for one in figures}
    lines = [
        f"`python -m benchmarks.figures{' --quick' if quick else ''}`, {datetime.date.today()}, commit {commit}, "
        f"{machine}, Python {facts['python']},",
        f"OpenVINO {facts['openvino']}, NumPy {facts['numpy']}. Seed 0; medians.",
        "",
        "| what | figure | spread | notes |",
        "|---|---|---|---|",
        *map(str, figures),
    ]
    cold, stored = NAMES[COLD], NAMES[STORED]
    for over, under, goal in (
        (NAMES[CLASSIC], cold, "20 or more"),
        (NAMES[CLASSIC], stored, "100 or more"),
        (NAMES[PEER], cold, "3 or more"),
        (cold, FLOOR, "1.35 or less"),
        (cold, stored, "5 or more"),
    ):
        if over in by and under in by:
            ratio = by[over].median / by[under].median
            lines.append(f"| {over} / {under} | {ratio:.2f} times | | goal {goal} |")
    return "\n".join(lines)


def whole(one: Figure) -> str:
    """As the table has it, without its decimal: rounded once from what stands there, not from what was measured."""
    return f"{round(one.median, 1):.0f}"


def sentence(figures: list[Figure]) -> str:
    """What the README says of it."""
    by = {one.what: one for one in figures}
    textbook, cold, stored = (by[NAMES[way]] for way in (CLASSIC, COLD, STORED))
    tested = re.match(r"test ([\d.]+)%", cold.note)
    return (
        f"On two cores of a server CPU ({instructions()}), without a GPU, the textbook program (a frozen\n"
        f"`hub.KerasLayer`, Dense 512, ten epochs) takes {whole(textbook)} s on 2,624 photos. "
        f"`topwork train` takes {whole(cold)} s the first\ntime and {whole(stored)} s after that, and classifies "
        f"{tested[1] if tested else '?'} % of the test photos correctly "
        "([how this was measured](docs/benchmarks.md))."
    )


def put(path: Path, text: str) -> None:
    """Replace what stands between the two marks."""
    whole = path.read_text(encoding="utf-8")
    before, rest = whole.split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main() -> None:
    parser = shared_options(__doc__, quick=False)
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    repeats = 1 if options.quick else 3
    with tempfile.TemporaryDirectory(dir=WORK) as temporary:
        keep = Path(temporary)
        rows = main_job(repeats, classic=not options.quick, keep=keep)
        photo = next((WORK / FOLDER).rglob("*.jpg"))
        figures = [*start_up(keep / "cold-0", photo, 5), *job_figures(rows), floor_figure(repeats)]
    if not options.quick:
        figures.append(core_size())
    print(f"\n{table(figures, options.quick)}")
    if not (options.quick or options.dry):
        put(ROOT / "docs" / "benchmarks.md", table(figures, False))
        put(ROOT / "README.md", sentence(figures))


if __name__ == "__main__":
    main()
