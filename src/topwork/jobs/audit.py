"""Check a data set before training: `audit` finds problems and changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from topwork.checks.findings import Audit
from topwork.checks.fixes import write_audit
from topwork.checks.inspect import inspect, unseen_probabilities
from topwork.data.dataset import Dataset
from topwork.errors import InputError
from topwork.jobs.clock import Clock
from topwork.jobs.prepare import backbone_for, dataset_of, features_of
from topwork.progress import Silent, Watch
from topwork.recipe import Recipe
from topwork.runs.folder import AUDIT, AUDIT_PAGE, FIXES
from topwork.runs.report.audit_page import write_audit_page


def audit(
    data: Dataset | str | Path,
    out: str | Path | None = None,
    *,
    recipe: Recipe | None = None,
    watch: Watch | None = None,
) -> Audit:
    """Find unreadable files, near-duplicates, leaks, mislabelled pictures, outliers and classes that are too small.

    Nothing in the user's folder is changed. With `out`, a new or empty folder, `audit.html` (for people),
    `audit.json` (for programs) and `fixes.csv` (to edit and pass to `train`) are written there.

    Args:
        data: a data set, or anything that `topwork.load` takes.
        out: where to write the files; None writes none.
        recipe: the settings, of which the network's, the folds and the seed are used.
        watch: receives progress.

    Raises:
        InputError: the data, the folder or a setting is invalid.

    >>> audit("photos").counts()  # doctest: +SKIP
    {'unreadable': 1, 'leak': 0, 'conflict': 2, 'mislabelled': 7, ...}
    """
    recipe, watch, clock = recipe or Recipe(), watch or Silent(), Clock()
    folder = _folder(out)
    with clock.time("load"):
        dataset = dataset_of(data, recipe)
        backbone = backbone_for(dataset, recipe, watch)
    recipe = replace(recipe, split=replace(recipe.split, copies=True))
    with features_of(dataset, backbone, recipe, watch, clock) as (_, checked):
        assert checked is not None
        looks, groups = checked.looks, checked.groups
        features = checked.features
        with clock.time("labels"):
            probabilities = unseen_probabilities(features, recipe)
        with clock.time("pictures"):
            problems = (*dataset.skipped, *features.problems)
            findings = inspect(features, looks, groups, probabilities, problems)
    result = Audit(
        dataset.name,
        len(features.dataset),
        features.dataset.class_counts(),
        findings,
        tuple(tuple(features.dataset[row].id for row in group.rows) for group in groups),
        clock.seconds(),
    )
    if folder is not None:
        write_audit(folder, result, FIXES)
        write_audit_page(folder, result, features.dataset, watch)
    return result


def _folder(out: str | Path | None) -> Path | None:
    if out is None:
        return None
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise InputError(f"{folder}: expected a folder to write to; {error.strerror}") from None
    if FIXES in held:
        raise InputError(
            f"{folder}: already holds fixes, which may have been edited; choose another --out, or remove "
            f"{folder / FIXES}"
        )
    if others := held - {AUDIT, AUDIT_PAGE}:
        raise InputError(
            f"{folder}: expected a new or empty folder; it holds {sorted(others)[0]!r}; choose another --out"
        )
    return folder
