"""An `Evaluation` as plain text of at most 80 columns, for a terminal or a log."""

from __future__ import annotations

import numpy as np

from topwork.evaluation.evaluate import ClassScore, Evaluation, Interval

COLUMNS = 80
NAME_COLUMNS = 28  # width of the class names in the table


def summary(evaluation: Evaluation) -> str:
    """Two to four lines: accuracy with its interval, the baseline, and other metrics.

    >>> from topwork.evaluation.evaluate import evaluate
    >>> result = evaluate([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], classes=["cat", "dog"])
    >>> print(summary(result))
    accuracy 66.7 % (95 %: 20.8 to 93.9, 3 images)
    always predicting 'dog' gives 66.7 % · balanced accuracy 75.0 %
    log-loss 0.415 · calibration error (ECE) 30.0 % · AUROC 1.000
    """
    e = evaluation
    images = "1 image" if e.n == 1 else f"{e.n} images"
    lines = [f"accuracy {_percent(e.accuracy)} (95 %: {_range(e.interval)}, {images})"]
    always = f"gives {_percent(e.baseline.accuracy)} · balanced accuracy {_percent(e.balanced_accuracy)}"
    room = COLUMNS - len(f"always predicting '' {always}")
    lines.append(f"always predicting '{_shortened(e.baseline.name, room)}' {always}")
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
    """The `rows` classes with the lowest recall, worst first, then the three most frequent confusions.

    Classes without images are last. Long names are truncated with "…".
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    scores = sorted(evaluation.per_class, key=_worst_first)
    grid = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False)
    grid.add_column("class")
    grid.add_column("n", justify="right", min_width=6)
    grid.add_column("precision", justify="right", min_width=10)
    grid.add_column("recall", justify="right", min_width=8)
    grid.add_column(" (95 %)", min_width=16)
    grid.add_column("F1", justify="right", min_width=7)
    for score in scores[:rows]:
        doubt = f" ({_range(score.interval)})" if score.interval else ""
        figures = (_percent(score.precision), _percent(score.recall), doubt, _percent(score.f1))
        grid.add_row(Text(_shortened(score.name, NAME_COLUMNS)), str(score.n), *figures)
    lines = "".join(part.text for part in Console(width=COLUMNS).render(grid)).splitlines()
    if len(scores) > rows:
        lines.append(f"… and {len(scores) - rows} more classes")
    confusions = _confusions(evaluation)
    if confusions:
        lines += ["", "most often confused (true → predicted: images)", *confusions]
    return "\n".join(line.rstrip() for line in lines)


def _worst_first(score: ClassScore) -> tuple[bool, float, int]:
    # With equal recall, the class with more images comes first, because its recall is more certain.
    return score.recall is None, score.recall or 0.0, -score.n


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
    from rich.cells import cell_len, chop_cells

    # Class names are often folder names and may contain control characters, which must not reach the terminal.
    name = "".join(c if c.isprintable() else "�" for c in name)
    return name if cell_len(name) <= columns else chop_cells(name, columns - 1)[0] + "…"
