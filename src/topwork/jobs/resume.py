"""A tuning that was broken off: the settings that it was begun with, and how to go on."""

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
    """How the network of a run is tuned where nothing else is asked for: as its recipe says, or, with `resume`, as
    the tuning that was broken off was.

    Raises:
        InputError: it is no run, or its settings can't be read.
    """
    begun = run / WORK
    return recipe_of(begun if resume and (begun / RECIPE).exists() else run).finetune


@contextmanager
def stoppable(folder: Path) -> Iterator[None]:
    """Ctrl-C, but where a tuning takes it for its end: say how to go on."""
    try:
        yield
    except Stopped:
        how = f"topwork finetune {folder} --resume goes on from there"
        if not (folder / WORK).exists():
            how = f"{folder} is as it was, and its features are kept: topwork finetune {folder} tunes it"
        raise Stopped(f"stopped; {how}") from None


def check_settings(work: Path, settings: Recipe) -> None:
    """Nothing of a tuning that was broken off is lost to one with other settings."""
    if not ((work / CHECKPOINT).exists() and (work / RECIPE).exists()):
        return
    if recipe_of(work) != Recipe.from_toml(settings.to_toml()):
        raise InputError(
            f"{work.parent}: expected the settings of the tuning that was broken off; got others: leave them away to "
            "go on with it, or leave --resume away to begin anew"
        )


@contextmanager
def working(work: Path, settings: Recipe, *, anew: bool) -> Iterator[None]:
    """The folder for what is kept while it runs, with the settings to go on by; gone again where those are wrong."""
    if anew:
        shutil.rmtree(work, ignore_errors=True)
    with writing(work.parent):
        work.mkdir(exist_ok=True)
        if not (work / CHECKPOINT).exists():  # else the settings are those of what is gone on with
            (work / RECIPE).write_text(settings.to_toml(), encoding="utf-8")
    try:
        yield
    except InputError:
        if anew and not (work / CHECKPOINT).exists():
            shutil.rmtree(work, ignore_errors=True)
        raise
