"""The floor of the main job: what `topwork train` can't do without on the solar cells, each part measured alone.

    python -m benchmarks.speed.floor [--images N] [--seed 0] [--repeats 3] [--run RUN]

Each repeat measures, in turn: decoding all photos to the network's size, on all cores; taking pixels that were
decoded before through the network, compiled already, on all cores; and a fresh interpreter that imports what a
training needs. The floor is their sum within a repeat: nothing of them overlaps, and all else costs nothing.

With `--run`, a folder that `topwork train` wrote: how fast it predicts these photos from their files, as a share of
the engine's own rate, decoding included; both in turn.
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
from topwork.classifiers.classifier import Classifier
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


def predicting(run_folder: Path, manifest: Path, repeats: int) -> list[float]:
    """The engine's seconds over the classifier's, for the manifest's photos."""
    classifier, photos = Classifier.load(run_folder), load(manifest)
    facts, engine = classifier.backbone.facts, Engine(classifier.backbone)

    def features(photo: Example) -> object:
        return engine(decode(photo.image.read(), facts.size_px, fit=facts.fit))

    drain(stream(features, photos.take(8), workers=engine.workers))  # compiled before the clock starts
    shares = []
    for _ in range(repeats):
        alone = seconds(lambda: drain(stream(features, photos, workers=engine.workers)))
        shares.append(alone / seconds(lambda: drain(classifier.predict(photos))))
    return shares


def main() -> None:
    parser = shared_options(__doc__, images=None, seed=0, repeats=3)
    parser.add_argument("--run", type=Path, help="measure predicting by this run instead")
    options = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    manifest = write_elpv(WORK, seed=options.seed, limit=options.images)
    if options.run:
        shares = predicting(options.run, manifest, options.repeats)
        print(
            f"share of the engine's rate: {statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})"
        )
        return
    found = floor(manifest, options.repeats)
    facts, n = load_backbone(HANDLE).facts, len(load(manifest))
    print(f"{n} photos, {facts}, {core_count()} cores, {options.repeats} repeats: median (least to most)")
    for name, took in found.items():
        print(f"{name:16} {statistics.median(took):6.2f} s ({min(took):.2f} to {max(took):.2f})")


if __name__ == "__main__":
    main()
