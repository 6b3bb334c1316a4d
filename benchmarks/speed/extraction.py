"""How near extraction comes to its floor: decoding alone plus inferring alone, on the same cores.

    python -m benchmarks.speed.extraction PHOTOS [--images 600] [--repeats 5]

Each repeat measures, in turn and with the same number of workers: decoding all images; inferring on pixels that
were decoded before; and the whole extraction into a new store. The floor is the sum of the first two.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.options import shared_options
from topwork.backbones.backbone import load_backbone
from topwork.backbones.engine import Engine
from topwork.data.sources import load_images
from topwork.features.extract import extract
from topwork.features.store import Store
from topwork.images.decode import decode
from topwork.parallel import core_count, stream


def main() -> None:
    parser = shared_options(__doc__, images=600, repeats=5, backbone="efficientnet-lite0")
    parser.add_argument("photos", help="folder of photos")
    options = parser.parse_args()

    backbone = load_backbone(options.backbone)
    size_px, workers = backbone.facts.size_px, core_count()
    dataset = load_images(options.photos).shuffle(0).take(options.images)
    engine = Engine(backbone)
    pixels = [decode(example.image.read(), size_px) for example in dataset]
    engine(pixels[0])  # compiled before the clock starts: it is no part of the floor, nor of the rate

    rows = []
    for _ in range(options.repeats):
        with (
            tempfile.TemporaryDirectory() as folder,
            Store.open(backbone.facts.fingerprint, backbone.facts.width, root=Path(folder)) as store,
        ):
            decoding = seconds(
                lambda: drain(stream(lambda e: decode(e.image.read(), size_px), dataset, workers=workers))
            )
            inferring = seconds(lambda: drain(stream(engine, pixels, workers=workers)))
            whole = seconds(lambda store=store: extract(dataset, backbone, store=store, engine=engine))
        rows.append((decoding, inferring, whole, (decoding + inferring) / whole))
    n = len(dataset)
    print(
        f"{n} images, {backbone.facts}, {workers} workers, {options.repeats} repeats: median (least to most)"
    )
    for name, column in zip(
        ("decoding alone", "inferring alone", "extraction"), zip(*rows, strict=True), strict=False
    ):
        rates = [n / s for s in column]
        print(f"{name:16} {statistics.median(rates):7.1f} img/s ({min(rates):.1f} to {max(rates):.1f})")
    shares = [row[3] for row in rows]
    print(f"floor / extraction: {statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})")


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def drain(results: object) -> None:
    for _ in results:  # type: ignore[attr-defined]
        pass


if __name__ == "__main__":
    main()
