"""The demo: find defective solar cells in 2,624 electroluminescence photos, and compare with published scores.

Data and scores: Deitsch et al. 2019, "Automatic classification of defective photovoltaic module cells in
electroluminescence images" (https://doi.org/10.1016/j.solener.2019.02.067); package `elpv-dataset`. As in that paper,
every cell that may be defective is labelled defective, uncertain cells have a weight of 0.33 or 0.67, and a quarter
of the cells, stratified by label and module type, is the test set.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

from topwork.cli.text.run import run_text
from topwork.data.dataset import Dataset, Example, FileImage
from topwork.data.split import split
from topwork.errors import InputError, MissingExtra
from topwork.jobs.train import Run, train
from topwork.progress import Watch
from topwork.recipe import Recipe

FUNCTIONAL, DEFECTIVE = "functional", "defective"
TEST = 0.25
WEIGHTS = {0.0: 1.0, 0.33: 0.33, 0.67: 0.67, 1.0: 1.0}  # a cell's probability of being defective → its weight
PAPER = {"SVM": 82.44, "VGG-19, fine-tuned": 88.42}  # accuracy, %


def load_cells() -> tuple[Dataset, list[str]]:
    """The labelled and weighted cells, and the module type ("mono" or "poly") of each.

    Raises:
        MissingExtra: `elpv-dataset` is not installed.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise MissingExtra("the demo", "demo")
    folder = Path(spec.origin).parent / "data"
    try:
        with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
            rows = [line.split() for line in file if line.strip()]
    except OSError as error:
        raise InputError(f"{folder}: expected the cells of elpv-dataset; {error.strerror}") from None
    examples = []
    for name, probability, _ in rows:
        chance = round(float(probability), 2)
        label = DEFECTIVE if chance > 0 else FUNCTIONAL
        examples.append(Example(name, FileImage(str(folder / name)), label, weight=WEIGHTS[chance]))
    return Dataset(tuple(examples), (DEFECTIVE, FUNCTIONAL), "ELPV solar cells"), [row[2] for row in rows]


def split_cells(dataset: Dataset, types: list[str], *, seed: int) -> Dataset:
    """The cells with a quarter marked as test, stratified by label and module type."""
    parts = split(dataset, test=TEST, seed=seed, strata=types)
    test = {example.id for example in parts.test}
    marked = (dataclasses.replace(e, split="test" if e.id in test else "train") for e in dataset)
    return Dataset(tuple(marked), dataset.classes, dataset.name)


def run_demo(out: Path, *, overwrite: bool, watch: Watch) -> str:
    """Train on the cells, and report the scores with the paper's."""
    cells, types = load_cells()
    watch.say(f"{len(cells)} photos of solar cells: which are defective?")
    run = train(split_cells(cells, types, seed=0), out, recipe=Recipe(), overwrite=overwrite, watch=watch)
    return f"{run_text(run)}\n\n{beside_paper(run)}\n\n{_what_next(run, cells)}"


def beside_paper(run: Run) -> str:
    """A table of the test accuracy, weighted and unweighted, and the paper's."""
    assert run.test is not None
    assert run.test.weighted_accuracy is not None
    lines = ["                                          accuracy, %"]
    lines += [f"{'Deitsch et al. 2019, ' + name:40}  {score:5.2f}" for name, score in PAPER.items()]
    lines += [
        f"{'this run, weighted by certainty':40}  {100 * run.test.weighted_accuracy:5.2f}",
        f"{'this run, unweighted':40}  {100 * run.test.accuracy:5.2f}",
        f"One split with {run.test.n} test cells, different from the paper's; docs/benchmarks.md has ten splits.",
    ]
    return "\n".join(lines)


def _what_next(run: Run, cells: Dataset) -> str:
    example = cells[0].image
    return "\n".join(
        [
            "Try next:",
            f"  topwork predict {run.path} {example} --top 2",
            "  topwork train YOUR_PHOTOS --out runs/mine      (one sub-folder per class)",
        ]
    )
