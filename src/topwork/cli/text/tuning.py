"""What a tuning came to, as text for people and as JSON for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from topwork.cli.text.scorecard import summary, table

if TYPE_CHECKING:
    from topwork.classifiers.score import Scored
    from topwork.jobs.finetune import Finetuned


def finetuned_text(result: Finetuned) -> str:
    """What a tuning came to: the verdict, the score of what is kept, and what to do next."""
    tuned = result.tuned
    where = f"the tail after {tuned.cut.name}" if tuned.cut else "the whole network"
    epochs = len(tuned.history)
    lines = [
        f"Tuned {where}: {epochs} epoch{'s' if epochs > 1 else ''} of {tuned.epochs}, "
        f"{100 * tuned.mix:.0f} % of what was learnt mixed with the frozen weights{_beside(tuned.share)}",
        outcome(result),
        "",
    ]
    if (held := _held(result)) is not None:
        lines += ["Test", summary(held.evaluation), "", table(held.evaluation), ""]
    lines += [
        f"{result.path} holds the {_holds(result)} classifier; {result.seconds['total']:.0f} s.",
        *([f"The frozen one is in {result.path / 'frozen'}."] if result.kept or result.tuned_before else []),
        f"Next: topwork predict {result.path} PHOTOS",
    ]
    return "\n".join(lines)


def finetuned_json(result: Finetuned) -> str:
    """`run`, `kept`, `holds`, `cut`, `mix`, `share`, `history`, `verdict` and `test` (null without test images, or
    where an earlier tuning's classifier stays), `seconds`."""
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
    """Which classifier the run holds in the end."""
    return "tuned" if result.kept else "earlier tuned" if result.tuned_before else "frozen"


def _held(result: Finetuned) -> Scored | None:
    """Its score on the test images, as far as this tuning has it."""
    if result.kept:
        return result.test
    return None if result.tuned_before else result.frozen


def _beside(share: float) -> str:
    """How much of the say the frozen network has, that runs beside the tuned one."""
    return f"; the frozen network beside it has {100 - 100 * share:.0f} % of the say" if share < 1 else ""


def outcome(result: Finetuned) -> str:
    """The verdict in a sentence."""
    if result.verdict:
        return result.verdict.sentence
    kept = "kept" if result.kept else "not kept"
    return f"no test images to compare the two by; by the validation images: {kept}"
