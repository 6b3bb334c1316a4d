from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from topwork.cli.demo import (
    DEFECTIVE,
    FUNCTIONAL,
    PAPER,
    WEIGHTS,
    beside_paper,
    load_cells,
    run_demo,
    split_cells,
)
from topwork.errors import InputError, MissingExtra
from topwork.jobs.train import train
from topwork.progress import Silent
from topwork.recipe import Recipe
from topwork.runs.folder import SPLITS

elpv = pytest.importorskip("elpv_dataset")


def test_the_cells_are_those_of_the_paper() -> None:
    """The counts stand in the data set's README; they are also counted here from its table, another way."""
    cells, types = load_cells()
    assert len(cells) == len(types) == 2624
    assert cells.class_counts() == {DEFECTIVE: 1116, FUNCTIONAL: 1508}
    assert set(types) == {"mono", "poly"}
    text = (Path(elpv.__file__).parent / "data" / "labels.csv").read_text(encoding="utf-8")
    table = [line.split() for line in text.splitlines() if line.strip()]
    chances = Counter(chance[:4] for _, chance, _ in table)
    weights = Counter((e.label, e.weight) for e in cells)
    assert weights[FUNCTIONAL, 1.0] == chances["0.0"]
    assert weights[DEFECTIVE, 1.0] == chances["1.0"]
    assert weights[DEFECTIVE, 0.33] == chances["0.33"]
    assert weights[DEFECTIVE, 0.67] == chances["0.66"]  # written 0.6666666666666666
    assert types.count("mono") == sum(kind == "mono" for *_, kind in table) == 1074
    assert set(WEIGHTS.values()) == {1.0, 0.33, 0.67}
    assert all(Path(e.image.path).is_file() for e in cells)


def test_a_quarter_is_the_test_in_every_class_and_type() -> None:
    cells, types = load_cells()
    marked = split_cells(cells, types, seed=0)
    assert [e.id for e in marked] == [e.id for e in cells]
    whole = Counter((e.label, kind) for e, kind in zip(marked, types, strict=True))
    test = Counter((e.label, kind) for e, kind in zip(marked, types, strict=True) if e.split == "test")
    assert sum(test.values()) == 657  # a quarter of each stratum, rounded half up
    for stratum, count in whole.items():
        assert abs(test[stratum] - count / 4) <= 0.5
    assert [e.split for e in split_cells(cells, types, seed=0)] == [e.split for e in marked]
    assert [e.split for e in split_cells(cells, types, seed=1)] != [e.split for e in marked]


def test_the_scores_stand_beside_the_papers(tmp_path: Path, recipe: Recipe) -> None:
    cells, types = load_cells()
    chosen = [*range(0, 2624, 26)]
    some = split_cells(cells.select(chosen), [types[i] for i in chosen], seed=0)
    run = train(some, tmp_path / "run", recipe=recipe)
    assert sum(run.splits.values()) == 101
    lines = beside_paper(run).split("\n")
    for name, score in PAPER.items():
        assert f"{'Deitsch et al. 2019, ' + name:40}  {score:5.2f}" in lines
    assert lines[-3].endswith(f"  {100 * run.test.weighted_accuracy:5.2f}")
    assert lines[-1].startswith(f"One split with {run.test.n} test cells, different from the paper's;")
    assert lines[-2].endswith(f"  {100 * run.test.accuracy:5.2f}")
    assert len({line.rindex(".") for line in lines[1:-1]}) == 1  # the points stand below one another
    with (run.path / SPLITS).open(newline="", encoding="utf-8") as file:
        weight = {e.id: e.weight for e in some}
        test = [row for row in csv.DictReader(file) if row["split"] == "test"]
    right = sum(weight[row["id"]] for row in test if row["label"] == row["prediction"])
    assert run.test.weighted_accuracy == pytest.approx(right / sum(weight[row["id"]] for row in test))


def test_the_whole_demonstration_of_a_few_cells(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells, types = load_cells()
    chosen = [*range(0, 2624, 40)]
    few = cells.select(chosen), [types[i] for i in chosen]
    monkeypatch.setattr("topwork.cli.demo.load_cells", lambda: few)
    monkeypatch.setattr("topwork.cli.demo.Recipe", lambda: recipe)
    text = run_demo(tmp_path / "run", overwrite=False, watch=Silent())
    assert "Deitsch et al. 2019, SVM" in text
    assert f"topwork predict {tmp_path / 'run'} {few[0][0].image} --top 2" in text
    with pytest.raises(InputError, match=r"already contains a run"):
        run_demo(tmp_path / "run", overwrite=False, watch=Silent())


def test_without_the_package_its_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as told:
        load_cells()
    assert str(told.value) == 'the demo needs an optional part: pip install "topwork[demo]"'


def test_a_package_without_its_cells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    with pytest.raises(
        InputError, match=r"data: expected the cells of elpv-dataset; No such file or directory"
    ):
        load_cells()


def test_marking_keeps_all_else() -> None:
    cells, types = load_cells()
    marked = split_cells(cells, types, seed=0)
    assert [dataclasses.replace(e, split=None) for e in marked] == list(cells)
