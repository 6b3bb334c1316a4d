"""A run's folder: its file names, and functions to create, check and write it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topwork.classifiers.classifier import CALIBRATION, DESCRIPTION, GRAPH, HEAD, WEIGHTS
from topwork.classifiers.neighbours import NEIGHBOURS
from topwork.errors import InputError, TopworkError
from topwork.recipe import Recipe

SPLITS, RECIPE, REPORT, TENSORBOARD = "splits.csv", "recipe.toml", "report.json", "tensorboard"
PAGE, AUDIT, FIXES, AUDIT_PAGE = "report.html", "audit.json", "fixes.csv", "audit.html"
WORK = "finetune"  # exists only during fine-tuning
FILES = (
    DESCRIPTION,
    GRAPH,
    WEIGHTS,
    HEAD,
    CALIBRATION,
    SPLITS,
    RECIPE,
    REPORT,
    PAGE,
    AUDIT,
    FIXES,
    NEIGHBOURS,
)
PARTS = ("train", "validation", "test")


def recipe_of(folder: Path) -> Recipe:
    """The settings of a run.

    Raises:
        InputError: it is not a run, or its settings can't be read.
    """
    if not (folder / RECIPE).exists():
        raise InputError(f"{folder}: expected a folder that `topwork train` wrote; it has no {RECIPE}")
    return Recipe.load(folder / RECIPE)


def check_folder(out: Path, *, overwrite: bool) -> None:
    """Check that `out` is new, empty, or a run that may be replaced, so that no other files are lost."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a folder to write the run to; it is a file; choose another --out")
    held = {path.name for path in out.iterdir()} if out.exists() else set()
    if DESCRIPTION in held and not overwrite:
        begun = f"; to resume its interrupted fine-tuning: topwork finetune {out} --resume" * (WORK in held)
        raise InputError(
            f"{out}: already contains a run; choose another --out, or add --overwrite to replace it{begun}"
        )
    if DESCRIPTION not in held and held - {
        TENSORBOARD,
        *FILES,
    }:  # an interrupted training may have left files of a run
        raise InputError(
            f"{out}: expected a new or empty folder; it contains other files; choose another --out"
        )


def make_folder(out: Path) -> None:
    """Create the folder, and delete the TensorBoard curves of the run that is replaced."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if (out / DESCRIPTION).exists():
            for path in out.glob(f"{TENSORBOARD}/*/events.out.tfevents*"):
                path.unlink()
    except OSError as error:
        raise TopworkError(f"{out}: can't be created ({error.strerror}); choose another --out") from None


@contextmanager
def writing(out: Path, *, kinds: tuple[type[Exception], ...] = (OSError, RuntimeError)) -> Iterator[None]:
    """Turn errors while writing into a `TopworkError`. OpenVINO raises a RuntimeError if the disk is full."""
    try:
        yield
    except kinds as error:
        raise TopworkError(
            f"{out}: the run can't be written ({error}); free some space, or choose another --out. The features are "
            "stored, so the same command will not compute them again"
        ) from error
