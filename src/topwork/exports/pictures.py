"""The pictures that an export is compared on, and those that its 8-bit numbers are made from."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topwork.data.dataset import Dataset, Example
from topwork.data.sources import load
from topwork.errors import ImageError, InputError
from topwork.images import decode, size_of
from topwork.runfolder import REPORT, SPLITS

COMPARED, CALIBRATING = 200, 300

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """`compared` are of the part `part`, evenly over the classes; `calibrating` of the training part, and others."""

    compared: tuple[Example, ...]
    part: str
    calibrating: tuple[Example, ...]


def choose(folder: Path, data: Dataset | str | Path | None) -> Chosen:
    """From a run's photos: validation images to compare on; training images where there are none.

    Args:
        folder: a run's.
        data: its photos; None for where they were.

    Raises:
        InputError: the photos are not there, or not those of the run.
    """
    dataset = _photos(folder, data)
    with (folder / SPLITS).open(newline="", encoding="utf-8") as file:
        parts = {row["id"]: row["split"] for row in csv.DictReader(file)}
    of: dict[str, list[Example]] = defaultdict(list)
    for example in dataset:
        of[parts.get(example.id, "")].append(example)
    part = "validation" if of["validation"] else "train"
    if not of[part]:
        raise InputError(
            f"{dataset.name}: expected the photos that {folder} learned from, to compare the export on; none of "
            "them is there; name their folder: --data FOLDER"
        )
    compared = _evenly(of[part], COMPARED)
    used = {example.id for example in compared}
    rest = [example for example in of["train"] if example.id not in used] or of["train"]
    return Chosen(tuple(compared), part, tuple(_evenly(rest, CALIBRATING)))


def pixels_of(examples: Sequence[Example], size_px: int, *, fit: Any) -> Iterator[tuple[Example, Pixels]]:
    """Each that can be read, uint8 (S, S, 3)."""
    for example in examples:
        try:
            yield example, decode(example.image.read(), size_px, fit=fit)
        except (ImageError, OSError):
            continue


def whole_pixels(example: Example) -> Pixels:
    """The picture at its own size, uint8 (H, W, 3), as any receiver would decode it."""
    data = example.image.read()
    width, height = size_of(data)
    return decode(data, (height, width))


def _photos(folder: Path, data: Dataset | str | Path | None) -> Dataset:
    if data is None:
        data = json.loads((folder / REPORT).read_text(encoding="utf-8")).get("source")
    if data is None:
        raise InputError(f"{folder}: doesn't say where its photos are; name their folder: --data FOLDER")
    if isinstance(data, Dataset):
        return data
    try:
        return load(data)
    except InputError as error:
        raise InputError(
            f"{error}; an export is compared with the run on its photos: name their folder: --data FOLDER"
        ) from None


def _evenly(examples: Sequence[Example], count: int) -> list[Example]:
    """`count` of them, from each class as many as the others, spread over its length."""
    of: dict[Any, list[Example]] = defaultdict(list)
    for example in examples:
        of[example.label].append(example)
    share = -(-count // max(len(of), 1))
    taken = [
        group[round(i)]
        for group in of.values()
        for i in np.linspace(0, len(group) - 1, min(share, len(group)))
    ]
    return taken[:count] if len(of) <= count else taken[:: -(-len(taken) // count)]
