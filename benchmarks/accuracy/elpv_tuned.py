"""Test accuracy on the ELPV cells before and after the tail is tuned, split by split, by `topwork.train`.

    python -m benchmarks.accuracy.elpv_tuned [--splits 10] [--first 0] [--minutes 15] [--cut NAME] [--epochs 15]
        [--views 8] [--backbone efficientnet-lite0] [--size 224] [--turned one] [--levels] [--work benchmarks/work]

The splits are those of `elpv_frozen`: 75/25, of seed 0, 1, …, stratified by label and module type; any doubt
counts as defective, and unsure cells weigh 0.33 and 0.67, in learning and in the weighted score. Cells are mirrored
both ways. Each split is one training as a user would start it; whether its tuned network is kept, cells of the
training part decide. Rows go to `work`/elpv_tuned.jsonl; those that are there, of the same settings, are not made
again.

`--levels`: the classes are the four degrees of doubt that the experts gave, all cells count alike in learning, and
each score has the decision that suits it (see `decided`).
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.options import WORK, shared_options
from topwork.classifiers.score import Scored
from topwork.cli.console import Console
from topwork.cli.demo import DEFECTIVE, FUNCTIONAL, load_cells, split_cells
from topwork.data.dataset import Dataset, Example
from topwork.jobs.train import train
from topwork.recipe import AugmentRecipe, BackboneRecipe, FinetuneRecipe, Recipe, SplitRecipe

LEVELS = ("0.00", "0.33", "0.67", "1.00")  # how likely a cell is defective
TESTED, LEARNT = 0.25, 0.75  # shares of a split
T_95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}  # Student's, 97.5 %
Row = dict[str, Any]
Array = np.ndarray[Any, Any]


def main() -> None:
    usual = FinetuneRecipe()
    parser = shared_options(
        __doc__,
        splits=10,
        backbone="efficientnet-lite0",
        size=None,
        minutes=usual.minutes,
        cut=None,
        epochs=usual.epochs,
        work=WORK,
    )
    parser.add_argument("--first", type=int, default=0, help="seed of the first split")
    parser.add_argument(
        "--views", type=int, default=usual.views, help="mirrored views of each training image"
    )
    parser.add_argument("--turned", default="one", help="views of a cell that features are the mean of")
    parser.add_argument("--levels", action="store_true", help="learn the degrees of doubt")
    options = parser.parse_args()
    tuning = FinetuneRecipe(
        mode="tail",
        minutes=options.minutes,
        cut=options.cut,
        epochs=options.epochs,
        views=options.views,
        augment=AugmentRecipe(flips="both"),
    )
    backbone = BackboneRecipe(handle=options.backbone, size_px=options.size, views=options.turned)
    path = options.work / "elpv_tuned.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    settings = f"{options.backbone} {options.size} {options.turned} {'levels ' * options.levels}{tuning}"
    known = {row["seed"]: row for row in map(json.loads, lines) if row["settings"] == settings}
    rows = []
    for seed in range(options.first, options.first + options.splits):
        if seed not in known:
            recipe = Recipe(backbone=backbone, split=SplitRecipe(seed=seed), finetune=tuning)
            known[seed] = {"settings": settings, "seed": seed, **measure(seed, recipe, levels=options.levels)}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known[seed]) + "\n")
        rows.append(known[seed])
        print({name: v for name, v in known[seed].items() if name != "settings"}, flush=True)
    if len(rows) > 1:
        print(table(rows))


def measure(seed: int, recipe: Recipe, *, levels: bool) -> Row:
    """One training, frozen and then tuned. Accuracies are in percent."""
    cells, types = load_cells()
    data = split_cells(cells, types, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run = train(by_level(data) if levels else data, Path(folder) / "run", recipe=recipe, watch=Console())
        seconds = time.perf_counter() - began
    done = run.finetuned
    assert done is not None
    assert done.frozen is not None
    assert done.test is not None
    return {
        **scores(done.frozen, data),
        **{f"{name}_tuned": value for name, value in scores(done.test, data).items()},
        "kept": done.kept,
        "share": done.tuned.share,
        "cut": done.tuned.cut.name if done.tuned.cut else None,
        "epochs": len(done.tuned.history),
        **held_row(done.tuned),
        "minutes": round(seconds / 60, 2),
    }


def held_row(tuned: Any) -> Row:
    """What the validation images said of the frozen and the tuned network."""
    values = {
        "held_loss": tuned.before.loss,
        "held_loss_tuned": tuned.after.loss,
        "held_saved_error": tuned.saved.error,
        "held_accuracy": tuned.before.accuracy,
        "held_accuracy_tuned": tuned.after.accuracy,
    }
    return {name: round(value, 4) for name, value in values.items()} | {"held_images": len(tuned.held)}


def by_level(cells: Dataset) -> Dataset:
    """The cells by how sure the experts were that they are defective, each of weight 1."""
    examples = tuple(dataclasses.replace(e, label=level(e), weight=1.0) for e in cells)
    return Dataset(examples, LEVELS, cells.name)


def level(cell: Example) -> str:
    return LEVELS[0] if cell.label == FUNCTIONAL else f"{cell.weight:.2f}"


def scores(scored: Scored, cells: Dataset) -> dict[str, float]:
    """Accuracy on the test cells, plain and weighted, in percent, each by the decision that suits it."""
    known = {cell.id: cell for cell in cells}
    test = [known[example.id] for example in scored.features.dataset]
    defective = np.array([cell.label == DEFECTIVE for cell in test])
    weights = {"plain": np.ones(len(test)), "weighted": np.array([cell.weight for cell in test])}
    return {
        name: 100 * float(np.average(decided(scored, name == "weighted") == defective, weights=some))
        for name, some in weights.items()
    }


def decided(scored: Scored, weighted: bool) -> Array:
    """Whether each test cell is called defective, bool (N,).

    Of two classes, the likelier. Of the degrees of doubt: whether "defective" is right with a greater chance than
    "functional", or, `weighted`, is expected to be worth more.
    """
    p = scored.probabilities
    if p.shape[1] == 2:
        return np.asarray(p.argmax(1) == 0)
    worth = [float(name) for name in LEVELS[1:]] if weighted else [1.0, 1.0, 1.0]
    return np.asarray(p[:, 1:] @ worth > p[:, 0])


def table(rows: list[Row]) -> str:
    """Means over splits; what the run holds at the end is the tuned one where it was kept, else the frozen one."""
    lines = [
        f"{len(rows)} splits, mean (standard deviation), tuned and kept in {sum(r['kept'] for r in rows)}, "
        f"{statistics.mean(r['minutes'] for r in rows):.1f} minutes a split "
        f"(at most {max(r['minutes'] for r in rows):.1f})"
    ]
    for name in ("plain", "weighted"):
        frozen, tuned = ([row[key] for row in rows] for key in (name, f"{name}_tuned"))
        held = [t if row["kept"] else f for f, t, row in zip(frozen, tuned, rows, strict=True)]
        gain = [h - f for h, f in zip(held, frozen, strict=True)]
        parts = ", ".join(
            f"{what} {statistics.mean(v):.2f} ({statistics.stdev(v):.2f})"
            for what, v in (("frozen", frozen), ("tuned", tuned), ("kept", held))
        )
        low, high = interval(gain)
        lines.append(f"{name:8}: {parts}; gain {statistics.mean(gain):+.2f} (95 % {low:+.2f} to {high:+.2f})")
    return "\n".join(lines)


def interval(gains: list[float]) -> tuple[float, float]:
    """Of a mean over splits that share images: Student's t with the variance corrected for that.

    Nadeau and Bengio 2003, "Inference for the generalization error": (1/n + tested/learnt) · variance.
    """
    n = len(gains)
    half = T_95[n - 1] * math.sqrt((1 / n + TESTED / LEARNT) * statistics.variance(gains))
    mean = statistics.mean(gains)
    return mean - half, mean + half


if __name__ == "__main__":
    main()
