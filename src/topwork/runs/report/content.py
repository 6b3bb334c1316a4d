"""The report's content as plain records, read from a run's folder."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topwork.checks.findings import KINDS
from topwork.classifiers.classifier import DESCRIPTION
from topwork.evaluation.evaluate import Evaluation
from topwork.evaluation.learning_curve import LearningCurve
from topwork.runs.folder import AUDIT, RECIPE
from topwork.runs.record import RunImage, images_of, read_json, read_report

MISTAKES = 240  # pictures of mistakes at most
A_CELL = 6  # pictures per cell of the confusion matrix at least, if there are so many
SHOTS = 480  # pictures of test images at most
FINDINGS = 12  # shown of each kind
COPIES = 4  # pictures shown per finding


@dataclass(frozen=True, slots=True)
class Shot:
    """A test image and its prediction."""

    id: str
    label: str
    prediction: str
    probability: float

    @property
    def wrong(self) -> bool:
        """Whether the prediction differs from the label."""
        return self.label != self.prediction


@dataclass(frozen=True, slots=True)
class Item:
    """One finding of the audit."""

    ids: tuple[str, ...]  # of the pictures shown
    labels: tuple[str, ...]  # of all its pictures
    note: str


@dataclass(frozen=True, slots=True)
class FindingGroup:
    """The findings of one kind."""

    name: str
    title: str
    meaning: str
    count: int
    items: tuple[Item, ...]  # those shown


@dataclass(frozen=True, slots=True)
class Content:
    """The content of the page."""

    title: str
    evaluation: Evaluation | None
    shots: tuple[Shot, ...]  # the test images shown, most confident mistakes first
    curve: LearningCurve | None
    growth: tuple[str, ...]
    notes: tuple[str, ...]
    findings: tuple[FindingGroup, ...]
    facts: tuple[tuple[str, str], ...]
    recipe: str

    def picture_ids(self) -> list[str]:
        """The ids of all images shown on the page, without repeats."""
        ids = [shot.id for shot in self.shots]
        ids += [image_id for group in self.findings for item in group.items for image_id in item.ids]
        return list(dict.fromkeys(ids))


def content_of(folder: Path) -> Content:
    """Read the content from a run's folder.

    Raises:
        InputError: a file is missing or damaged.
    """
    report, described = read_report(folder), read_json(folder / DESCRIPTION)
    audit = read_json(folder / AUDIT) if (folder / AUDIT).exists() else {"findings": []}
    evaluation = Evaluation.from_dict(report["test"]) if report.get("test") else None
    curve = report.get("curve")
    return Content(
        title=str(report.get("data", folder.name)),
        evaluation=evaluation,
        shots=_shown(_tested(images_of(folder))),
        curve=LearningCurve(**{**curve, "sizes": tuple(curve["sizes"]), "errors": tuple(curve["errors"])})
        if curve
        else None,
        growth=tuple(report.get("growth") or ()),
        notes=tuple(_notes(report, evaluation)),
        findings=finding_groups(audit["findings"]),
        facts=tuple(_facts(report, described)),
        recipe=(folder / RECIPE).read_text(encoding="utf-8"),
    )


def _tested(images: Iterable[RunImage]) -> list[Shot]:
    return [Shot(i.id, i.label, i.prediction, i.probability) for i in images if i.part == "test"]


def _shown(tested: list[Shot]) -> tuple[Shot, ...]:
    """The most confident mistakes, and some images of each cell of the confusion matrix."""
    surest = sorted(tested, key=lambda shot: (not shot.wrong, -shot.probability))
    of_cell: Counter[tuple[str, str]] = Counter()
    mistakes = 0
    kept: list[Shot] = []
    for shot in surest:
        cell = (shot.label, shot.prediction)
        if len(kept) < SHOTS and ((shot.wrong and mistakes < MISTAKES) or of_cell[cell] < A_CELL):
            kept.append(shot)
            of_cell[cell] += 1
            mistakes += shot.wrong
    return tuple(kept)


def finding_groups(found: Iterable[dict[str, Any]], *, most: int = FINDINGS) -> tuple[FindingGroup, ...]:
    """Group the findings of an `audit.json` by kind, and select at most `most` of each to show."""
    of_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for finding in found:
        of_kind[finding["kind"]].append(finding)
    return tuple(
        FindingGroup(
            name,
            kind.title,
            kind.meaning,
            len(those),
            tuple(
                Item(tuple(f["ids"][:COPIES]), tuple(str(v) for v in f["labels"] if v), f["note"])
                for f in those[:most]
            ),
        )
        for name, kind in KINDS.items()
        if (those := of_kind[name])
    )


def _notes(report: dict[str, Any], evaluation: Evaluation | None) -> Iterable[str]:
    """Notes on the reliability of the score."""
    if evaluation is None:
        yield "There are too few images to hold out a test set: the accuracy of this classifier is unknown."
        return
    if evaluation.n < 100:
        yield f"There are only {evaluation.n} test images, so the interval is wide."
    few = [s.name for s in evaluation.per_class if 0 < s.n < 10]
    if few:
        shown = ", ".join(repr(name) for name in few[:5]) + (" and others" if len(few) > 5 else "")
        yield f"There are fewer than 10 test images of {shown}: the metrics of these classes are unreliable."
    if evaluation.interval.low <= evaluation.baseline.accuracy:
        yield f"It is not significantly better than always predicting {evaluation.baseline.name!r}."
    if folds := report.get("cross_validated"):
        yield (
            f"On the training images, {len(folds)}-fold cross-validation gives {100 * sum(folds) / len(folds):.1f} % "
            f"(folds {100 * min(folds):.1f} to {100 * max(folds):.1f})."
        )
    if leak := report.get("leak"):
        low, high = leak["interval"]
        yield (
            f"Near-duplicates are kept on one side of the split. A naive split would have leaked {leak['images']} of "
            f"{leak['tested']} test images, with a near-duplicate in training, and reported an accuracy of "
            f"{100 * leak['accuracy']:.1f} % (95 %: {100 * low:.1f} to {100 * high:.1f})."
        )


def _facts(report: dict[str, Any], described: dict[str, Any]) -> Iterable[tuple[str, str]]:
    backbone = described["backbone"]
    yield "Network", f"{backbone['handle']} at {backbone['size_px']} px, {backbone['precision']}"
    yield (
        "Head",
        f"{described['head']} on {', '.join(described['blocks'][:3])}"
        + (f" and {len(described['blocks']) - 3} more" if len(described["blocks"]) > 3 else ""),
    )
    yield "Classes", str(len(described["classes"]))
    yield "Images", ", ".join(f"{n} {name}" for name, n in report.get("splits", {}).items() if n)
    yield "Left out", str(len(report.get("left_out", ())))
    yield "Temperature", f"{described['temperature']:.3f}"
    if rate := described.get("reject_rate"):
        yield "None of these", f"rejects at most {100 * rate:g} % of in-distribution pictures"
    yield "Training time", f"{report.get('seconds', {}).get('total', 0):.0f} s"
    yield from described["versions"].items()
