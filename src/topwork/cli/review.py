"""The commands `audit`, `report` and `diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topwork.cli.options import Given, Json, RecipeFile, recipe_from, with_settings


@with_settings("backbone.handle", "backbone.size_px")
def audit(
    data: Annotated[str, typer.Argument(help="Labelled photos, as for `train`.")],
    given: Given,
    out: Annotated[
        Path | None,
        typer.Option(help="A new folder for audit.html, audit.json and fixes.csv.", rich_help_panel="Output"),
    ] = None,
    recipe: RecipeFile = None,
    as_json: Json = False,
) -> None:
    """Find near-duplicates, leaks, mislabelled, odd and unreadable pictures, without changing anything."""
    from topwork.cli.console import Console
    from topwork.cli.text.audit import audit_json, audit_text
    from topwork.jobs.audit import audit as run_audit

    result = run_audit(data, out, recipe=recipe_from(recipe, given), watch=Console())
    print(audit_json(result) if as_json else audit_text(result, out))


def report(
    run: Annotated[Path, typer.Argument(help="A folder that `topwork train` wrote.")],
    data: Annotated[str | None, typer.Argument(help="Its photos, if they have moved.")] = None,
) -> None:
    """Write a run's report.html again, a self-contained page."""
    from topwork.cli.console import Console
    from topwork.runs.report.write import write_report

    print(f"wrote {write_report(run, data, watch=Console())}")


def diff(
    a: Annotated[Path, typer.Argument(help="A run.")],
    b: Annotated[Path, typer.Argument(help="Another run on the same photos.")],
    as_json: Json = False,
) -> None:
    """Compare two runs on their common test images, with a significance test."""
    from topwork.cli.text.diff import diff_json, diff_text
    from topwork.jobs.diff import compare_runs

    difference = compare_runs(a, b)
    print(diff_json(difference) if as_json else diff_text(difference))
