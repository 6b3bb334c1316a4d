"""An `Evaluation` in words: plain text of at most 80 columns, for a terminal or a log."""

from __future__ import annotations

import unicodedata

import numpy as np

from topwork.evaluation.evaluate import ClassScore, Evaluation, Interval

COLUMNS = 80
NAME_COLUMNS = 28  # in the table; what its figures leave


def summary(evaluation: Evaluation) -> str:
    """Two to four lines: accuracy with its doubt, what a guess would give, and the other scores.

    >>> from topwork.evaluation.evaluate import evaluate
    >>> result = evaluate([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], classes=["cat", "dog"])
    >>> print(summary(result))
    accuracy 66.7 % (95 %: 20.8 to 93.9, 3 images)
    always answering 'dog' gives 66.7 % · balanced accuracy 75.0 %
    log-loss 0.415 · calibration error (ECE) 30.0 % · AUROC 1.000
    """
    e = evaluation
    images = "1 image" if e.n == 1 else f"{e.n} images"
    lines = [f"accuracy {_percent(e.accuracy)} (95 %: {_range(e.interval)}, {images})"]
    always = f"gives {_percent(e.baseline.accuracy)} · balanced accuracy {_percent(e.balanced_accuracy)}"
    room = COLUMNS - len(f"always answering '' {always}")
    lines.append(f"always answering '{_shortened(e.baseline.name, room)}' {always}")
    if e.weighted_accuracy is not None and e.weighted_interval is not None and e.effective_n is not None:
        lines.append(
            f"weighted accuracy {_percent(e.weighted_accuracy)} (95 %: {_range(e.weighted_interval)}, "
            f"worth {e.effective_n:.0f} equal images)"
        )
    scores = [f"log-loss {e.log_loss:.3f}", f"calibration error (ECE) {_percent(e.calibration_error)}"]
    if e.auroc is not None:
        scores.append(f"AUROC {e.auroc:.3f}")
    scores += [f"top-{k} {_percent(share)}" for k, share in list(e.top_k.items())[:2]]
    return "\n".join([*lines, " · ".join(scores)])


def table(evaluation: Evaluation, *, rows: int = 20) -> str:
    """The `rows` classes that are recognised worst, worst first, then the three commonest confusions.

    Classes without images stand last. Long names are shortened with "…".
    """
    scores = sorted(evaluation.per_class, key=_worst_first)
    shown = scores[:rows]
    width = max([len("class"), *(_width(_shortened(score.name, NAME_COLUMNS)) for score in shown)])
    lines = [f"{_padded('class', width)} {'n':>6}  {'precision':>9}  {'recall':>7}  {'(95 %)':<15} {'F1':>7}"]
    lines += [_row(score, width) for score in shown]
    if len(scores) > len(shown):
        lines.append(f"… and {len(scores) - len(shown)} more classes")
    confusions = _confusions(evaluation)
    if confusions:
        lines += ["", "most often confused (true → predicted: images)", *confusions]
    return "\n".join(line.rstrip() for line in lines)


def _worst_first(score: ClassScore) -> tuple[bool, float, int]:
    # Of equal recalls, the class with more images first: it is the surer fault.
    return score.recall is None, score.recall or 0.0, -score.n


def _row(score: ClassScore, width: int) -> str:
    name = _padded(_shortened(score.name, width), width)
    doubt = f"({_range(score.interval)})" if score.interval else ""
    recall, f1 = _percent(score.recall), _percent(score.f1)
    return f"{name} {score.n:>6}  {_percent(score.precision):>9}  {recall:>7}  {doubt:<15} {f1:>7}"


def _confusions(evaluation: Evaluation, count: int = 3) -> list[str]:
    wrong = evaluation.confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]  # ties in the order of the classes
    out = []
    for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[i, j]:
            room = (COLUMNS - len(f"   → : {wrong[i, j]}")) // 2
            true, predicted = (_shortened(evaluation.classes[k], room) for k in (i, j))
            out.append(f"  {true} → {predicted}: {wrong[i, j]}")
    return out


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _range(interval: Interval) -> str:
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


def _shortened(name: str, columns: int) -> str:
    # A class is often a folder's name, which may hold anything: no control character reaches a terminal.
    name = "".join(c if c.isprintable() else "�" for c in name)
    if _width(name) <= columns:
        return name
    while _width(name) > columns - 1:
        name = name[:-1]
    return name + "…"


def _padded(name: str, columns: int) -> str:
    return name + " " * (columns - _width(name))


def _width(text: str) -> int:
    """Columns on a terminal: East Asian wide letters take two, combining marks none."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)
