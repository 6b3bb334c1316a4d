"""A run's images: find the same images again, with the labels and splits that the run used."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from topwork.data.dataset import Dataset
from topwork.data.split import Splits
from topwork.errors import InputError
from topwork.features.extract import Features
from topwork.progress import Watch
from topwork.runs.folder import PARTS
from topwork.runs.record import RunImage, images_of


def trained_on(folder: Path) -> frozenset[bytes]:
    """The SHA-256 of each training and validation image of the run in `folder`.

    Raises:
        InputError: the run's list of images is missing or damaged.
    """
    return frozenset(image.key for image in images_of(folder) if image.part != "test")


def as_before(
    features: Features, folder: Path, classes: tuple[str, ...], watch: Watch
) -> tuple[Features, Splits]:
    """The run's images, with the splits, labels and groups that they had in the run.

    These may differ from the source's, because fixes relabel and remove photos, and near-duplicates are grouped.
    Images are matched by name and content, or by content alone if they were moved or renamed.

    Raises:
        InputError: some of the run's images are missing.
    """
    known = images_of(folder)
    named = {(image.id, image.key): image for image in known}
    pairs = list(zip(features.dataset, features.keys, strict=True))
    mine = {row: named.pop((e.id, key)) for row, (e, key) in enumerate(pairs) if (e.id, key) in named}
    elsewhere: dict[bytes, list[RunImage]] = {}
    for image in named.values():
        elsewhere.setdefault(image.key, []).append(image)
    for row, (_, key) in enumerate(pairs):
        if row not in mine and elsewhere.get(key):
            mine[row] = elsewhere[key].pop(0)
    missing = sum(map(len, elsewhere.values()))
    if missing:
        raise InputError(
            f"{features.dataset.name}: expected the photos of the run {folder}; {missing} of {len(known)} are "
            "missing or have changed: give the same photos, or train again"
        )
    new = len(pairs) - len(mine)
    if new:
        watch.say(f"{new} photos that are not in the run are left out; train again to use them")
    rows = sorted(mine)
    examples = tuple(
        dataclasses.replace(pairs[i][0], label=mine[i].label, group=mine[i].group, split=None) for i in rows
    )
    dataset = Dataset(examples, classes, features.dataset.name, features.dataset.skipped)
    kept = dataclasses.replace(features, dataset=dataset, keys=tuple(pairs[i][1] for i in rows))
    parts = {
        name: dataset.select(i for i, row in enumerate(rows) if mine[row].part == name) for name in PARTS
    }
    return kept, Splits(**parts)
