"""The command `predict`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from topwork.cli.options import Json, Strict
from topwork.errors import InputError, Stopped

if TYPE_CHECKING:
    from topwork.classifiers.classifier import Prediction
    from topwork.jobs.predict import Bulk
    from topwork.progress import Watch

BAR_AFTER_S = 2.0


class PredictCommand(TyperCommand):
    """Accepts `--csv` without a file name, and reads it as `--csv -`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments after adding "-" to a `--csv` that is last or followed by another option."""
        end = args.index("--") if "--" in args else len(args)
        given: list[str] = []
        for i, argument in enumerate(args):
            given.append(argument)
            following = args[i + 1] if i + 1 < end else "--"
            if argument == "--csv" and i < end and following.startswith("-") and following != "-":
                given.append("-")
        return super().parse_args(ctx, given)


def predict(
    run: Annotated[Path, typer.Argument(help="A folder that `topwork train` wrote.")],
    images: Annotated[
        list[str], typer.Argument(help="Files, folders, glob patterns; - for paths on standard input.")
    ],
    top: Annotated[int, typer.Option(min=1, help="The number of classes to show.")] = 1,
    coverage: Annotated[
        float | None,
        typer.Option(help="Show a set of classes that contains the true one this often, such as 0.95."),
    ] = None,
    csv: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Append a row per image, resuming if interrupted; -: print them."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the --csv file.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Retry the images that failed in the --csv file.")
    ] = False,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Predict the class of each photo, or that it is none of them."""
    options: dict[str, Any] = {"top": top, "coverage": coverage, "strict": strict}
    if csv in (None, "-"):
        if overwrite or retry_failed:
            option = "--overwrite" if overwrite else "--retry-failed"
            raise InputError(f"{option} needs a file: add --csv FILE")
        any_read = _print(run, images, csv=csv, as_json=as_json, **options)
    else:
        from topwork.cli.console import Console
        from topwork.jobs.predict import predict_to_csv

        options |= {"overwrite": overwrite, "retry_failed": retry_failed, "count": sys.stderr.isatty()}
        bulk = predict_to_csv(run, _paths(images), Path(csv or ""), watch=Console(), **options)
        print(_bulk_json(bulk) if as_json else _bulk_text(bulk))
        any_read = bulk.failed < bulk.images
    if not any_read:
        raise typer.Exit(1)


def _print(
    run: Path,
    images: list[str],
    *,
    csv: str | None,
    as_json: bool,
    top: int,
    coverage: float | None,
    strict: bool,
) -> bool:
    from topwork.classifiers.classifier import Classifier
    from topwork.cli.console import Console
    from topwork.cli.text.predictions import print_csv, print_json, print_table
    from topwork.data.listing import list_images
    from topwork.jobs.predict import once, predictions, problems_last

    classifier, console = Classifier.load(run), Console()
    least = None if coverage is None else classifier.least_probability(coverage)
    found = problems_last(once(list_images(_paths(images))))
    show = print_json if as_json else print_csv if csv else print_table
    try:
        with closing(predictions(classifier, found, strict=strict, watch=console)) as results:
            watched = results if sys.stdout.isatty() else _watched(results, console)
            return show(watched, top=top, least=least)
    except Stopped:
        raise Stopped("stopped; the same command starts over; with --csv FILE it would resume") from None


def _watched(results: Iterable[Prediction], watch: Watch) -> Iterator[Prediction]:
    """The same predictions, with a bar on standard error after two seconds."""
    began, advance = time.monotonic(), None
    with ExitStack() as stack:
        for number, prediction in enumerate(results, 1):
            if advance is not None:
                advance(1)
            elif time.monotonic() - began > BAR_AFTER_S:
                advance = stack.enter_context(watch.bar("predict", None))
                advance(number)
            yield prediction


def _paths(given: list[str]) -> Iterable[str]:
    from topwork.data.listing import names_in

    if "-" not in given:
        return given
    return chain.from_iterable(names_in(sys.stdin) if path == "-" else [path] for path in given)


def _bulk_text(bulk: Bulk) -> str:
    """The contents of the file, and the speed."""
    failed = f" ({bulk.failed:,} can't be read; --retry-failed retries them)" if bulk.failed else ""
    images = f"{bulk.images:,} image{'' if bulk.images == 1 else 's'}"
    if not bulk.new:
        return f"{bulk.csv} already contains all {images}{failed}"
    speed = f"{bulk.new:,} new in {bulk.seconds:.1f} s, {bulk.new / bulk.seconds:,.0f} images/s"
    return f"{bulk.csv} contains {images}{failed}; {speed}"


def _bulk_json(bulk: Bulk) -> str:
    """`csv`, `images` (rows in it), `failed` of these, `new` and `seconds`."""
    return json.dumps({**asdict(bulk), "csv": str(bulk.csv), "seconds": round(bulk.seconds, 3)})
