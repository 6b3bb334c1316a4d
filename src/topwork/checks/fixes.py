"""fixes.csv: an audit's suggestions, to be edited by the user and applied by `train --fixes`. No photo is changed.

One row per picture: `id, finding, suggestion, label, group, note`. `suggestion` is the action:

- "leave out": the picture is not used;
- "relabel": it gets the class in `label`;
- "keep one": of the pictures in one `group`, the first row's is used;
- "look", or empty: no action.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

from topwork.checks.findings import Audit
from topwork.data.dataset import Dataset, Problem, class_names
from topwork.errors import InputError, TopworkError, one_of

COLUMNS = ("id", "finding", "suggestion", "label", "group", "note")
JSON = "audit.json"
ACTIONS = ("leave out", "relabel", "keep one", "look")


def write_audit(folder: Path, audit: Audit, fixes: str) -> None:
    """Write `audit.json` and, under the name `fixes`, a row for each finding and picture, in the order of `KINDS`.

    Raises:
        TopworkError: they can't be written.
    """
    try:
        text = json.dumps(audit.to_dict(), indent=1, ensure_ascii=False)
        (folder / JSON).write_text(text, encoding="utf-8", errors="backslashreplace")
        with (folder / fixes).open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            for number, f in enumerate(audit.findings, 1):
                for id in f.ids:
                    group = str(number) if len(f.ids) > 1 else ""
                    rows.writerow([id, f.kind, f.suggestion, f.label or "", group, f.note])
    except OSError as error:
        raise TopworkError(f"{folder}: can't be written ({error.strerror}); choose another --out") from None


def apply_fixes(dataset: Dataset, path: Path) -> Dataset:
    """The data set with the fixes applied; `skipped` says what was left out and why.

    If a picture has several rows, "leave out" takes precedence over "relabel".

    Raises:
        InputError: the file is missing or is not such a table, or the data set doesn't have an id.
    """
    out: dict[str, str] = {}
    relabelled: dict[str, str] = {}
    kept: dict[tuple[str, str], str] = {}
    known = {e.id for e in dataset} | {problem.id for problem in dataset.skipped}
    for line, row in _rows(path):
        where, action, id = f"{path}, line {line}", row["suggestion"].strip(), row["id"]
        if action not in ("", *ACTIONS):
            raise InputError(f"{where}: " + one_of(action, ACTIONS, what="suggestion"))
        if action in ("", "look"):
            continue
        if id not in known:
            raise InputError(
                f"{where}: expected the id of a picture in {dataset.name}; got {id!r}, which is not in it: use the "
                "fixes of this data set's own audit, or delete the line"
            )
        if action == "leave out":
            out[id] = f"left out by {path.name}: {row['finding']}"
        elif action == "relabel":
            if not (label := row["label"].strip()):
                raise InputError(f"{where}: expected a class for {id!r} in the column label; got none")
            relabelled[id] = label
        elif kept.setdefault((row["finding"], row["group"]), id) != id:
            out[id] = f"left out by {path.name}: a copy of {kept[row['finding'], row['group']]}"
    examples = tuple(
        dataclasses.replace(e, label=relabelled.get(e.id, e.label)) for e in dataset if e.id not in out
    )
    problems = tuple(Problem(id, reason) for id, reason in out.items() if id in {e.id for e in dataset})
    return Dataset(
        examples,
        tuple(sorted({*class_names(examples)})),
        dataset.name,
        (*dataset.skipped, *problems),
    )


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            missing = [name for name in COLUMNS[:3] if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{path}: expected the columns {', '.join(COLUMNS)}, as written by `topwork audit`; there is no "
                    f"{missing[0]!r}"
                )
            return [(reader.line_num, {name: row.get(name) or "" for name in COLUMNS}) for row in reader]
    except OSError as error:
        raise InputError(f"{path}: expected the fixes that `topwork audit` wrote; {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a CSV file in UTF-8; it can't be read ({error})") from None
