"""The command line: parse, call one function, print."""

from __future__ import annotations

import importlib.metadata
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from topwork.cli.console import quieten_tensorflow
from topwork.cli.export import export
from topwork.cli.modules import modules_app
from topwork.cli.options import (
    Given,
    HelpWithHeadings,
    Json,
    RecipeFile,
    Strict,
    recipe_from,
    refuse_unused,
    with_settings,
)
from topwork.cli.predict import PredictCommand, predict
from topwork.cli.review import audit, diff, report
from topwork.cli.serve import serve
from topwork.cli.tune import advise, finetune
from topwork.errors import Stopped, TopworkError

app = typer.Typer(
    name="topwork",
    help="Image classification by transfer learning: from a folder of labelled photos to a tested classifier.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cache_app = typer.Typer(help="Show or clear the cache: features and unpacked archives.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")
app.add_typer(modules_app, name="modules")


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
) -> None:
    """Options for all commands."""
    if offline:
        from topwork.backbones.hub.resolve import go_offline

        go_offline()
    if version:
        print(f"topwork {importlib.metadata.version('topwork')}")
        raise typer.Exit


@app.command(cls=HelpWithHeadings)
@with_settings("split", "strict", "backbone", "head", "finetune.mode", "finetune.minutes", "finetune.augment")
def train(
    data: Annotated[
        str, typer.Argument(help="A folder with one sub-folder per class, a manifest, or an archive.")
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the run.", rich_help_panel="Output")],
    given: Given,
    fixes: Annotated[
        Path | None,
        typer.Option(help="An audit's fixes.csv, with your edits.", rich_help_panel="Data"),
    ] = None,
    recipe: RecipeFile = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an existing run in --out.", rich_help_panel="Output"),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a classifier on labelled photos, and test it on held-out ones."""
    from topwork.cli.console import Console
    from topwork.cli.text.run import run_json, run_text
    from topwork.jobs.train import train as run_training

    settings = recipe_from(recipe, given)
    refuse_unused(given, settings)
    run = run_training(data, out, recipe=settings, fixes=fixes, overwrite=overwrite, watch=Console())
    print(run_json(run) if as_json else run_text(run))


app.command(cls=HelpWithHeadings)(advise)
app.command(cls=HelpWithHeadings)(finetune)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A folder that `topwork train` wrote.")],
    data: Annotated[str, typer.Argument(help="Labelled photos, as for `train`.")],
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Evaluate a classifier on other labelled photos."""
    from topwork.classifiers.classifier import Classifier
    from topwork.cli.console import Console
    from topwork.cli.text.run import evaluation_json, evaluation_text
    from topwork.data.sources import load
    from topwork.jobs.evaluate import score_dataset
    from topwork.runs.images import trained_on

    console = Console()
    scored = score_dataset(Classifier.load(run), load(data), strict=strict, watch=console)
    seen = len(trained_on(run).intersection(scored.features.keys))
    if seen:
        n = scored.evaluation.n
        console.say(
            f"warning: {seen} of these {n} images were used in training, so the score is overoptimistic"
        )
    print(evaluation_json(scored, learned_from=seen) if as_json else evaluation_text(scored))


app.command(cls=HelpWithHeadings)(audit)
app.command()(report)
app.command()(diff)


app.command(cls=PredictCommand)(predict)
app.command()(export)
app.command()(serve)


@cache_app.command("info")
def cache_info(as_json: Json = False) -> None:
    """Show the cache's location and contents."""
    from topwork.cli.text.cache import cache_json, cache_text
    from topwork.storage.cache import info

    print(cache_json(info()) if as_json else cache_text(info()))


@cache_app.command("clear")
def cache_clear(
    fingerprint: Annotated[
        str | None,
        typer.Argument(help="Delete only the features with this fingerprint, or its first digits."),
    ] = None,
) -> None:
    """Delete the cache's contents; they are computed again when needed."""
    from topwork.storage.cache import clear, size_text

    print(f"freed {size_text(clear(fingerprint=fingerprint))}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="A new folder for the run.")] = Path("runs/demo"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing run in --out.")] = False,
) -> None:
    """Find defective solar cells in 2,624 photos, and compare the score with a paper's."""
    from topwork.cli.console import Console
    from topwork.cli.demo import run_demo

    print(run_demo(out, overwrite=overwrite, watch=Console()))


def _stop(*_: object) -> None:
    raise Stopped


def main() -> None:
    """Run the command line. Exit codes: 0 success, 1 failure, 2 invalid input, 130 stopped.

    Errors are printed as one line; with --debug, as a traceback.
    """
    signal.signal(signal.SIGINT, _stop)
    quieten_tensorflow()
    debug = "--debug" in sys.argv
    try:
        sys.exit(app([a for a in sys.argv[1:] if a != "--debug"], standalone_mode=False) or 0)
    except TopworkError as error:
        if debug:
            raise
        print(f"topwork: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Stopped as stop:
        kept = "stopped; computed features and downloads are kept: run the same command to resume"
        print(f"topwork: {str(stop) or kept}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if debug or not hasattr(error, "format_message"):
            raise
        print(_unparsed(error), file=sys.stderr)
        sys.exit(2)


def _unparsed(error: Any) -> str:
    """The option parser's error in one line, or the complete help if there were no arguments.

    Its exceptions have no public name in all versions, so they are recognised by their methods.
    """
    if type(error).__name__ == "NoArgsIsHelpError":
        return str(error.format_message())
    said = " ".join(str(error.format_message()).split()).removesuffix(".").replace("Value error, ", "")
    command = error.ctx.command_path if getattr(error, "ctx", None) else "topwork"
    return f"topwork: {said[:1].lower() + said[1:]}; all options: {command} --help"
