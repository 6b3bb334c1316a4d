"""Test accuracy on the ELPV cells, frozen features: mean over ten stratified 75/25 splits, plain and weighted.

    python -m benchmarks.accuracy.elpv_frozen [--splits 10] [--backbone efficientnet-lite0] [--size 224] [--views one]
        [--features auto] [--head linear]

Any doubt counts as defective; unsure cells weigh 0.33 and 0.67 (Deitsch et al. 2019). Each split, of seed 0, 1, …,
is stratified by label and module type. Heads are fitted thrice: with all cells alike, with the cells' weights, and
on the experts' four degrees of doubt (see `elpv_tuned`); all are scored both ways. All choices are made by 5-fold
cross-validation on the training cells.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.accuracy.elpv_tuned import by_level, scores
from benchmarks.options import shared_options
from topwork.backbones.backbone import load_backbone
from topwork.classifiers.classifier import Classifier
from topwork.classifiers.score import score
from topwork.cli.console import Console
from topwork.cli.demo import load_cells, split_cells
from topwork.data.dataset import Dataset
from topwork.data.split import Splits
from topwork.features.extract import extract, open_store
from topwork.heads.fit import fit_head
from topwork.progress import Silent
from topwork.recipe import HeadRecipe, Recipe


def main() -> None:
    parser = shared_options(__doc__, splits=10, backbone="efficientnet-lite0", size=None, json=None)
    parser.add_argument("--views", default="one")
    parser.add_argument("--features", default="auto")
    parser.add_argument("--head", default="linear")
    options = parser.parse_args()

    cells, types = load_cells()
    backbone = load_backbone(options.backbone, size_px=options.size, views=options.views)
    recipe = Recipe(head=HeadRecipe(kind=options.head, features=options.features))
    rows: dict[str, list[dict[str, float]]] = {"alike": [], "weighted": [], "levels": []}
    with open_store(backbone.facts) as store, tempfile.TemporaryDirectory() as folder:
        with Console().bar("features", len(cells)) as progress:
            features = extract(cells, backbone, store=store, progress=progress)
        for seed in range(options.splits):
            marked = split_cells(cells, types, seed=seed)
            for fit in rows:
                data = {"weighted": marked, "alike": alike(marked), "levels": by_level(marked)}[fit]
                splits = Splits(part(data, "train"), data.take(0), part(data, "test"))
                fitted = fit_head(features, splits, recipe, tensorboard=Path(folder), watch=Silent())
                classifier = Classifier(data.classes, backbone, fitted.blocks, fitted.head)
                test = score(classifier, features.part(splits.test))
                chosen = fitted.candidates[0]
                rows[fit].append(
                    {
                        **scores(test, marked),
                        "held_out": 100 * chosen.held_out_accuracy,
                        "width": chosen.width,
                    }
                )
                print(f"split {seed}, fitted {fit}: {rows[fit][-1]}", flush=True)
    print(
        f"\n{backbone.facts}, {options.head} head on {options.features!r}, {options.splits} splits: "
        "mean (standard deviation)"
    )
    for fit, results in rows.items():
        shown = [
            f"{name} {statistics.mean(v):.2f} ({statistics.stdev(v):.2f})"
            for name in ("plain", "weighted", "held_out")
            for v in [[row[name] for row in results]]
        ]
        print(f"fitted with cells {fit:8}: test accuracy, %: {', '.join(shown)}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def part(dataset: Dataset, name: str) -> Dataset:
    """The cells of one part."""
    return dataset.filter(lambda example: example.split == name)


def alike(dataset: Dataset) -> Dataset:
    """The same cells, each of weight 1."""
    examples = tuple(dataclasses.replace(e, weight=1.0) for e in dataset)
    return Dataset(examples, dataset.classes, dataset.name)


if __name__ == "__main__":
    main()
