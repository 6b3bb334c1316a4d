"""The commands `advise` and `finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from topwork.cli.options import Given, Json, RecipeFile, over, recipe_from, with_settings
from topwork.recipe import Recipe


@with_settings("backbone.handle", "backbone.size_px", "finetune.minutes", "split.group_by", "split.copies")
def advise(
    data: Annotated[str, typer.Argument(help="Labelled photos, as for `train`.")],
    given: Given,
    recipe: RecipeFile = None,
    as_json: Json = False,
) -> None:
    """Predict whether fine-tuning would improve accuracy on these photos, by how much, and how long it would take."""
    from topwork.cli.console import Console
    from topwork.cli.text.advice import advice_json, advice_text
    from topwork.jobs.advise import advise as run_advice

    advice = run_advice(data, recipe=recipe_from(recipe, given), watch=Console())
    print(advice_json(advice) if as_json else advice_text(advice))


@with_settings(
    *(f"finetune.{name}" for name in ("cut", "minutes", "epochs", "views", "rate", "augment", "native")),
    default="as in the run's recipe",
)
def finetune(
    run: Annotated[Path, typer.Argument(help="A folder that `topwork train` wrote.")],
    given: Given,
    data: Annotated[str | None, typer.Argument(help="Its photos, if they have moved.")] = None,
    mode: Annotated[
        Literal["tail", "full"] | None,
        typer.Option(
            help="Which part to train.  [default: as in the run's recipe, or tail]",
            rich_help_panel="Fine-tuning",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume an interrupted fine-tuning.", rich_help_panel="Fine-tuning"),
    ] = False,
    as_json: Json = False,
) -> None:
    """Fine-tune the network of a run, and keep the result if it is better."""
    from topwork.cli.console import Console
    from topwork.cli.text.tuning import finetuned_json, finetuned_text
    from topwork.jobs.finetune import finetune as run_tuning
    from topwork.jobs.resume import tuning_of

    base = Recipe(finetune=tuning_of(run, resume=resume))
    tuning = over(base, given | ({"finetune.mode": mode} if mode else {})).finetune
    result = run_tuning(run, data, recipe=tuning, resume=resume, watch=Console())
    print(finetuned_json(result) if as_json else finetuned_text(result))
