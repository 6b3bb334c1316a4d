"""A run's folder: what may be written where, and what is read from it again."""

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
WORK = "finetune"  # while it is tuned
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
    """The settings that a run was made with.

    Raises:
        InputError: it is no run, or its settings can't be read.
    """
    if not (folder / RECIPE).exists():
        raise InputError(f"{folder}: expected a folder that `topwork train` wrote; it has no {RECIPE}")
    return Recipe.load(folder / RECIPE)


def check_folder(out: Path, *, overwrite: bool) -> None:
    """Nothing that lies in the way is lost: a folder is used if it is new, empty, or a run to be replaced."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a folder to write the run to; it is a file; choose another --out")
    held = {path.name for path in out.iterdir()} if out.exists() else set()
    if DESCRIPTION in held and not overwrite:
        begun = f"; its tuning was broken off: topwork finetune {out} --resume goes on with it" * (
            WORK in held
        )
        raise InputError(
            f"{out}: holds a run already; choose another --out, or add --overwrite to replace it{begun}"
        )
    if DESCRIPTION not in held and held - {
        TENSORBOARD,
        *FILES,
    }:  # what a broken-off training left may be there
        raise InputError(f"{out}: expected a new or empty folder; it holds other files; choose another --out")


def make_folder(out: Path) -> None:
    """Make the folder, and take away the curves of the run that is to be replaced."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if (out / DESCRIPTION).exists():
            for path in out.glob(f"{TENSORBOARD}/*/events.out.tfevents*"):
                path.unlink()
    except OSError as error:
        raise TopworkError(f"{out}: can't be made ({error.strerror}); choose another --out") from None


@contextmanager
def writing(out: Path, *, kinds: tuple[type[Exception], ...] = (OSError, RuntimeError)) -> Iterator[None]:
    """What is wrong with the disk, told; `kinds`: a RuntimeError is what OpenVINO makes of a full one."""
    try:
        yield
    except kinds as error:
        raise TopworkError(
            f"{out}: the run can't be written ({error}); free some space, or choose another --out. The features "
            "are kept: the same command goes on from there"
        ) from error
