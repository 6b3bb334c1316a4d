"""How fast `topwork.images.decode.decode` is, against Pillow's full pipeline and simplejpeg; its shortcut's cost.

    python -m benchmarks.speed.decode [--repeats 9] [--json FILE | --features]

Photos: scikit-learn's two sample photos, brought to each size by bicubic interpolation, those of more than a
megapixel with fine noise (sigma 3) so that they compress like a camera's; JPEG quality 90, 4:2:0, seed 0.
The ways take turns within each repeat, and ratios are taken within a repeat, so that a busy machine slows all
alike; the CPU time counts only what this process used. Pixels are compared with Pillow's full decode and
resize: mean and largest difference, of 255. With `--features`, features are too, and nothing is timed: the distance
between the two decodes' vectors, relative to their length, beside that between two JPEG qualities (90 and 85).
"""

from __future__ import annotations

import importlib.util
import io
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.options import shared_options
from topwork.images.decode import OVERSAMPLE, decode

Pixels = NDArray[np.uint8]

TARGET_PX = 224
# (width, height) -> decodes of each photo in one timing
SIZES = {(300, 300): 30, (500, 375): 20, (1024, 768): 8, (4000, 3000): 2}


def make_photos(width: int, height: int, quality: int = 90) -> list[bytes]:
    from sklearn.datasets import load_sample_image

    rng = np.random.default_rng(0)
    photos = []
    for name in ("china.jpg", "flower.jpg"):
        image = Image.fromarray(load_sample_image(name)).resize((width, height), Image.Resampling.BICUBIC)
        if width * height > 1_000_000:
            noisy = np.asarray(image) + rng.normal(0, 3, (height, width, 3)).astype(np.float32)
            image = Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        photos.append(file.getvalue())
    return photos


def by_topwork(data: bytes) -> Pixels:
    return decode(data, TARGET_PX)


def by_pillow_full(data: bytes) -> Pixels:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.array(image.resize((TARGET_PX, TARGET_PX), Image.Resampling.BICUBIC))


def by_simplejpeg(data: bytes) -> Pixels:
    """Scales of n/8 (Pillow: 1/2, 1/4, 1/8) at the same least size; no EXIF, no other colour space."""
    import simplejpeg

    least = OVERSAMPLE * TARGET_PX
    image = Image.fromarray(simplejpeg.decode_jpeg(data, min_height=least, min_width=least))
    return np.array(image.resize((TARGET_PX, TARGET_PX), Image.Resampling.BICUBIC))


def timed(
    way: Callable[[bytes], Pixels], photos: list[bytes], count: int, threads: int
) -> tuple[float, float]:
    """Images per second of the clock, and milliseconds of CPU an image."""
    work = photos * count
    with ThreadPoolExecutor(threads) as pool:
        run = map if threads == 1 else pool.map
        list(run(way, photos))  # threads and lazy imports are there before the clock starts
        start, cpu = time.perf_counter(), time.process_time()
        list(run(way, work))
        return len(work) / (time.perf_counter() - start), (time.process_time() - cpu) / len(work) * 1000


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def measure(width: int, height: int, count: int, repeats: int) -> list[dict[str, Any]]:
    photos = make_photos(width, height)
    ways: dict[str, tuple[Callable[[bytes], Pixels], int]] = {
        "topwork": (by_topwork, 1),
        "topwork, 2 threads": (by_topwork, 2),
        "pillow, full scale": (by_pillow_full, 1),
    }
    if importlib.util.find_spec("simplejpeg"):
        ways["simplejpeg"] = (by_simplejpeg, 1)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    cpu_ms: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, (way, threads) in ways.items():
            rate, ms = timed(way, photos, count, threads)
            rates[name].append(rate)
            cpu_ms[name].append(ms)
    full = [by_pillow_full(data).astype(np.int16) for data in photos]
    rows = []
    for name, (way, _) in ways.items():
        away = [np.abs(way(data) - reference) for data, reference in zip(photos, full, strict=True)]
        rows.append(
            {
                "photo": f"{width}x{height}",
                "way": name,
                "images_per_s": spread(rates[name]),
                "ratio_to_topwork": spread(
                    [a / b for a, b in zip(rates[name], rates["topwork"], strict=True)]
                ),
                "cpu_ms": spread(cpu_ms[name]),
                "mean_difference": float(np.mean(away)),
                "largest_difference": int(np.max(away)),
            }
        )
    return rows


def compare_features(width: int, height: int) -> None:
    """How far features move by decoding at reduced scale, and by another JPEG quality."""
    from topwork.backbones.backbone import LAST, load_backbone
    from topwork.backbones.engine import Engine

    backbone = load_backbone("efficientnet-lite0")
    infer = Engine(backbone)
    stages = tuple(b.name for b in backbone.facts.blocks if b.name != LAST)
    for name, chosen in (("last", (LAST,)), ("stages", stages)):
        columns = backbone.facts.columns(chosen)
        for photo, again in zip(
            make_photos(width, height), make_photos(width, height, quality=85), strict=True
        ):
            full, reduced, other = (
                infer(pixels)[columns]
                for pixels in (by_pillow_full(photo), by_topwork(photo), by_pillow_full(again))
            )
            length = float(np.linalg.norm(full))
            print(
                f"{width}x{height}, features {name!r}: reduced scale {np.linalg.norm(reduced - full) / length:.4f}, "
                f"JPEG quality 85 for 90 {np.linalg.norm(other - full) / length:.4f}"
            )


def main() -> None:
    parser = shared_options(__doc__, repeats=9, json=None)
    parser.add_argument("--features", action="store_true", help="compare features; time nothing")
    options = parser.parse_args()
    if options.features:
        compare_features(4000, 3000)
        return
    rows = [row for size, count in SIZES.items() for row in measure(*size, count, options.repeats)]
    if options.json:
        told = {"target_px": TARGET_PX, "repeats": options.repeats, "rows": rows}
        options.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print("photo      way                  img/s (least..most)     ratio (least..most)   CPU ms  differs")
    for row in rows:
        rate, ratio, cpu = row["images_per_s"], row["ratio_to_topwork"], row["cpu_ms"]
        print(
            f"{row['photo']:10} {row['way']:20}",
            f"{rate['median']:.1f} ({rate['least']:.1f}..{rate['most']:.1f})".ljust(23),
            f"{ratio['median']:.2f} ({ratio['least']:.2f}..{ratio['most']:.2f})".ljust(19),
            f"{cpu['median']:8.2f} {row['mean_difference']:8.3f}",
        )


if __name__ == "__main__":
    main()
