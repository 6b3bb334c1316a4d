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
from topwork.cli.predict import PredictCommand, predict
from topwork.cli.review import audit, diff, report
from topwork.cli.serve import serve
from topwork.cli.tune import (
    ColourOption,
    CropOption,
    FlipsOption,
    TurnsOption,
    advise,
    changes,
    finetune,
    named,
    settings_of,
)
from topwork.errors import Stopped, TopworkError
from topwork.recipe import (
    ClassWeight,
    FeatureChoice,
    FinetuneMode,
    Fit,
    HeadKind,
    PixelChoice,
    Precision,
    Recipe,
    Views,
)

app = typer.Typer(
    name="topwork",
    help="Image classification by transfer learning: from a folder of labelled photos to a tested classifier.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cache_app = typer.Typer(
    help="What is kept between runs: features and unpacked archives.", no_args_is_help=True
)
app.add_typer(cache_app, name="cache")
app.add_typer(modules_app, name="modules")


Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at an image that can't be read.")]


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing; use what is kept.")] = False,
) -> None:
    """Options for all commands."""
    if offline:
        from topwork.backbones.hub.resolve import go_offline

        go_offline()
    if version:
        print(f"topwork {importlib.metadata.version('topwork')}")
        raise typer.Exit


@app.command()
def train(
    data: Annotated[
        str, typer.Argument(help="A folder with one sub-folder a class, a manifest, or an archive.")
    ],
    out: Annotated[Path, typer.Option(help="Where the run goes: a new folder.")],
    backbone: Annotated[
        str | None,
        typer.Option(help="The network: efficientnet-lite0, -lite1, -lite2, or any handle or path."),
    ] = None,
    size: Annotated[int | None, typer.Option(help="The side of its input, in pixels.")] = None,
    fit: Annotated[Fit | None, typer.Option(help="How a picture becomes square.")] = None,
    views: Annotated[
        Views | None, typer.Option(help="Average each picture's features over turned copies.")
    ] = None,
    precision: Annotated[Precision | None, typer.Option(help="What the network computes in.")] = None,
    pixels: Annotated[
        PixelChoice | None, typer.Option(help="The values that a module wants, if it doesn't show.")
    ] = None,
    head: Annotated[HeadKind | None, typer.Option(help="The classifier on top.")] = None,
    features: Annotated[FeatureChoice | None, typer.Option(help="Which features the head sees.")] = None,
    class_weight: Annotated[ClassWeight | None, typer.Option(help="Whether rare classes count more.")] = None,
    tuning: Annotated[
        FinetuneMode | None,
        typer.Option("--finetune", help="Tune the network too: its tail, in full, or as is advised (auto)."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="What tuning may take, about; one epoch at least.")
    ] = None,
    flips: FlipsOption = None,
    turns: TurnsOption = None,
    crop: CropOption = None,
    colour: ColourOption = None,
    test: Annotated[float | None, typer.Option(help="Share of images kept for the test.")] = None,
    validation: Annotated[
        float | None, typer.Option(help="Share kept to choose settings by; 0 for cross-validation.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed makes other splits.")] = None,
    folds: Annotated[int | None, typer.Option(help="Parts of the cross-validation.")] = None,
    group_by: Annotated[
        str | None,
        typer.Option(help="What stays on one side: a manifest's column, or a pattern on the path."),
    ] = None,
    copies: Annotated[
        bool | None, typer.Option(help="Whether to look for copies and odd pictures, and keep copies apart.")
    ] = None,
    reject: Annotated[
        float | None, typer.Option(help="Share of known pictures that may be called none of these; 0: off.")
    ] = None,
    fixes: Annotated[Path | None, typer.Option(help="An audit's fixes.csv, as you have edited it.")] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Settings from a file, such as a run's recipe.toml.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that --out holds.")] = False,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Train a classifier on labelled photos and test it on some that it has not seen."""
    from topwork.cli.console import Console
    from topwork.cli.text.run import run_json, run_text
    from topwork.jobs.train import train as run_training

    names = ("handle", "size_px", "fit", "views", "precision", "pixels")
    parts = ("test", "validation", "seed", "folds", "group_by", "copies")
    base = Recipe.load(recipe) if recipe else Recipe()
    settings = settings_of(
        base,
        backbone=named(names, backbone, size, fit, views, precision, pixels),
        split=named(parts, test, validation, seed, folds, group_by, copies),
        head=named(("kind", "features", "class_weight", "reject"), head, features, class_weight, reject),
        finetune={
            "mode": tuning,
            "minutes": minutes,
            "augment": changes(base.finetune.augment, flips, turns, crop, colour),
        },
        strict=strict,
    )
    run = run_training(data, out, recipe=settings, fixes=fixes, overwrite=overwrite, watch=Console())
    print(run_json(run) if as_json else run_text(run))


app.command()(advise)
app.command()(finetune)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A folder that `topwork train` wrote.")],
    data: Annotated[str, typer.Argument(help="Labelled photos, as for `train`.")],
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Score a classifier on other labelled photos."""
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
            f"warning: {seen} of these {n} images were learned from: this score flatters the classifier"
        )
    print(evaluation_json(scored, learned_from=seen) if as_json else evaluation_text(scored))


app.command()(audit)
app.command()(report)
app.command()(diff)


app.command(cls=PredictCommand)(predict)
app.command()(export)
app.command()(serve)


@cache_app.command("info")
def cache_info(as_json: Json = False) -> None:
    """Show what the cache holds, and where it is."""
    from topwork.cli.text.cache import cache_json, cache_text
    from topwork.storage.cache import info

    print(cache_json(info()) if as_json else cache_text(info()))


@cache_app.command("clear")
def cache_clear(
    fingerprint: Annotated[
        str | None, typer.Argument(help="One backbone's features alone, by its first digits.")
    ] = None,
) -> None:
    """Delete what the cache holds; it is computed again when it is needed."""
    from topwork.cli.text.cache import size_text
    from topwork.storage.cache import clear

    print(f"freed {size_text(clear(fingerprint=fingerprint))}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the run goes.")] = Path("runs/demo"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that --out holds.")] = False,
) -> None:
    """Find defective solar cells: 2,624 photographs, and the score beside the paper's."""
    from topwork.cli.console import Console
    from topwork.cli.demo import run_demo

    print(run_demo(out, overwrite=overwrite, watch=Console()))


def _stop(*_: object) -> None:
    raise Stopped


def main() -> None:
    """Run the command line: 0 done, 1 failed, 2 the input is wrong; one line says why, a traceback with --debug."""
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
        kept = "stopped; features and downloads are kept: the same command goes on from there"
        print(f"topwork: {str(stop) or kept}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if debug or not hasattr(error, "format_message"):
            raise
        print(_unparsed(error), file=sys.stderr)
        sys.exit(2)


def _unparsed(error: Any) -> str:
    """What the option parser has to say, in one line; the whole help where nothing was asked for.

    Known by its methods: the parser's errors have no public name that all its versions share.
    """
    if type(error).__name__ == "NoArgsIsHelpError":
        return str(error.format_message())
    said = " ".join(str(error.format_message()).split()).removesuffix(".").replace("Value error, ", "")
    command = error.ctx.command_path if getattr(error, "ctx", None) else "topwork"
    return f"topwork: {said[:1].lower() + said[1:]}; all options: {command} --help"
