"""How the time and memory of `topwork train` grow with the number of photos and classes.

    python -m benchmarks.speed.growth [--photos 1000 5000 20000] [--classes 20] [--quick] [--work FOLDER]

Photos are drawn: 64 x 64 pixels, no two alike, with a class's own colours and shapes in places that vary. The network
is EfficientNet-Lite0 at 64 px in f32, so that what is measured is everything else; its time at 224 px, by which the
rest is judged, is measured apart on this machine. Each training runs in a process of its own, with an empty cache.

The exponent of a phase is the slope of its seconds over the number of photos, both logarithmic, from one number to
the next. The program fails if a phase of more than 2 s grows faster than n^1.1, if everything but the network takes
more than 40 % of the network's time at 224 px from 2,500 photos on (a thousand take 14 s of it, where starting up and
writing the report take 4), or if the peak of memory is over 1 GB up to 20,000 photos, or over 2.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from topwork.backbones.backbone import load_backbone
from topwork.data.sources import load
from topwork.jobs.advise import measure_speed

SIZE_PX = 64
SHARE, SHARE_FROM, EXPONENT, NOTABLE_S = 0.4, 2500, 1.1, 2.0
PROGRAM = """
import dataclasses, json, resource, sys
from topwork.jobs.train import train
from topwork.recipe import BackboneRecipe, Recipe
recipe = Recipe(backbone=BackboneRecipe(size_px=64, precision="f32"))
run = train(sys.argv[1], sys.argv[2], recipe=recipe)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": run.seconds, "peak": peak, "accuracy": run.test.accuracy,
    "candidates": [dataclasses.asdict(c) for c in run.fitted.candidates]}))
"""


def draw(number: int, classes: int, folder: Path) -> None:
    """One photo: blurred noise, and three shapes in the class's colour at random places."""
    label = number % classes
    random, own = np.random.default_rng(number), np.random.default_rng(10**9 + label)
    noise = random.integers(0, 256, (8, 8, 3), np.uint8)
    image = Image.fromarray(noise).resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC)
    brush = ImageDraw.Draw(image)
    colour = own.integers(0, 256, 3)
    for _ in range(3):
        x, y = random.integers(0, SIZE_PX - 24, 2).tolist()
        w, h = (own.integers(10, 24, 2) + random.integers(-3, 4, 2)).tolist()
        shade = tuple(np.clip(colour + random.integers(-60, 61, 3), 0, 255).tolist())
        kind = brush.ellipse if own.integers(2) else brush.rectangle
        kind((x, y, x + w, y + h), fill=shade)
    image.save(folder / f"class{label:04}" / f"{number:07}.jpg", quality=85)


def write_photos(work: Path, count: int, classes: int) -> Path:
    folder = work / f"growth-{count}-{classes}"
    if not (folder / ".whole").exists():
        for label in range(classes):
            (folder / f"class{label:04}").mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor() as pool:
            list(pool.map(partial(draw, classes=classes, folder=folder), range(count), chunksize=500))
        (folder / ".whole").touch()
    return folder


def measured(photos: Path) -> dict:
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(photos), f"{place}/run"],
            env=os.environ | {"TOPWORK_CACHE": f"{place}/cache"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, nargs="+", default=[1000, 5000, 20_000, 100_000])
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 20, 200])
    parser.add_argument("--quick", action="store_true", help="1,000 and 4,000 photos of 20 classes")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent.parent / "work")
    options = parser.parse_args()
    if options.quick:
        options.photos, options.classes = [1000, 4000], [20]

    first = write_photos(options.work, min(options.photos), min(options.classes))
    speed = measure_speed(load_backbone("efficientnet-lite0", precision="f32"), load(first))
    print(f"the network at 224 px in f32: {speed:.0f} images/s\n")
    phases = ("features", "copies", "head", "test", "audit", "curve", "save", "report")
    print(
        f"| photos | classes | total, s | {' | '.join(phases)} | but features / network at 224 px | peak, MB |"
    )
    print("|---" * (len(phases) + 5) + "|")
    faults = []
    for classes in options.classes:
        before: dict[str, float] = {}
        for count in options.photos:
            found = measured(write_photos(options.work, count, classes))
            seconds, peak = found["seconds"], found["peak"]
            network = count / speed
            share = (seconds["total"] - seconds["features"]) / network
            shown = " | ".join(f"{seconds.get(name, 0):.1f}" for name in phases)
            print(
                f"| {count:,} | {classes} | {seconds['total']:.1f} | {shown} | {100 * share:.0f} % | {peak:.0f} |",
                flush=True,
            )
            where = f"{count:,} photos, {classes} classes"
            if share > SHARE and count >= SHARE_FROM:
                faults.append(f"{where}: all but the network takes {100 * share:.0f} % of its time")
            if peak > (1024 if count <= 20_000 else 2048):
                faults.append(f"{where}: {peak:.0f} MB")
            for name in phases if before else ():
                if seconds.get(name, 0) > NOTABLE_S and before[name] > 0:
                    exponent = math.log(seconds[name] / before[name]) / math.log(count / before["photos"])
                    if exponent > EXPONENT:
                        faults.append(f"{where}: {name} grew as n^{exponent:.2f}")
            before = {**{name: seconds.get(name, 0) for name in phases}, "photos": count}
    print("\n" + ("\n".join(faults) or "every phase within its share"))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
