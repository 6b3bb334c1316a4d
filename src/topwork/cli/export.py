"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topwork.recipe import ExportFormat, ExportInput, ExportPrecision


def export(
    run: Annotated[Path, typer.Argument(help="A folder that `topwork train` wrote.")],
    out: Annotated[Path, typer.Option(help="The new file or folder.")],
    format: Annotated[ExportFormat, typer.Option(help="Whose format; tfhub: the backbone alone.")],
    precision: Annotated[ExportPrecision, typer.Option(help="What weights are stored in.")] = "f32",
    input: Annotated[
        ExportInput, typer.Option(help="Pictures of the network's size, or of any: it resizes them itself.")
    ] = "sized",
    data: Annotated[str | None, typer.Option(help="The run's photos, if they are elsewhere now.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")
    ] = False,
) -> None:
    """Write a run's classifier in another program's format, and prove that it says the same."""
    from topwork.cli.text.export import exported_json, exported_text
    from topwork.jobs.export import export as run_export

    exported = run_export(run, out, format=format, precision=precision, input=input, data=data)
    print(exported_json(exported) if as_json else exported_text(exported))
