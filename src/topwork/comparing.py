"""Two runs on the test images that both have: which is better, how sure that is, and which pictures flipped."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topwork.errors import InputError
from topwork.runfolder import SPLITS
from topwork.significance import Interval, PairedComparison, mcnemar, wilson


@dataclass(frozen=True, slots=True)
class Flip:
    """A test image that the two runs call by different names, with the probability that each gave its own answer."""

    id: str
    label: str
    before: str
    after: str
    probability_before: float
    probability_after: float

    @property
    def kind(self) -> str:
        """'fixed' (wrong, then right), 'broken' (right, then wrong) or 'changed' (wrong in another way)."""
        if self.after == self.label:
            return "fixed"
        return "broken" if self.before == self.label else "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """Run `b` less run `a` on their `n` common test images; accuracies in 0..1, intervals 95 %.

    `comparison`: McNemar's test and the interval of the difference, b's accuracy less a's. `only_a`, `only_b`: test
    images that one alone has, and that don't count. `flips`: the surest answer of `b` first.
    """

    a: str
    b: str
    n: int
    only_a: int
    only_b: int
    accuracy_a: float
    accuracy_b: float
    interval_a: Interval
    interval_b: Interval
    comparison: PairedComparison
    flips: tuple[Flip, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "flips": [{**asdict(flip), "kind": flip.kind} for flip in self.flips]}


def compare_runs(a: str | Path, b: str | Path) -> Difference:
    """Compare two runs on the images that both tested on, known by their bytes.

    Raises:
        InputError: no run, classes or labels that differ, no common test image; or one run learned from images, or
            from copies of images, that the other tests on.
    """
    first, second = _rows(Path(a)), _rows(Path(b))
    _check_classes(a, first, b, second)
    for here, rows, there, others in ((a, first, b, second), (b, second, a, first)):
        _check_leak(here, rows, there, others)
    test_a, test_b = (
        {key: row for key, row in rows.items() if row["split"] == "test"} for rows in (first, second)
    )
    common = [key for key in test_a if key in test_b]
    if not common:
        raise InputError(
            f"{a} and {b} have no test image in common ({len(test_a)} and {len(test_b)} of their own): train both on "
            "the same photos with the same --seed and --test"
        )
    for key in common:
        if test_a[key]["label"] != test_b[key]["label"]:
            raise InputError(
                f"expected the same labels in both runs; {test_a[key]['id']!r} is {test_a[key]['label']!r} in {a} "
                f"and {test_b[key]['label']!r} in {b}: train both on the same labels"
            )
    right_a, right_b = (
        np.array([rows[key]["prediction"] == rows[key]["label"] for key in common])
        for rows in (test_a, test_b)
    )
    flips = [
        Flip(
            test_b[key]["id"],
            test_b[key]["label"],
            test_a[key]["prediction"],
            test_b[key]["prediction"],
            float(test_a[key]["probability"]),
            float(test_b[key]["probability"]),
        )
        for key in common
        if test_a[key]["prediction"] != test_b[key]["prediction"]
    ]
    n = len(common)
    return Difference(
        a=str(a),
        b=str(b),
        n=n,
        only_a=len(test_a) - n,
        only_b=len(test_b) - n,
        accuracy_a=float(right_a.mean()),
        accuracy_b=float(right_b.mean()),
        interval_a=wilson(int(right_a.sum()), n),
        interval_b=wilson(int(right_b.sum()), n),
        comparison=mcnemar(right_b, right_a),
        flips=tuple(sorted(flips, key=lambda flip: -flip.probability_after)),
    )


def _rows(folder: Path) -> dict[str, dict[str, str]]:
    """A run's images by their SHA-256; of two with the same bytes, a test row if there is one."""
    try:
        with (folder / SPLITS).open(newline="", encoding="utf-8") as file:
            rows: dict[str, dict[str, str]] = {}
            for row in csv.DictReader(file):
                if row["split"] == "test" or row["sha256"] not in rows:
                    rows[row["sha256"]] = {
                        name: row[name] for name in ("id", "split", "label", "prediction", "probability")
                    } | {"group": row.get("group") or ""}
            return rows
    except FileNotFoundError:
        raise InputError(
            f"{folder}: expected a folder that `topwork train` wrote; it has no {SPLITS}"
        ) from None
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{folder / SPLITS}: expected a run's list of images; it can't be read ({error})"
        ) from None


def _check_classes(
    a: str | Path, first: dict[str, dict[str, str]], b: str | Path, second: dict[str, dict[str, str]]
) -> None:
    mine, theirs = ({row["label"] for row in rows.values()} for rows in (first, second))
    if mine != theirs:
        only = [
            f"{', '.join(map(repr, sorted(names)[:5]))} in {run} alone"
            for run, names in ((a, mine - theirs), (b, theirs - mine))
            if names
        ]
        raise InputError(f"expected two runs of the same classes; got {' and '.join(only)}")


def _check_leak(
    here: str | Path, rows: dict[str, dict[str, str]], there: str | Path, others: dict[str, dict[str, str]]
) -> None:
    learnt_groups, own_learnt = (
        {row["group"] for row in some.values() if row["split"] != "test" and row["group"]}
        for some in (others, rows)
    )
    leaked = [
        row["id"]
        for key, row in rows.items()
        if row["split"] == "test"
        and key in others
        # What leaks within the run itself, by splits that were given, is no advantage of the other.
        and (
            others[key]["split"] != "test"
            or (others[key]["group"] in learnt_groups and row["group"] not in own_learnt)
        )
    ]
    if leaked:
        tested = sum(row["split"] == "test" for row in rows.values())
        raise InputError(
            f"{there} learned from {len(leaked)} of the {tested} test images of {here}, or from copies of them, such "
            f"as {leaked[0]!r}: a comparison would flatter it; train both with the same --seed and --test"
        )
