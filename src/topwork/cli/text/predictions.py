"""Predictions as a table, CSV or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from topwork.jobs.predictions_csv import csv_line

if TYPE_CHECKING:
    from topwork.classifiers.classifier import Prediction
from topwork.jobs.predictions_csv import csv_cells, csv_columns


def print_table(predictions: Iterable[Prediction], *, top: int, least: float | None = None) -> bool:
    """Print one line per image with its most likely classes. Returns False if no image could be read."""

    def line(prediction: Prediction) -> str:
        if prediction.error is not None:
            return f"{prediction.image}: can't be read: {prediction.error}"
        classes = "  ".join(f"{name} {100 * p:.1f} %" for name, p in _named(prediction, top, least))
        if prediction.rejected:
            return f"{prediction.image}: none of these ({prediction.reason}; else {classes})"
        return f"{prediction.image}: {classes}"

    return _each(predictions, lambda prediction: print(line(prediction), flush=True))


def print_csv(predictions: Iterable[Prediction], *, top: int, least: float | None = None) -> bool:
    """Print one row per image: image, class and probability (for each of the top classes), rejected, error.

    With `least`, the column `set` has all classes with at least this probability, separated by "|".
    """
    sys.stdout.write(csv_line(csv_columns(top=top, sets=least is not None)))
    return _each(predictions, lambda p: sys.stdout.write(csv_line(csv_cells(p, top=top, least=least))))


def print_json(predictions: Iterable[Prediction], *, top: int, least: float | None = None) -> bool:
    """Print one list of `{image, class, probability, top: [...], rejected}` or `{image, error}`.

    `rejected` is null, or the reason why the picture is none of the classes. With `least`, `set` lists the classes
    with at least this probability.
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
