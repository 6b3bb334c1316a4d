"""What the audit finds of planted faults, and whether the doubt that is stated is true.

    python benchmarks/audit_faults.py [copies] [labels] [doubt] [intervals] [speed] [--work FOLDER] [--size 128]

copies: pictures of data sets that packages ship, changed in known ways and put among the others: how many are found,
and how many pairs that were not planted. labels: some swapped at random. doubt: calibration error, coverage of sets,
strangers rejected, for each set's own test part. intervals: how often 95 % intervals hold the truth, over 1,000
resamplings. speed: the audit of 10,000 pictures whose features and looks are stored. Seeds are 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from advice_data import write_dataset
from topwork.auditing import audit
from topwork.backbone import LAST, load_backbone
from topwork.checks.duplicates import confirmed_pairs
from topwork.checks.inspection import unseen_probabilities
from topwork.checks.labels import doubted_labels
from topwork.checks.looks import LOOKED_PX, measured, unpacked
from topwork.classifier import Classifier, score
from topwork.data.dataset import Dataset
from topwork.data.sources import load
from topwork.engine import Engine
from topwork.features import extract, open_store
from topwork.images import decode, size_of
from topwork.metrics import auroc
from topwork.recipe import BackboneRecipe, Recipe
from topwork.significance import mcnemar, paired_bootstrap, wilson
from topwork.training import train

PARTS = ("copies", "labels", "doubt", "intervals", "speed")
PICTURES = ("elpv-mono", "emoji-categories", "textures")
LABELLED = ("digits", "textures", "letters", "elpv-kinds")
JUDGED = ("elpv-mono", "digits", "textures", "emoji-animals", "letters")
PLANTED, AMONG = 60, 600
Array = np.ndarray[Any, np.dtype[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    for part in options.parts:
        {"copies": copies, "labels": labels, "doubt": doubt, "intervals": intervals, "speed": speed}[part](
            options
        )


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
    thumbnail = unpacked(measured(decode(data, LOOKED_PX), size_of(data))[None]).thumbnails[0]
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


def doubt(options: argparse.Namespace) -> None:
    recipe = Recipe(backbone=BackboneRecipe(size_px=options.size, precision="f32"))
    print(
        "| data | test images | calibration error | sets of 90 %: held the truth (95 % of 0.9) | classes in a set | "
        "known pictures rejected (1 %) | AUROC against the other sets: mean, least |\n|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[str, Classifier] = {}
        tests: dict[str, Any] = {}
        for name in JUDGED:
            manifest = write_dataset(name, options.work)
            run = train(manifest, Path(folder) / name, recipe=recipe)
            runs[name] = run.classifier
            tests[name] = load(manifest).filter(lambda e: e.split == "test")
        backbone = next(iter(runs.values())).backbone
        with open_store(backbone.facts) as store:
            found = {name: extract(part, backbone, store=store) for name, part in tests.items()}
            for name, classifier in runs.items():
                own = score(classifier, found[name])
                least = classifier.least_probability(0.9)
                targets = found[name].dataset.targets()
                n = len(targets)
                inside = own.probabilities[np.arange(n), targets] >= least
                low, high = wilson(0.9 * n, n)
                assert classifier.novelty is not None
                known = classifier.novelty.score(found[name].matrix((LAST,)))
                areas = []
                for other in JUDGED:
                    if other != name:
                        strange = classifier.novelty.score(found[other].matrix((LAST,)))
                        both = np.concatenate([known, strange])
                        areas.append(auroc(np.arange(len(both)) >= n, both) or 0.0)
                size = (own.probabilities >= least).sum(axis=1).mean()
                print(
                    f"| {name} | {n} | {own.evaluation.calibration_error:.3f} | {inside.mean():.3f} ({low:.3f} to "
                    f"{high:.3f}) | {size:.2f} | {100 * (known > 1).mean():.1f} % | {np.mean(areas):.3f}, "
                    f"{min(areas):.3f} |",
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
    """10,000 photographs of 300 x 300 made of shapes and noise; the second run finds features and looks stored."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(10_000):
            random = np.random.default_rng(number)
            label = root / f"class{number % 10}"
            label.mkdir(exist_ok=True)
            coarse = random.integers(0, 256, (12, 12, 3), np.uint8)
            coarse[number % 10] = coarse[number % 10] // 2 + 120
            Image.fromarray(coarse).resize((300, 300), Image.Resampling.BICUBIC).save(
                label / f"{number}.jpg", quality=85
            )
        recipe = Recipe(backbone=BackboneRecipe(size_px=64, precision="f32"))
        for turn in ("cold", "stored"):
            began = time.perf_counter()
            result = audit(root, recipe=recipe)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
            print(
                f"{turn}: {time.perf_counter() - began:.1f} s, {result.seconds}, peak memory {peak:.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
