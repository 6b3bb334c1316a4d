"""The pictures that an export is compared on, and those that its 8-bit numbers are made from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topwork.data.dataset import Dataset, Example, FileImage, ImageSource
from topwork.data.sources import load
from topwork.errors import ImageError, InputError
from topwork.images.decode import decode, size_of
from topwork.runs.record import images_of, source_of

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
    found = photos_of(folder, data)
    of: dict[str, list[Example]] = defaultdict(list)
    for example in found:
        of[example.split or ""].append(example)
    part = "validation" if of["validation"] else "train"
    if not of[part]:
        raise InputError(
            f"{folder}: none of the photos that it learned from was found, and an export is compared with the run on "
            "them; name their folder: --data FOLDER"
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


def photos_of(folder: Path, data: Dataset | str | Path | None) -> list[Example]:
    """A run's photos that are there, with the labels and the parts that the run knows of.

    Raises:
        InputError: the run doesn't say where its photos are, or they can't be listed.
    """
    if data is None:
        data = source_of(folder, "name their folder: --data FOLDER")
    rows = {image.id: (image.label, image.part) for image in images_of(folder)}
    if not isinstance(data, Dataset) and Path(data).is_dir():
        images: dict[str, ImageSource] = {id: FileImage(str(Path(data) / id)) for id in rows}
        there = {id: image for id, image in images.items() if Path(str(image)).is_file()}
    else:
        try:
            there = {e.id: e.image for e in (data if isinstance(data, Dataset) else load(data))}
        except InputError as error:
            raise InputError(
                f"{error}; or name where the photos of {folder} are now: --data FOLDER"
            ) from None
    return [Example(id, there[id], label, split=split) for id, (label, split) in rows.items() if id in there]


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
