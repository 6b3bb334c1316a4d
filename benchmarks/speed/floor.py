"""The floor of the main job: what `topwork train` can't do without on the solar cells, each part measured alone.

    python -m benchmarks.speed.floor [--images N] [--seed 0] [--repeats 3]

Each repeat measures, in turn: decoding all photos to the network's size, on all cores; taking pixels that were
decoded before through the network, compiled already, on all cores; and a fresh interpreter that imports what a
training needs. The floor is their sum within a repeat: nothing of them overlaps, and all else costs nothing.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.data.elpv import write_elpv
from benchmarks.options import WORK, shared_options
from benchmarks.speed.extraction import drain, seconds
from benchmarks.speed.textbook.environment import run
from topwork.backbones.backbone import load_backbone
from topwork.backbones.engine import Engine
from topwork.data.dataset import Example
from topwork.data.sources import load
from topwork.images.decode import decode
from topwork.parallel import core_count, stream

DECODE, INFER, IMPORT, SUM = "decoding alone", "inferring alone", "importing", "the floor"
IMPORTS = "import topwork.jobs.train, openvino"
HANDLE = "efficientnet-lite0"


def floor(manifest: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds of each part and of their sum, one for each repeat."""
    backbone, workers = load_backbone(HANDLE), core_count()
    photos, engine = load(manifest), Engine(backbone, workers=workers)

    def decoded(photo: Example) -> object:
        return decode(photo.image.read(), backbone.facts.size_px)

    pixels = list(stream(decoded, photos, workers=workers))  # and no repeat waits for the disk
    engine(pixels[0])  # compiled before the clock starts
    with tempfile.TemporaryDirectory() as cache:
        command, environment = [sys.executable, "-c", IMPORTS], {**os.environ, "TOPWORK_CACHE": cache}
        run(command, environment)
        parts = {
            DECODE: lambda: drain(stream(decoded, photos, workers=workers)),
            INFER: lambda: drain(stream(engine, pixels, workers=workers)),
            IMPORT: lambda: run(command, environment),
        }
        rows = [{name: seconds(work) for name, work in parts.items()} for _ in range(repeats)]
    return {name: [row[name] for row in rows] for name in parts} | {SUM: [sum(row.values()) for row in rows]}


def main() -> None:
    options = shared_options(__doc__, images=None, seed=0, repeats=3).parse_args()
    WORK.mkdir(exist_ok=True)
    manifest = write_elpv(WORK, seed=options.seed, limit=options.images)
    found = floor(manifest, options.repeats)
    facts, n = load_backbone(HANDLE).facts, len(load(manifest))
    print(f"{n} photos, {facts}, {core_count()} cores, {options.repeats} repeats: median (least to most)")
    for name, took in found.items():
        print(f"{name:16} {statistics.median(took):6.2f} s ({min(took):.2f} to {max(took):.2f})")


if __name__ == "__main__":
    main()
