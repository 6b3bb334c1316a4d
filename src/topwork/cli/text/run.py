"""Results as text for people, and as JSON and CSV for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from statistics import mean
from typing import TYPE_CHECKING

from topwork.cli.text.audit import counts_text
from topwork.cli.text.scorecard import summary, table
from topwork.cli.text.tuning import finetuned_json, outcome
from topwork.data.dataset import Problem

if TYPE_CHECKING:
    from topwork.classifiers.score import Scored
    from topwork.jobs.train import Run

SHOWN = 5  # of the images left out; the report has them all


def run_text(run: Run) -> str:
    """What a training gave: the score, what it rests on, where it lies and what to try next."""
    parts = ", ".join(f"{n} {name}" for name, n in run.splits.items() if n)
    total = sum(run.splits.values())
    speed = f"features of {run.computed} images computed, {total - run.computed} stored before"
    lines = [
        f"{len(run.classifier.classes)} classes, {total} images ({parts}); {speed}",
        *_chosen(run),
        *_tuning(run),
        "",
        "Test",
        summary(run.test) if run.test else "no image could be spared for a test: add photos, or raise --test",
        "",
        *([table(run.test), ""] if run.test else []),
        *doubts_text(run),
        *left_out_text(run.problems, elsewhere="all of them stand in the run's report.json"),
        f"{run.path} holds the run; {run.seconds['total']:.1f} s.",
        f"Next: look at {run.path / 'report.html'}; topwork predict {run.path} PHOTOS",
    ]
    return "\n".join(lines)


def doubts_text(run: Run) -> list[str]:
    """What there is to know before the score is believed: its spread, copies, labels in doubt."""
    lines = []
    if len(folds := run.cross_validated) > 1:
        lines.append(
            f"{len(folds)}-fold cross-validation on the training images: {100 * mean(folds):.1f} % "
            f"(folds {100 * min(folds):.1f} to {100 * max(folds):.1f})"
        )
    if run.leak:
        low, high = run.leak.interval
        lines.append(
            "near-duplicates stay on one side of the split; a split that ignores them would have tested on "
            f"{run.leak.images} of {run.leak.tested} images with a copy in training, "
            f"and claimed {100 * run.leak.accuracy:.1f} % "
            f"(95 %: {100 * low:.1f} to {100 * high:.1f})"
        )
    if run.audit and (told := counts_text(run.audit)):
        lines.append(f"to look at: {told}; see {run.path / 'audit.json'}")
    return [*lines, ""] if lines else []


def run_json(run: Run) -> str:
    """`run`, `classes`, `splits`, `test` (null if there is none), `head`, `left_out` and `seconds`."""
    head = {
        "kind": run.classifier.head.kind,
        "blocks": list(run.classifier.blocks),
        "candidates": [asdict(candidate) for candidate in run.fitted.candidates],
    }
    return json.dumps(
        {
            "run": str(run.path),
            "classes": list(run.classifier.classes),
            "splits": run.splits,
            "test": run.test.to_dict() if run.test else None,
            "head": head,
            "computed": run.computed,
            "left_out": [asdict(problem) for problem in run.problems],
            "finetune": json.loads(finetuned_json(run.finetuned)) if run.finetuned else None,
            "leak": asdict(run.leak) if run.leak else None,
            "cross_validated": list(run.cross_validated),
            "audit": run.audit.counts() if run.audit else None,
            "seconds": run.seconds,
        }
    )


def evaluation_text(scored: Scored) -> str:
    """The score, the table of classes, and what was left out."""
    left_out = left_out_text(scored.problems, elsewhere="--json tells all of them")
    return "\n".join([summary(scored.evaluation), "", table(scored.evaluation), *left_out])


def evaluation_json(scored: Scored, *, learned_from: int) -> str:
    """The evaluation's own fields, `learned_from` (how many images the classifier learned from) and `left_out`."""
    left_out = [asdict(problem) for problem in scored.problems]
    return json.dumps({**scored.evaluation.to_dict(), "learned_from": learned_from, "left_out": left_out})


def left_out_text(problems: tuple[Problem, ...], *, elsewhere: str) -> list[str]:
    """The images left out: how many, and the first few with the reason. `elsewhere`: where to find them all."""
    if not problems:
        return []
    lines = [f"left out: {len(problems)} ({elsewhere})"]
    lines += [f"  {problem.id}: {problem.reason}" for problem in problems[:SHOWN]]
    return [*lines, *(["  …"] if len(problems) > SHOWN else []), ""]


def _tuning(run: Run) -> list[str]:
    if run.finetuned:
        return ["tuned: " + outcome(run.finetuned)]
    return ["not tuned: " + run.advice.sentences[2]] if run.advice else []


def _chosen(run: Run) -> list[str]:
    if not run.fitted.candidates:
        return [f"head: {run.classifier.head.kind}, on {' + '.join(run.classifier.blocks)}"]
    best, *others = run.fitted.candidates
    lines = [
        f"head: {run.classifier.head.kind} on features {best.features!r} ({best.width} numbers), strength "
        f"{best.strength:g}: {100 * best.held_out_accuracy:.1f} % in {run.fitted.held_out}"
    ]
    lines += [f"  rather than {c.features!r}: {100 * c.held_out_accuracy:.1f} %" for c in others]
    return lines
