"""The folder that a run is written to: nothing that lies in the way is lost, and nothing half-written is a run."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from photos import SIZE_PX, finished, start
from topwork.classifiers.classifier import Classifier
from topwork.errors import InputError, TopworkError
from topwork.jobs.train import Run, train
from topwork.recipe import HeadRecipe, Recipe


def with_head(recipe: Recipe, kind: str, **settings: str) -> Recipe:
    return dataclasses.replace(recipe, head=HeadRecipe(kind=kind, **settings))


def test_a_run_is_not_written_over(run: Run, shapes: Path, recipe: Recipe, tmp_path: Path) -> None:
    out = Path(shutil.copytree(run.path, tmp_path / "run"))
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(InputError) as told:
        train(shapes, out, recipe=recipe)
    assert str(told.value) == (
        f"{out}: already contains a run; choose another --out, or add --overwrite to replace it"
    )
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    train(shapes, out, recipe=with_head(recipe, "mlp"), overwrite=True)
    assert Classifier.load(out).head.kind == "mlp"
    curves = list(out.glob("tensorboard/*/*"))
    assert len(curves) == 2
    train(shapes, out, recipe=with_head(recipe, "centroid"), overwrite=True)
    assert Classifier.load(out).head.kind == "centroid"
    assert not list(out.glob("tensorboard/*/*"))  # the curves of the run that was replaced


def test_what_is_wrong_leaves_the_old_run_whole(shapes: Path, recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(shapes, out, recipe=with_head(recipe, "mlp"))
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=r"no such file or folder"):
        train(tmp_path / "none", out, recipe=recipe, overwrite=True)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    with pytest.raises(InputError, match=r"no such file or folder"):
        train(tmp_path / "none", tmp_path / "new", recipe=recipe)
    assert not (tmp_path / "new").exists()


def test_other_peoples_files_are_not_touched(shapes: Path, recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine", encoding="utf-8")
    (tmp_path / "tensorboard" / "train").mkdir(parents=True)
    events = tmp_path / "tensorboard" / "train" / "events.out.tfevents.1"
    events.write_text("mine", encoding="utf-8")
    for overwrite in (False, True):
        with pytest.raises(InputError) as told:
            train(shapes, tmp_path, recipe=recipe, overwrite=overwrite)
        assert str(told.value) == (
            f"{tmp_path}: expected a new or empty folder; it contains other files; choose another --out"
        )
    (tmp_path / "thesis.tex").unlink()
    train(shapes, tmp_path, recipe=recipe, overwrite=True)
    assert events.read_text(encoding="utf-8") == "mine"


def test_a_file_in_the_way(shapes: Path, recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"run: expected a folder to write the run to; it is a file; choose"):
        train(shapes, tmp_path / "run", recipe=recipe)
    with pytest.raises(
        TopworkError, match=r"run/below: can't be created \(Not a directory\); choose another"
    ):
        train(shapes, tmp_path / "run" / "below", recipe=recipe)


def test_what_a_broken_off_training_left_is_used(
    run: Run, shapes: Path, recipe: Recipe, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(run.path, tmp_path / "run"))
    (out / "classifier.json").unlink()
    assert train(shapes, out, recipe=recipe).test == run.test


@pytest.mark.slow
def test_a_disk_that_fills_while_the_run_is_written(tmp_path: Path, shapes: Path, run: Run) -> None:
    """The features are stored already; model.bin alone is larger than the limit."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))"
    options = ("train", shapes, "--out", tmp_path / "run", "--size", SIZE_PX, "--precision", "f32")
    code, out, err = finished(start(*options, before=limit))
    assert (code, out) == (1, "")
    assert f"topwork: {tmp_path / 'run'}: the run can't be written (" in err
    assert "free some space, or choose another --out. The features are stored" in err
    with pytest.raises(InputError, match=r"it has no classifier.json"):
        Classifier.load(tmp_path / "run")
    assert run.path.is_dir()
