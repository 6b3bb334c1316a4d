"""Comparison of two runs on their common test images: accuracies, significance, and changed predictions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topwork.errors import InputError
from topwork.evaluation.significance import Interval, PairedComparison, mcnemar, wilson
from topwork.runs.record import RunImage, images_of

NAMED = 5  # most classes that a message lists


@dataclass(frozen=True, slots=True)
class Flip:
    """A test image for which the two runs predict different classes."""

    id: str
    label: str
    before: str
    after: str
    probability_before: float  # of `before`, by the first run
    probability_after: float  # of `after`, by the second run

    @property
    def kind(self) -> str:
        """'fixed' (wrong, then right), 'broken' (right, then wrong) or 'changed' (wrong in another way)."""
        if self.after == self.label:
            return "fixed"
        return "broken" if self.before == self.label else "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """Run `b` compared with run `a`; accuracies in 0..1, intervals 95 %."""

    a: str
    b: str
    n: int  # common test images
    only_in_a: int  # test images of one run alone, which don't count
    only_in_b: int
    accuracy_a: float
    accuracy_b: float
    interval_a: Interval
    interval_b: Interval
    comparison: (
        PairedComparison  # b's accuracy minus a's (its "A" is run `b`); images of one group of b count as one
    )
    flips: tuple[Flip, ...]  # by falling probability of `b`'s prediction

    def to_dict(self) -> dict[str, Any]:
        """For JSON, where `only_a` and `only_b` count the images that run `a` or `b` alone got right."""
        found = self.comparison
        return {
            **asdict(self),
            "comparison": {**asdict(found), "only_a": found.only_b, "only_b": found.only_a},
            "flips": [{**asdict(flip), "kind": flip.kind} for flip in self.flips],
        }


@dataclass(frozen=True, slots=True)
class _Listed:
    """A run's images."""

    name: str
    rows: tuple[RunImage, ...]  # all
    tests: dict[bytes, RunImage]  # the test images by SHA-256
    learnt: frozenset[bytes]  # SHA-256 of the training and validation images

    def near_learnt(self, learnt: frozenset[bytes]) -> frozenset[bytes]:
        """The images of `learnt`, and those in a group with one of them in this run."""
        groups = {row.group for row in self.rows if row.group and row.key in learnt}
        return learnt | {row.key for row in self.rows if row.group in groups}


def diff(a: str | Path, b: str | Path) -> Difference:
    """Compare two runs on their common test images, matched by their bytes.

    Raises:
        InputError: not a run; different classes or labels; no common test image; or one run trained on test images
            of the other, or on near-duplicates of them.
    """
    first, second = _listed(a), _listed(b)
    _check_classes(first, second)
    _check_leak(first, second)
    _check_leak(second, first)
    common = [key for key in first.tests if key in second.tests]
    if not common:
        raise InputError(
            f"{a} and {b} have no test image in common (they have {len(first.tests)} and {len(second.tests)}): "
            "train both on the same photos with the same --seed and --test"
        )
    pairs = [(first.tests[key], second.tests[key]) for key in common]
    for one, other in pairs:
        if one.label != other.label:
            raise InputError(
                f"expected the same labels in both runs; {one.id!r} is {one.label!r} in {a} and {other.label!r} in "
                f"{b}: train both on the same labels"
            )
    right_a, right_b = (
        np.array([row.prediction == row.label for row in rows]) for rows in zip(*pairs, strict=True)
    )
    flips = [
        Flip(new.id, new.label, old.prediction, new.prediction, old.probability, new.probability)
        for old, new in pairs
        if old.prediction != new.prediction
    ]
    together = [new.group or new.key.hex() for _, new in pairs]
    groups = np.unique(together, return_inverse=True)[1]
    n = len(common)
    return Difference(
        a=str(a),
        b=str(b),
        n=n,
        only_in_a=len(first.tests) - n,
        only_in_b=len(second.tests) - n,
        accuracy_a=float(right_a.mean()),
        accuracy_b=float(right_b.mean()),
        interval_a=wilson(int(right_a.sum()), n),
        interval_b=wilson(int(right_b.sum()), n),
        comparison=mcnemar(right_b, right_a, groups=groups),
        flips=tuple(sorted(flips, key=lambda flip: -flip.probability_after)),
    )


def _listed(folder: str | Path) -> _Listed:
    rows = images_of(folder)
    tests = {row.key: row for row in rows if row.part == "test"}
    learnt = frozenset(row.key for row in rows if row.part != "test")
    return _Listed(str(folder), rows, tests, learnt)


def _check_classes(first: _Listed, second: _Listed) -> None:
    mine, theirs = ({row.label for row in run.rows} for run in (first, second))
    if mine != theirs:
        only = [
            f"{', '.join(map(repr, sorted(names)[:NAMED]))}"
            f"{f' and {len(names) - NAMED} more' if len(names) > NAMED else ''} in {run.name} alone"
            for run, names in ((first, mine - theirs), (second, theirs - mine))
            if names
        ]
        raise InputError(
            f"expected two runs of the same classes; got {' and '.join(only)}: train both on the same classes"
        )


def _check_leak(tester: _Listed, learner: _Listed) -> None:
    """Refuse a `learner` trained on a test image of `tester`, or on one in its group by either run."""
    # Leaks within both runs, from given splits, give neither an advantage.
    both = tester.near_learnt(tester.learnt) & learner.tests.keys()
    leaks = learner.near_learnt(learner.learnt) | tester.near_learnt(learner.learnt)
    leaked = [row.id for key, row in tester.tests.items() if key in leaks and key not in both]
    if leaked:
        raise InputError(
            f"{learner.name} learned from {len(leaked)} of the {len(tester.tests)} test images of {tester.name}, or "
            f"from copies of them, such as {leaked[0]!r}: the comparison would favour it; train both with the same "
            "--seed, --test, --copies and --group-by"
        )


compare_runs = diff
