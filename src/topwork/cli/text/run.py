"""The results of training and evaluation as text and as JSON."""

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

SHOWN = 5  # images left out that are listed; the report lists all


def run_text(run: Run) -> str:
    """The result of a training: data, head, score, caveats, location, and the next command."""
    parts = ", ".join(f"{n} {name}" for name, n in run.splits.items() if n)
    total = sum(run.splits.values())
    speed = f"features of {run.computed} images computed, {total - run.computed} from the store"
    lines = [
        f"{len(run.classifier.classes)} classes, {total} images ({parts}); {speed}",
        *_chosen(run),
        *_tuning(run),
        "",
        "Test",
        summary(run.test) if run.test else "too few images for a test set: add photos, or increase --test",
        "",
        *([table(run.test), ""] if run.test else []),
        *doubts_text(run),
        *left_out_text(run.problems, elsewhere="the run's report.json lists all"),
        f"wrote the run to {run.path} in {run.seconds['total']:.1f} s",
        f"Next: open {run.path / 'report.html'}, or run: topwork predict {run.path} PHOTOS",
    ]
    return "\n".join(lines)


def doubts_text(run: Run) -> list[str]:
    """Caveats of the score: its spread over folds, near-duplicates, probably mislabelled photos."""
    lines = []
    if len(folds := run.cross_validated) > 1:
        lines.append(
            f"{len(folds)}-fold cross-validation on the training images: {100 * mean(folds):.1f} % "
            f"(folds {100 * min(folds):.1f} to {100 * max(folds):.1f})"
        )
    if run.leak:
        low, high = run.leak.interval
        lines.append(
            f"near-duplicates stay on one side of the split; a naive split would have leaked {run.leak.images} of "
            f"{run.leak.tested} test images into training, and reported {100 * run.leak.accuracy:.1f} % "
            f"(95 %: {100 * low:.1f} to {100 * high:.1f})"
        )
    if run.audit and (told := counts_text(run.audit)):
        lines.append(f"to review: {told}; see {run.path / 'audit.json'}")
    return [*lines, ""] if lines else []


def run_json(run: Run) -> str:
    """The result of a training as JSON; `test` is null without test images."""
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
    """The score, a table of classes, and the images left out."""
    left_out = left_out_text(scored.problems, elsewhere="--json lists all")
    return "\n".join([summary(scored.evaluation), "", table(scored.evaluation), *left_out])


def evaluation_json(scored: Scored, *, learned_from: int) -> str:
    """The evaluation's fields, `learned_from` (how many images were used in training) and `left_out`."""
    left_out = [asdict(problem) for problem in scored.problems]
    return json.dumps({**scored.evaluation.to_dict(), "learned_from": learned_from, "left_out": left_out})


def left_out_text(problems: tuple[Problem, ...], *, elsewhere: str) -> list[str]:
    """The number of images left out, and the first few with reasons. `elsewhere`: where all are listed."""
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
