"""What the audit finds of planted faults, how long it takes, and whether intervals hold what they promise.

    python -m benchmarks.accuracy.audit_faults [copies] [labels] [intervals] [speed] [--size 128] [--work FOLDER]

copies: pictures of datasets that packages ship, changed in known ways and put among the others: how many are found,
and how many pairs that were not planted. labels: some swapped at random. intervals: how often 95 % intervals hold the
truth, over 1,000 resamplings. speed: the audit of 10,000 pictures whose features and looks are stored. Seeds are 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from benchmarks.data.packaged import write_dataset
from benchmarks.options import WORK, shared_options
from topwork.backbones.backbone import LAST, load_backbone
from topwork.backbones.engine import Engine
from topwork.checks.copies import confirmed_pairs
from topwork.checks.inspect import unseen_probabilities
from topwork.checks.labels import doubted_labels
from topwork.checks.looks import LOOKED_PX, unpacked
from topwork.checks.looks import look as looked_at
from topwork.data.dataset import Dataset
from topwork.data.sources import load
from topwork.evaluation.significance import mcnemar, paired_bootstrap, wilson
from topwork.features.extract import extract, open_store
from topwork.images.decode import Picture, decode
from topwork.jobs.audit import audit
from topwork.recipe import BackboneRecipe, Recipe

PARTS = ("copies", "labels", "intervals", "speed")
PICTURES = ("elpv-mono", "emoji-categories", "textures")
LABELLED = ("digits", "textures", "letters", "elpv-kinds")
PLANTED, AMONG = 60, 600
Array = np.ndarray[Any, np.dtype[Any]]


def main() -> None:
    parser = shared_options(__doc__, work=WORK, size=128)
    parser.add_argument(
        "parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}; by default all"
    )
    options = parser.parse_args()
    for part in options.parts:
        {"copies": copies, "labels": labels, "intervals": intervals, "speed": speed}[part](options)


def jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def cropped(image: Image.Image, share: float, random: np.random.Generator) -> Image.Image:
    width, height = round(share * image.width), round(share * image.height)
    left, top = random.integers(0, image.width - width + 1), random.integers(0, image.height - height + 1)
    return image.crop((left, top, left + width, top + height))


def changes(random: np.random.Generator) -> dict[str, Callable[[Image.Image], bytes]]:
    return {
        "recompressed (75)": lambda i: jpeg(i, 75),
        "recompressed (50)": lambda i: jpeg(i, 50),
        "half the size": lambda i: jpeg(
            i.resize((i.width // 2, i.height // 2), Image.Resampling.LANCZOS), 90
        ),
        "brighter by 15 %": lambda i: jpeg(ImageEnhance.Brightness(i).enhance(1.15), 90),
        "darker by 30 %": lambda i: jpeg(ImageEnhance.Brightness(i).enhance(0.7), 90),
        "mirrored": lambda i: jpeg(ImageOps.mirror(i), 90),
        "cropped by 5 %": lambda i: jpeg(cropped(i, 0.95, random), 90),
        "cropped by 10 %": lambda i: jpeg(cropped(i, 0.9, random), 90),
    }


def copies(options: argparse.Namespace) -> None:
    infer = Engine(load_backbone("efficientnet-lite0", size_px=options.size, precision="f32"))
    random = np.random.default_rng(0)
    print("| data | change | found of planted | pairs not planted, of the 600 originals |\n|---|---|---|---|")
    for name in PICTURES:
        dataset = load(write_dataset(name, options.work)).shuffle(0).take(AMONG)
        originals = [example.image.read() for example in dataset]
        seen = [look(infer, data, options.size) for data in originals]
        for change, apply in changes(random).items():
            files = [apply(on_white(data)) for data in originals[:PLANTED]]
            every = seen + [look(infer, data, options.size) for data in files]
            features, thumbnails = (np.stack(part) for part in zip(*every, strict=True))
            found = {(a, b) for a, b, _ in confirmed_pairs(features, thumbnails)}
            planted = {(i, len(originals) + i) for i in range(PLANTED)}
            # A pair of a copy with the twin of its original is no fault: the twins are counted once.
            false = {pair for pair in found - planted if pair[1] < len(originals)}
            print(f"| {name} | {change} | {len(found & planted)} of {PLANTED} | {len(false)} |", flush=True)


def look(infer: Engine, data: bytes, size_px: int) -> tuple[Array, Array]:
    columns = infer._backbone.facts.columns((LAST,))
    thumbnail = unpacked(looked_at(Picture(data, LOOKED_PX), data)[None]).thumbnails[0]
    return infer(decode(data, size_px))[columns], thumbnail


def on_white(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def labels(options: argparse.Namespace) -> None:
    backbone = load_backbone("efficientnet-lite0", size_px=options.size, precision="f32")
    print("| data | swapped | the head is right | recall | false among flagged |\n|---|---|---|---|---|")
    with open_store(backbone.facts) as store:
        for name in LABELLED:
            features = extract(
                load(write_dataset(name, options.work)).with_split(None), backbone, store=store
            )
            dataset, truth = features.dataset, features.dataset.targets()
            for share in (0.01, 0.05, 0.1):
                random = np.random.default_rng(0)
                swapped = random.choice(len(dataset), round(share * len(dataset)), replace=False)
                given = truth.copy()
                given[swapped] += random.integers(1, len(dataset.classes), len(swapped))
                given %= len(dataset.classes)
                examples = (
                    dataclasses.replace(e, label=dataset.classes[k])
                    for e, k in zip(dataset, given, strict=True)
                )
                wrong = dataclasses.replace(
                    features, dataset=Dataset(tuple(examples), dataset.classes, dataset.name)
                )
                said = unseen_probabilities(wrong, Recipe())
                flagged = {doubt.row for doubt in doubted_labels(given, said)}
                hits = len(flagged & set(swapped.tolist()))
                right = (said.argmax(1) == truth).mean()
                found, false = hits / len(swapped), 1 - hits / max(1, len(flagged))
                print(
                    f"| {name} | {100 * share:.0f} % of {len(dataset)} | {100 * right:.1f} % | {100 * found:.0f} % "
                    f"| {100 * false:.0f} % |",
                    flush=True,
                )


def intervals(options: argparse.Namespace) -> None:
    """A world of 100,000 images with known answers of two classifiers; 1,000 tests of n are drawn from it."""
    random = np.random.default_rng(0)
    hard = random.beta(3, 1, 100_000)
    a, b = random.random(100_000) < hard, random.random(100_000) < np.minimum(1, hard + 0.03)
    truth, gain = a.mean(), b.mean() - a.mean()
    print(
        "| test images | Wilson's of an accuracy | Newcombe's of a difference | paired bootstrap |\n|---|---|---|---|"
    )
    for n in (50, 200, 1000):
        held = np.zeros(3)
        for _ in range(1000):
            rows = random.integers(0, 100_000, n)
            low, high = wilson(int(a[rows].sum()), n)
            held[0] += low <= truth <= high
            low, high = mcnemar(b[rows], a[rows]).interval
            held[1] += low <= gain <= high
            low, high = paired_bootstrap(a[rows], b[rows], samples=1000, seed=int(rows[0]))
            held[2] += low <= gain <= high
        print(f"| {n} | {held[0] / 10:.1f} % | {held[1] / 10:.1f} % | {held[2] / 10:.1f} % |", flush=True)


def speed(options: argparse.Namespace) -> None:
    """10,000 photographs of 300 x 300 made of shapes and noise; the second run finds features and looks stored.

    Each run is a process of its own, so that its peak of memory is its own.
    """
    root = options.work / "speed"
    for number in range(10_000):
        path = root / f"class{number % 10}" / f"{number}.jpg"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(number)
        coarse = random.integers(0, 256, (12, 12, 3), np.uint8)
        coarse[number % 10] = coarse[number % 10] // 2 + 120
        photo = Image.fromarray(coarse).resize((300, 300), Image.Resampling.BICUBIC)
        path.write_bytes(jpeg(photo, 85))
    for turn in ("first", "stored", "stored, with its page"):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as own:
            print(f"{turn}: {own.submit(timed, root, page='page' in turn).result()}", flush=True)


def timed(root: Path, *, page: bool) -> str:
    recipe = Recipe(backbone=BackboneRecipe(size_px=64, precision="f32"))
    with tempfile.TemporaryDirectory() as folder:
        began, busy = time.perf_counter(), time.process_time()
        result = audit(root, folder if page else None, recipe=recipe)
        took, busy = time.perf_counter() - began, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return f"{took:.1f} s ({busy:.1f} s of processor), {result.seconds}, peak memory {peak:.0f} MB"


if __name__ == "__main__":
    main()
