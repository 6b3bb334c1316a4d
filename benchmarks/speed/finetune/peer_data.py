"""What the two plain fine-tuning programs share: a manifest's pictures, their flips and turns, and the report.

Nothing of Topwork's is used here, so that what they are compared with is a program as one would write it.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.options import shared_options

# EfficientNet-Lite0's rows of blocks: blocks, kernel, stride, how much wider inside, channels out.
ROWS = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))  # fmt: skip
STEM, LAST, EPSILON, MEAN, SCALE = 32, 1280, 1e-3, 127.0, 128.0
Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class Pictures:
    """Of one part: uint8 (N, S, S, 3), int64 (N,), and the manifest's paths."""

    pixels: Array
    labels: Array
    paths: list[str]


def peer_options(doc: str | None) -> argparse.ArgumentParser:
    parser = shared_options(doc, size=224, epochs=14, batch=32, rate=5e-4, flips="horizontal", seed=0)
    parser.add_argument("manifest", type=Path, help="CSV: path,label,split; split: train, validation or test")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--smoothing", type=float, default=0.1)
    parser.add_argument("--turns", action="store_true", help="by 90 degrees")
    parser.add_argument("--views", action="store_true", help="average predictions over all flips and turns")
    parser.add_argument("--threads", type=int, default=0, help="0: as the framework chooses")
    parser.add_argument("--limit", type=int, help="images of each part, for a trial")
    return parser


def load(manifest: Path, size_px: int, limit: int | None) -> tuple[dict[str, Pictures], list[str]]:
    """All pictures in memory, by part, and the names of the classes."""
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in rows})

    def read(path: str) -> Array:
        with Image.open(manifest.parent / path) as image:
            image.draft("RGB", (2 * size_px, 2 * size_px))
            return np.asarray(image.convert("RGB").resize((size_px, size_px), Image.Resampling.BICUBIC))

    parts = {}
    with ThreadPoolExecutor() as pool:
        for part in ("train", "validation", "test"):
            some = [row for row in rows if row["split"] == part][:limit]
            paths = [row["path"] for row in some]
            parts[part] = Pictures(
                np.stack(list(pool.map(read, paths))),
                np.array([classes.index(row["label"]) for row in some]),
                paths,
            )
    return parts, classes


def ways(flips: str, turns: bool) -> list[tuple[int, bool]]:
    """The distinct flips and turns: quarter turns, then whether left and right change places."""
    if turns:
        return [(k, mirror) for k in range(4) for mirror in ((False,) if flips == "none" else (False, True))]
    whole = [(0, False)] + ([(0, True)] if flips != "none" else [])
    return whole + ([(2, True), (2, False)] if flips == "both" else [])


def turned(pixels: Array, way: tuple[int, bool]) -> Array:
    """(…, S, S, 3)"""
    pixels = np.rot90(pixels, way[0], axes=(-3, -2))
    return pixels[..., ::-1, :] if way[1] else pixels


def batches(part: Pictures, given: argparse.Namespace, random: np.random.Generator) -> Any:
    """One epoch: shuffled, each picture flipped and turned at random; the last, smaller batch is left out."""
    known = ways(given.flips, given.turns)
    order = random.permutation(len(part.labels))
    for start in range(0, len(order) - given.batch + 1, given.batch):
        rows = order[start : start + given.batch]
        chosen = random.integers(len(known), size=len(rows))
        pixels = np.stack(
            [turned(part.pixels[row], known[way]) for row, way in zip(rows, chosen, strict=True)]
        )
        yield pixels, part.labels[rows]


def rate_at(step: int, steps: int, highest: float) -> float:
    """A linear warm-up for a tenth of the steps, then a cosine to 0."""
    warm = max(1, steps // 10)
    if step < warm:
        return highest * (step + 1) / warm
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@dataclass(slots=True)
class Diary:
    """What the program prints at its end. `clock`: when it began, so that all it does is counted."""

    clock: float = field(default_factory=time.perf_counter)
    learning: float = 0.0
    seen: int = 0
    epochs: list[dict[str, float]] = field(default_factory=list)

    def epoch(self, probabilities: Array, part: Pictures, *, loss: float, seconds: float, seen: int) -> None:
        """One epoch: of `seen` pictures learnt from in `seconds`, and what is then predicted for validation."""
        accuracy = float((probabilities.argmax(1) == part.labels).mean())
        self.epochs.append({"loss": loss, "validation_accuracy": accuracy, "seconds": seconds})
        self.learning += seconds
        self.seen += seen

    def report(self, probabilities: Array, part: Pictures, classes: list[str]) -> str:
        return json.dumps(
            {
                "seconds": time.perf_counter() - self.clock,
                "learning_seconds": self.learning,
                "images_per_second": self.seen / self.learning,
                "epochs": self.epochs,
                "test_accuracy": float((probabilities.argmax(1) == part.labels).mean()),
                "classes": classes,
                "test": [
                    {"path": path, "label": classes[label], "probabilities": row.tolist()}
                    for path, label, row in zip(part.paths, part.labels, probabilities, strict=True)
                ],
            }
        )
