"""Choose a run's photos for comparing an export and for calibrating its quantisation."""

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
from topwork.images.framing import Framing
from topwork.runs.record import images_of, source_of

COMPARED, CALIBRATING = 200, 300

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A run's photos for an export."""

    compared: tuple[Example, ...]  # balanced over the classes
    part: str  # the run's part that `compared` is from
    calibrating: tuple[Example, ...]  # training photos, different from `compared` if possible


def choose(folder: Path, data: Dataset | str | Path | None) -> Chosen:
    """Choose validation photos to compare on, or training photos if there are none.

    Args:
        folder: the run.
        data: its photos; None for their original location.

    Raises:
        InputError: the photos are missing, or are not the run's.
    """
    found = photos_of(folder, data)
    of: dict[str, list[Example]] = defaultdict(list)
    for example in found:
        of[example.split or ""].append(example)
    part = "validation" if of["validation"] else "train"
    if not of[part]:
        raise InputError(
            f"{folder}: none of its training photos was found; the export is compared with the run on them. Give "
            "their folder: --data FOLDER"
        )
    compared = _evenly(of[part], COMPARED)
    used = {example.id for example in compared}
    rest = [example for example in of["train"] if example.id not in used] or of["train"]
    return Chosen(tuple(compared), part, tuple(_evenly(rest, CALIBRATING)))


def pixels_of(examples: Sequence[Example], size_px: int, *, fit: Framing) -> Iterator[tuple[Example, Pixels]]:
    """Yield each readable example with its pixels, uint8 (S, S, 3)."""
    for example in examples:
        try:
            yield example, decode(example.image.read(), size_px, fit=fit)
        except (ImageError, OSError):
            continue


def whole_pixels(example: Example) -> Pixels:
    """The picture at its original size, uint8 (H, W, 3)."""
    data = example.image.read()
    width, height = size_of(data)
    return decode(data, (height, width))


def photos_of(folder: Path, data: Dataset | str | Path | None) -> list[Example]:
    """The run's photos that exist, with the labels and parts recorded in the run.

    Raises:
        InputError: the run doesn't record where its photos are, or they can't be listed.
    """
    if data is None:
        data = source_of(folder, "give their folder: --data FOLDER")
    rows = {image.id: (image.label, image.part) for image in images_of(folder)}
    if not isinstance(data, Dataset) and Path(data).is_dir():
        images: dict[str, ImageSource] = {
            image_id: FileImage(str(Path(data) / image_id)) for image_id in rows
        }
        there = {image_id: image for image_id, image in images.items() if Path(str(image)).is_file()}
    else:
        try:
            there = {e.id: e.image for e in (data if isinstance(data, Dataset) else load(data))}
        except InputError as error:
            raise InputError(
                f"{error}; if the photos of {folder} have moved, give their folder: --data FOLDER"
            ) from None
    return [
        Example(image_id, there[image_id], label, split=split)
        for image_id, (label, split) in rows.items()
        if image_id in there
    ]


def _evenly(examples: Sequence[Example], count: int) -> list[Example]:
    """`count` examples, balanced over the classes and evenly spaced within each."""
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
