"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topwork.recipe import ExportFormat, ExportInput, ExportPrecision


def export(
    run: Annotated[Path, typer.Argument(help="A folder that `topwork train` wrote.")],
    out: Annotated[Path, typer.Option(help="The new file or folder.")],
    format: Annotated[ExportFormat, typer.Option(help="The format; tfhub: only the backbone.")],
    precision: Annotated[ExportPrecision, typer.Option(help="The precision of the weights.")] = "f32",
    input: Annotated[
        ExportInput,
        typer.Option(help="sized: pictures of the network's size; any: of any size, resized by the network."),
    ] = "sized",
    data: Annotated[str | None, typer.Option(help="The run's photos, if they have moved.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print only one JSON object on standard output.")
    ] = False,
) -> None:
    """Export a run's classifier to another format, and compare the result with the run."""
    from topwork.cli.text.export import exported_json, exported_text
    from topwork.jobs.export import export as run_export

    exported = run_export(run, out, format=format, precision=precision, input=input, data=data)
    print(exported_json(exported) if as_json else exported_text(exported))
