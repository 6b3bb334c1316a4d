"""The commands that look data and runs over: audit, report, diff."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from topwork.recipe import Recipe

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")
]


def audit(
    data: Annotated[str, typer.Argument(help="Labelled photos, as for `train`.")],
    out: Annotated[
        Path | None, typer.Option(help="A new folder for audit.html, audit.json and fixes.csv.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="The network, as for `train`.")] = None,
    size: Annotated[int | None, typer.Option(help="The side of its input, in pixels.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Settings from a file.")] = None,
    as_json: Json = False,
) -> None:
    """Find copies, leaks, wrong labels, odd and unreadable pictures; nothing is changed."""
    from topwork.cli.console import Console
    from topwork.cli.text.audit import audit_json, audit_text
    from topwork.jobs.audit import audit as run_audit

    settings = Recipe.load(recipe) if recipe else Recipe()
    network = settings.backbone
    network = dataclasses.replace(
        network, handle=backbone or network.handle, size_px=network.size_px if size is None else size
    )
    result = run_audit(data, out, recipe=dataclasses.replace(settings, backbone=network), watch=Console())
    print(audit_json(result) if as_json else audit_text(result, out))


def report(
    run: Annotated[Path, typer.Argument(help="A folder that `topwork train` wrote.")],
    data: Annotated[str | None, typer.Argument(help="Its photos, if they are elsewhere now.")] = None,
) -> None:
    """Write a run's report.html anew: one page, to look at and to send."""
    from topwork.cli.console import Console
    from topwork.runs.report.write import write_report

    print(f"{write_report(run, data, watch=Console())} is the report")


def diff(
    a: Annotated[Path, typer.Argument(help="A run.")],
    b: Annotated[Path, typer.Argument(help="Another, of the same photos.")],
    as_json: Json = False,
) -> None:
    """Compare two runs on their common test images: which is better, and how sure is that?"""
    from topwork.cli.text.diff import diff_json, diff_text
    from topwork.jobs.diff import compare_runs

    difference = compare_runs(a, b)
    print(diff_json(difference) if as_json else diff_text(difference))
