"""The peak memory of an extraction by the number of images.

    python -m benchmarks.speed.memory [--counts 1000 10000 100000] [--size 64]

Each count runs in a process of its own, on JPEGs of 96 x 96 pixels made for it, all different. A small network
input makes 100,000 images bearable; what the number of images costs does not depend on it.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.options import shared_options


def main() -> None:
    parser = shared_options(__doc__, size=64)
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[1000, 10_000, 100_000], help="numbers of images"
    )
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure(options.child[0], int(options.child[1]), options.size)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_photos(Path(folder), max(options.counts))
        for count in options.counts:
            with tempfile.TemporaryDirectory() as cache:
                command = [
                    sys.executable,
                    "-m",
                    __spec__.name,
                    "--size",
                    str(options.size),
                    "--child",
                    folder,
                    str(count),
                ]
                subprocess.run(command, check=True, env={**os.environ, "TOPWORK_CACHE": cache})


def make_photos(folder: Path, count: int) -> None:
    random = np.random.default_rng(0)
    for i in range(count):
        if i % 1000 == 0:
            (folder / f"{i // 1000:03}").mkdir()
        small = random.integers(0, 256, (6, 6, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(small).resize((96, 96)).save(file, "JPEG")
        (folder / f"{i // 1000:03}" / f"{i:06}.jpg").write_bytes(file.getvalue())


def measure(folder: str, count: int, size_px: int) -> None:
    from topwork.backbones.backbone import load_backbone
    from topwork.data.sources import load_images
    from topwork.features.extract import extract, open_store

    backbone = load_backbone("efficientnet-lite0", size_px=size_px)
    dataset = load_images(folder).take(count)
    before = peak_mb()
    began = time.perf_counter()
    with open_store(backbone.facts) as store:
        features = extract(dataset, backbone, store=store)
    took = time.perf_counter() - began
    print(
        f"{features.computed:7,} images  peak {peak_mb():6.0f} MB  (before extraction {before:6.0f} MB)  "
        f"{count / took:6.0f} img/s",
        flush=True,
    )


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
