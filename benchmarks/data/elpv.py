"""The ELPV solar cells as a folder of JPEG files with one sub-folder a class, and a manifest that splits them.

The 2,624 grey pictures of 300 x 300 px come from the package elpv-dataset (Deitsch et al. 2019,
arXiv:1807.02894). A cell with any probability of a defect counts as defective.
"""

from __future__ import annotations

import csv
import importlib.util
import random
import shutil
from pathlib import Path

from PIL import Image

FOLDER = "elpv-jpeg"
QUALITY = 90


def write_elpv(work: Path, *, seed: int, limit: int | None = None) -> Path:
    """Write the folder elpv-jpeg (once) and a manifest beside it; the manifest's path.

    The manifest lists the pictures in a seeded shuffle: the first half is for training, the next quarter for
    validation, the rest for testing. `limit` keeps the first of the shuffle only, for a quick trial.

    Raises:
        ModuleNotFoundError: elpv-dataset is not installed.
    """
    source = _find_package()
    cells = _read_cells(source / "labels.csv")
    _write_images(source, cells, work / FOLDER)
    random.Random(seed).shuffle(cells)
    cells = cells[:limit]
    train, validation = len(cells) // 2, len(cells) // 4
    splits = ["train"] * train + ["validation"] * validation
    splits += ["test"] * (len(cells) - len(splits))
    name = f"elpv-seed{seed}" + ("" if limit is None else f"-first{len(cells)}")
    manifest = work / f"{name}.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split"))
        for (image, label), split in zip(cells, splits, strict=True):
            writer.writerow((f"{FOLDER}/{_name(image, label)}", label, split))
    return manifest


def _find_package() -> Path:
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError('the benchmark needs the solar cells: pip install "topwork[demo]"')
    return Path(spec.origin).parent / "data"


def _read_cells(table: Path) -> list[tuple[str, str]]:
    """(picture, class) in the table's order; its rows are: picture, probability of a defect, kind of cell."""
    rows = [line.split() for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [(row[0], "defective" if float(row[1]) > 0 else "functional") for row in rows]


def _name(image: str, label: str) -> str:
    return f"{label}/{Path(image).stem}.jpg"


def _write_images(source: Path, cells: list[tuple[str, str]], folder: Path) -> None:
    if folder.exists():
        return
    partial = folder.with_name(folder.name + ".partial")  # renamed when whole: a break leaves no half folder
    shutil.rmtree(partial, ignore_errors=True)
    for label in {label for _, label in cells}:
        (partial / label).mkdir(parents=True)
    for path, label in cells:
        with Image.open(source / path) as image:
            image.convert("L").save(partial / _name(path, label), "JPEG", quality=QUALITY)
    partial.rename(folder)
