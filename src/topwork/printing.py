"""Results as text for people, and as JSON and CSV for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from statistics import mean
from typing import TYPE_CHECKING

from topwork.cache import CacheInfo
from topwork.data.dataset import Problem
from topwork.printing_audit import counts_text
from topwork.printing_tuning import finetuned_json, outcome
from topwork.rowfile import csv_line
from topwork.scorecard import summary, table

if TYPE_CHECKING:
    from topwork.classifier import Prediction, Scored
    from topwork.training import Run

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
            f"copies stay on one side: a split blind to them would have tested on {run.leak.images} of "
            f"{run.leak.tested} images with a copy in training, and claimed {100 * run.leak.accuracy:.1f} % "
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


def print_table(predictions: Iterable[Prediction], *, top: int, least: float | None = None) -> bool:
    """A line an image: its name, and the likeliest classes. False where no image could be read."""

    def line(prediction: Prediction) -> str:
        if prediction.error is not None:
            return f"{prediction.image}: can't be read: {prediction.error}"
        classes = "  ".join(f"{name} {100 * p:.1f} %" for name, p in _named(prediction, top, least))
        if prediction.rejected:
            return f"{prediction.image}: none of these ({prediction.reason}; else {classes})"
        return f"{prediction.image}: {classes}"

    return _each(predictions, lambda prediction: print(line(prediction), flush=True))


def print_csv(predictions: Iterable[Prediction], *, top: int, least: float | None = None) -> bool:
    """One row an image: image, class, probability (for each of the top classes), rejected, error.

    With `least`, a column `set` before them: the classes that are so probable, with "|" between.
    """
    sys.stdout.write(csv_line(csv_columns(top=top, sets=least is not None)))
    return _each(predictions, lambda p: sys.stdout.write(csv_line(csv_cells(p, top=top, least=least))))


def csv_columns(*, top: int, sets: bool) -> tuple[str, ...]:
    """The head of `csv_cells`."""
    numbers = [""] + [f"_{i}" for i in range(2, top + 1)]
    names = (f"{name}{i}" for i in numbers for name in ("class", "probability"))
    return ("image", *names, *(["set"] if sets else []), "rejected", "error")


def csv_cells(prediction: Prediction, *, top: int, least: float | None = None) -> list[str]:
    """What a row says of one image; the names are as they are, whatever a spreadsheet makes of them."""
    cells = [cell for name, p in prediction.top(top) for cell in (name, f"{p:.6f}")]
    cells += [""] * (2 * top - len(cells))
    if least is not None:
        cells.append("|".join(name for name, _ in prediction.at_least(least)))
    return [prediction.image, *cells, prediction.reason or "", prediction.error or ""]


def print_json(predictions: Iterable[Prediction], *, top: int, least: float | None = None) -> bool:
    """One list of `{image, class, probability, top: [...], rejected}` or `{image, error}`.

    `rejected` is null, or why the picture is none of the classes. With `least`, `set` lists those so probable.
    """
    items: list[dict[str, object]] = []

    def keep(prediction: Prediction) -> None:
        if prediction.error is not None:
            items.append({"image": prediction.image, "error": prediction.error})
            return
        ranked = [{"class": name, "probability": round(p, 6)} for name, p in prediction.top(top)]
        item = {"image": prediction.image, **ranked[0], "top": ranked, "rejected": prediction.reason}
        if least is not None:
            item["set"] = [name for name, _ in prediction.at_least(least)]
        items.append(item)

    any_read = _each(predictions, keep)
    print(json.dumps(items, ensure_ascii=False))
    return any_read


def _named(prediction: Prediction, top: int, least: float | None) -> list[tuple[str, float]]:
    return prediction.top(top) if least is None else prediction.at_least(least)


def _each(predictions: Iterable[Prediction], show: Callable[[Prediction], object]) -> bool:
    any_read = False
    for prediction in predictions:
        any_read |= prediction.error is None
        show(prediction)
    return any_read


def cache_text(info: CacheInfo) -> str:
    """Where the cache is, and what each store holds."""
    lines = [f"{info.root}: {size_text(info.total_bytes)}"]
    for store in info.stores:
        rows = "?" if store.rows is None else f"{store.rows:,}"
        about = store.about or "unknown backbone"
        lines.append(
            f"  {store.fingerprint[:12]}  {rows} images  {size_text(store.size_bytes)}  {about}  "
            f"used {store.used:%Y-%m-%d %H:%M} UTC"
        )
    lines += [f"  {path.name}: damaged, set aside" for path in info.set_aside]
    return "\n".join(lines)


def cache_json(info: CacheInfo) -> str:
    """The same for a program."""
    stores = [
        {**asdict(store), "path": str(store.path), "used": store.used.isoformat()} for store in info.stores
    ]
    return json.dumps(
        {
            "root": str(info.root),
            "total_bytes": info.total_bytes,
            "stores": stores,
            "set_aside": [str(path) for path in info.set_aside],
        }
    )


def size_text(n_bytes: int) -> str:
    """1_500_000 → '1.5 MB'."""
    size = float(n_bytes)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


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
