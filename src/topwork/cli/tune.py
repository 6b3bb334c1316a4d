"""The commands that tune a network, and that say whether it would pay."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from topwork.recipe import AugmentRecipe, Flips, Recipe

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")
]
FlipsOption = Annotated[Flips | None, typer.Option(help="How photos are mirrored while it is tuned.")]
TurnsOption = Annotated[bool | None, typer.Option(help="Whether they are turned, too.")]
CropOption = Annotated[float | None, typer.Option(help="The least share that a crop keeps; 1: none.")]
ColourOption = Annotated[float | None, typer.Option(help="How much colours change; 0: not at all.")]


def advise(
    data: Annotated[str, typer.Argument(help="Labelled photos, as for `train`.")],
    backbone: Annotated[str | None, typer.Option(help="The network, as for `train`.")] = None,
    size: Annotated[int | None, typer.Option(help="The side of its input, in pixels.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="What tuning may take, about; one epoch at least.")
    ] = None,
    group_by: Annotated[str | None, typer.Option(help="What stays on one side, as for `train`.")] = None,
    copies: Annotated[
        bool | None, typer.Option(help="Whether to look for copies, and keep them apart, as for `train`.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="Settings from a file.")] = None,
    as_json: Json = False,
) -> None:
    """Say whether tuning the network would pay for these photos, by how much, and in what time."""
    from topwork.cli.console import Console
    from topwork.cli.text.advice import advice_json, advice_text
    from topwork.jobs.advise import advise as run_advice

    settings = settings_of(
        recipe,
        backbone={"handle": backbone, "size_px": size},
        split={"group_by": group_by, "copies": copies},
        finetune={"minutes": minutes},
    )
    advice = run_advice(data, recipe=settings, watch=Console())
    print(advice_json(advice) if as_json else advice_text(advice))


def finetune(
    run: Annotated[Path, typer.Argument(help="A folder that `topwork train` wrote.")],
    data: Annotated[str | None, typer.Argument(help="Its photos, if they are elsewhere now.")] = None,
    mode: Annotated[
        Literal["tail", "full"] | None,
        typer.Option(help="Which part learns; else as the run was made, or the tail."),
    ] = None,
    cut: Annotated[str | None, typer.Option(help="The block after which the tail begins.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="What it may take, about; one epoch at least.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="How often each photo is learnt from.")] = None,
    views: Annotated[int | None, typer.Option(help="Changed copies of each photo for the tail.")] = None,
    rate: Annotated[float | None, typer.Option(help="The highest rate of learning.")] = None,
    flips: FlipsOption = None,
    turns: TurnsOption = None,
    crop: CropOption = None,
    colour: ColourOption = None,
    native: Annotated[
        bool | None, typer.Option(help="Tune a SavedModel by its own training mode; with --mode full.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume one that was interrupted.")] = False,
    as_json: Json = False,
) -> None:
    """Tune the network of a run; keep what comes of it where it is better."""
    from topwork.cli.console import Console
    from topwork.cli.text.tuning import finetuned_json, finetuned_text
    from topwork.jobs.finetune import finetune as run_tuning
    from topwork.jobs.resume import tuning_of

    given = tuning_of(run, resume=resume)
    given = given_to(
        given, mode=mode, cut=cut, minutes=minutes, epochs=epochs, views=views, rate=rate, native=native
    )
    changed = changes(given.augment, flips, turns, crop, colour)
    given = dataclasses.replace(given, augment=changed)
    Recipe(finetune=given)  # says what is wrong with it
    result = run_tuning(run, data, recipe=given, resume=resume, watch=Console())
    print(finetuned_json(result) if as_json else finetuned_text(result))


def settings_of(base: Recipe | Path | None, *, strict: bool = False, **parts: dict[str, Any]) -> Recipe:
    """A recipe, that in a file, or the defaults; with what the command line gives for each of its parts."""
    recipe = base if isinstance(base, Recipe) else Recipe.load(base) if base else Recipe()
    given = {name: given_to(getattr(recipe, name), **values) for name, values in parts.items()}
    return dataclasses.replace(recipe, **given, strict=strict or recipe.strict)


def named(names: tuple[str, ...], *values: Any) -> dict[str, Any]:
    """Values by the names that they have in a recipe."""
    return dict(zip(names, values, strict=True))


def given_to(settings: Any, **values: Any) -> Any:
    """The settings with those values that the command line gives."""
    return dataclasses.replace(settings, **{name: v for name, v in values.items() if v is not None})


def changes(
    augment: AugmentRecipe,
    flips: Flips | None,
    turns: bool | None,
    crop: float | None,
    colour: float | None,
) -> AugmentRecipe:
    """How photos are changed while a network learns, with what the command line gives."""
    changed: AugmentRecipe = given_to(augment, flips=flips, turns=turns, crop=crop, colour=colour)
    return changed
