"""The result of a fine-tuning as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from topwork.cli.text.scorecard import summary, table

if TYPE_CHECKING:
    from topwork.classifiers.score import Scored
    from topwork.jobs.finetune import Finetuned


def finetuned_text(result: Finetuned) -> str:
    """The verdict, the score of the classifier that is kept, and the next command."""
    tuned = result.tuned
    where = f"the tail after {tuned.cut.name}" if tuned.cut else "the whole network"
    epochs = len(tuned.history)
    lines = [
        f"Tuned {where}: {epochs} epoch{'s' if epochs > 1 else ''} of {tuned.epochs}; "
        f"weights: {100 * tuned.mix:.0f} % tuned, {100 - 100 * tuned.mix:.0f} % frozen{_beside(tuned.share)}",
        outcome(result),
        "",
    ]
    if (held := _held(result)) is not None:
        lines += ["Test", summary(held.evaluation), "", table(held.evaluation), ""]
    lines += [
        f"{result.path} contains the {_holds(result)} classifier; {result.seconds['total']:.0f} s.",
        *([f"The frozen one is in {result.path / 'frozen'}."] if result.kept or result.tuned_before else []),
        f"Next: topwork predict {result.path} PHOTOS",
    ]
    return "\n".join(lines)


def finetuned_json(result: Finetuned) -> str:
    """The result as JSON.

    `verdict` and `test` are null without test images; `test` also if the classifier of an earlier tuning is kept.
    """
    held = _held(result)
    return json.dumps(
        {
            "run": str(result.path),
            "kept": result.kept,
            "holds": _holds(result),
            "cut": result.tuned.cut.name if result.tuned.cut else None,
            "mix": result.tuned.mix,
            "share": result.tuned.share,
            "history": [asdict(epoch) for epoch in result.tuned.history],
            "verdict": result.verdict.to_dict() if result.verdict else None,
            "test": held.evaluation.to_dict() if held else None,
            "seconds": result.seconds,
        }
    )


def _holds(result: Finetuned) -> str:
    """Which classifier the run now contains."""
    return "tuned" if result.kept else "earlier tuned" if result.tuned_before else "frozen"


def _held(result: Finetuned) -> Scored | None:
    """The score of the run's classifier on the test images, if this tuning computed it."""
    if result.kept:
        return result.test
    return None if result.tuned_before else result.frozen


def _beside(share: float) -> str:
    """The weight of the frozen network in an ensemble of both."""
    return (
        f"; ensemble: {100 * share:.0f} % tuned, {100 - 100 * share:.0f} % frozen network"
        if share < 1
        else ""
    )


def outcome(result: Finetuned) -> str:
    """The verdict in a sentence."""
    if result.verdict:
        return result.verdict.sentence
    kept = "kept" if result.kept else "not kept"
    return f"no test images to compare them; decided on the validation images: {kept}"
