"""Read and write a run's `splits.csv` and `report.json`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topwork.classifiers.classifier import Classifier
from topwork.classifiers.score import probabilities_of
from topwork.data.split import Splits
from topwork.errors import InputError
from topwork.features.extract import Features, Matrix
from topwork.runs.folder import PARTS, REPORT, SPLITS

COLUMNS = ("id", "split", "label", "prediction", "probability", "sha256", "group")


@dataclass(frozen=True, slots=True)
class RunImage:
    """A row of a run's `splits.csv`."""

    id: str
    part: str  # train, validation or test
    label: str
    prediction: str  # the class predicted by the run's classifier
    probability: float  # of `prediction`, 0 to 1
    key: bytes  # SHA-256 of the image's bytes
    group: str | None


def images_for(
    classifier: Classifier, features: Features, splits: Splits, probabilities: Matrix | None = None
) -> tuple[RunImage, ...]:
    """One record per image, in the order of `features`; `probabilities` are the classifier's, if they are known.

    Predictions on training images are overoptimistic; only those on test images show the classifier's accuracy.
    """
    part_of = {e.id: name for name in PARTS for e in getattr(splits, name)}
    if probabilities is None:
        probabilities = probabilities_of(classifier, features)
    found = []
    for example, key, p in zip(features.dataset, features.keys, probabilities, strict=True):
        best = int(p.argmax())
        found.append(
            RunImage(
                example.id,
                part_of[example.id],
                example.label or "",
                classifier.classes[best],
                float(p[best]),
                key,
                example.group,
            )
        )
    return tuple(found)


def write_images(folder: Path, images: Iterable[RunImage]) -> None:
    """Write `splits.csv`."""
    path = folder / SPLITS
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for i in images:
            rows.writerow(
                [i.id, i.part, i.label, i.prediction, f"{i.probability:.6f}", i.key.hex(), i.group or ""]
            )


def images_of(folder: str | Path) -> tuple[RunImage, ...]:
    """The images of a run, in the order of its `splits.csv`.

    Raises:
        InputError: it is not a run, or its list of images is damaged.
    """
    path = Path(folder) / SPLITS
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            if absent := [name for name in COLUMNS[:-1] if name not in (lines.fieldnames or ())]:
                raise KeyError(absent[0])
            return tuple(_image(line, at) for at, line in enumerate(lines, 2))
    except FileNotFoundError:
        raise InputError(
            f"{folder}: expected a folder that `topwork train` wrote; it has no {SPLITS}"
        ) from None
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path}: expected a run's list of images; it can't be read ({error}); copy the complete run folder"
        ) from None


def _image(line: Mapping[str, str], at: int) -> RunImage:
    """Parse a line. Raises KeyError or ValueError, with the reason, if it is invalid."""
    known = {name: line[name] for name in COLUMNS[:-1]}
    empty = [name for name in known if not line[name] and name != "label"]
    if empty:
        raise ValueError(f"row {at} has no {empty[0]}")
    if line["split"] not in PARTS:
        raise ValueError(f"row {at}: split must be one of {', '.join(PARTS)}; got {line['split']!r}")
    try:
        probability = float(line["probability"])
    except ValueError:
        probability = -1.0
    if not 0 <= probability <= 1:
        raise ValueError(f"row {at}: probability must be in 0..1; got {line['probability']!r}")
    return RunImage(
        id=line["id"],
        part=line["split"],
        label=line["label"],
        prediction=line["prediction"],
        probability=probability,
        key=bytes.fromhex(line["sha256"]),
        group=line.get("group") or None,
    )


def read_report(folder: str | Path) -> dict[str, Any]:
    """A run's `report.json`.

    Raises:
        InputError: it is missing or damaged.
    """
    return read_json(Path(folder) / REPORT)


def write_report_json(folder: Path, report: Mapping[str, Any]) -> None:
    """Write a run's `report.json`."""
    (folder / REPORT).write_text(json.dumps(report, indent=2, ensure_ascii=False), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object written by `topwork train`.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: expected a file that `topwork train` wrote; it can't be read ({error})"
        ) from None
    if not isinstance(plain, dict):
        raise InputError(f"{path}: expected a file that `topwork train` wrote; it has been changed")
    return plain


def source_of(folder: Path, mend: str) -> str:
    """The location of the run's photos when it was trained.

    Raises:
        InputError: the run doesn't record it; the message ends with `mend`, what the user can do.
    """
    found = read_report(folder).get("source")
    if not isinstance(found, str):
        raise InputError(f"{folder}: doesn't record where its photos are; {mend}")
    return found
