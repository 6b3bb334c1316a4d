"""What the page shows, gathered from a run's folder: plain records, no markup."""

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
A_CELL = 6  # pictures of a cell of the confusion matrix that are shown at any rate, if there are so many
SHOTS = 480  # pictures of test images at most
FINDINGS = 12  # of a kind
COPIES = 4  # pictures of one finding


@dataclass(frozen=True, slots=True)
class Shot:
    """A test image and what was said of it."""

    id: str
    label: str
    prediction: str
    probability: float

    @property
    def wrong(self) -> bool:
        """Whether the answer was another than the label."""
        return self.label != self.prediction


@dataclass(frozen=True, slots=True)
class Item:
    """One finding of the audit: the first of its pictures' ids, all its labels, a note."""

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    note: str


@dataclass(frozen=True, slots=True)
class FindingGroup:
    """The findings of a kind: how many there are, and those that are shown."""

    name: str
    title: str
    meaning: str
    count: int
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Content:
    """All that the page tells. `shots`: the test images that are shown, the surest mistakes first."""

    title: str
    evaluation: Evaluation | None
    shots: tuple[Shot, ...]
    curve: LearningCurve | None
    growth: tuple[str, ...]
    notes: tuple[str, ...]
    findings: tuple[FindingGroup, ...]
    facts: tuple[tuple[str, str], ...]
    recipe: str

    def picture_ids(self) -> list[str]:
        """The images whose pictures the page needs, each once."""
        ids = [shot.id for shot in self.shots]
        ids += [id for group in self.findings for item in group.items for id in item.ids]
        return list(dict.fromkeys(ids))


def content_of(folder: Path) -> Content:
    """Read a run's folder.

    Raises:
        InputError: a file of it is missing or damaged.
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
    """The surest mistakes, and some of each cell of the confusion matrix."""
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
    """Findings as `audit.json` has them, by kind; of each at most so many are shown."""
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
    """What to know before the number is believed."""
    if evaluation is None:
        yield "No image could be spared for a test: nothing is known of how good this classifier is."
        return
    if evaluation.n < 100:
        yield f"{evaluation.n} test images are few: the interval says how little they prove."
    few = [s.name for s in evaluation.per_class if 0 < s.n < 10]
    if few:
        shown = ", ".join(repr(name) for name in few[:5]) + (" and others" if len(few) > 5 else "")
        yield f"Fewer than 10 test images of {shown}: nothing sure can be said of each alone."
    if evaluation.interval.low <= evaluation.baseline.accuracy:
        yield f"It is not shown to be better than always answering {evaluation.baseline.name!r}."
    if folds := report.get("cross_validated"):
        yield (
            f"On the training images, {len(folds)}-fold cross-validation gives {100 * sum(folds) / len(folds):.1f} % "
            f"(folds {100 * min(folds):.1f} to {100 * max(folds):.1f})."
        )
    if leak := report.get("leak"):
        low, high = leak["interval"]
        yield (
            "Near-duplicates were kept on one side of the split. A split that ignores them would have tested on "
            f"{leak['images']} of {leak['tested']} images with a copy in training, "
            f"and claimed {100 * leak['accuracy']:.1f} % "
            f"(95 %: {100 * low:.1f} to {100 * high:.1f})."
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
        yield "None of these", f"at most {100 * rate:g} % of pictures of the known classes are rejected"
    yield "Seconds", f"{report.get('seconds', {}).get('total', 0):.0f}"
    yield from described["versions"].items()
