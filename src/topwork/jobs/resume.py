"""Resuming an interrupted tuning with its original settings."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topwork.errors import InputError, Stopped
from topwork.recipe import FinetuneRecipe, Recipe
from topwork.runs.folder import RECIPE, WORK, recipe_of, writing
from topwork.tuning.checkpoint import CHECKPOINT


def tuning_of(run: Path, *, resume: bool = False) -> FinetuneRecipe:
    """A run's default tuning settings: its recipe's or, with `resume`, the interrupted tuning's.

    Raises:
        InputError: not a run, or its settings can't be read.
    """
    begun = run / WORK
    return recipe_of(begun if resume and (begun / RECIPE).exists() else run).finetune


@contextmanager
def stoppable(folder: Path) -> Iterator[None]:
    """On Ctrl-C outside the training loop, say how to resume."""
    try:
        yield
    except Stopped:
        how = f"to resume: topwork finetune {folder} --resume"
        if not (folder / WORK).exists():
            how = f"{folder} is unchanged, and its features are kept; to tune it: topwork finetune {folder}"
        raise Stopped(f"stopped; {how}") from None


def check_settings(work: Path, settings: Recipe) -> None:
    """Raise `InputError` if an interrupted tuning has other settings, so that it isn't overwritten."""
    if not ((work / CHECKPOINT).exists() and (work / RECIPE).exists()):
        return
    if recipe_of(work) != Recipe.from_toml(settings.to_toml()):
        raise InputError(
            f"{work.parent}: expected the settings of the interrupted tuning; got others: omit them to resume, or "
            "omit --resume to start over"
        )


@contextmanager
def working(work: Path, settings: Recipe, *, anew: bool) -> Iterator[None]:
    """The working folder with the settings for resuming; removed if a setting turns out to be invalid."""
    if anew:
        shutil.rmtree(work, ignore_errors=True)
    with writing(work.parent):
        work.mkdir(exist_ok=True)
        if not (work / CHECKPOINT).exists():  # else keep the interrupted tuning's settings
            (work / RECIPE).write_text(settings.to_toml(), encoding="utf-8")
    try:
        yield
    except InputError:
        if anew and not (work / CHECKPOINT).exists():
            shutil.rmtree(work, ignore_errors=True)
        raise
