"""Train, validation and test splits, and folds: stratified, grouped, and the same on every machine."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING

from topwork.data.dataset import SPLITS, Dataset, whole
from topwork.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Stratum = tuple[str, str]  # the class, and the user's stratum within it


@dataclass(frozen=True, slots=True)
class Splits:
    """The three parts of a dataset. They are disjoint, cover it, and keep its order."""

    train: Dataset
    validation: Dataset
    test: Dataset


@dataclass(frozen=True, slots=True)
class _Unit:
    """The rows of a group, or the row of an example without a group. A unit is never divided."""

    number: bytes  # SHA-256, 32 bytes; units of a stratum are sorted by it
    rows: tuple[int, ...]


def split(
    dataset: Dataset,
    *,
    test: float = 0.2,
    validation: float = 0.0,
    seed: int = 0,
    strata: Sequence[str] | None = None,
) -> Splits:
    """Split a labelled dataset so that few examples change parts when photos are added.

    Each unit (an example's group, or the example if it has none) is hashed: SHA-256 of `seed` and its name. A
    stratum is a class, combined with `strata` (one text per example) if given; a group belongs to the most frequent
    stratum of its examples. The units of a stratum are sorted by hash. Of its n examples, the first
    round-half-up(`test` n) go to test, the following ones up to round-half-up((`test` + `validation`) n) to
    validation, and the rest to train. If a cut would divide a group, it is moved to the nearest group boundary.
    Every class keeps at least one example in train, so a class with a single photo or group is never tested. If n is
    below 0.5 / `test` in every class, the test part is empty.

    So the split does not depend on the order of the examples. Without groups, adding m photos to a class moves at
    most m of its old photos across each cut, and none of other classes. A typical number at the cut f is
    sqrt(m f (1 - f)), the random excess of new photos before the cut over their expected share.

    A dataset with given splits is refused, unless all of it is in one split: see `splits_of`.

    Raises:
        InputError: a fraction is negative, the fractions sum to 1 or more, an example has no label, the dataset has
            given splits, or `strata` has a different length.
    """
    upto_test, upto_validation = _fractions(test, validation)
    _refuse_given(dataset)
    by_stratum = _units(dataset, seed, strata, "split")

    part = [2] * len(dataset)  # 0 test, 1 validation, 2 train
    for units in by_stratum.values():
        ends = [0, *accumulate(len(unit.rows) for unit in units)]
        first = _nearest(ends, _half_up(upto_test * ends[-1]))
        second = _nearest(ends, _half_up(upto_validation * ends[-1]))
        for i, unit in enumerate(units[:second]):
            for row in unit.rows:
                part[row] = 0 if i < first else 1
    _keep_every_class_in_train(dataset, by_stratum, part)

    rows: tuple[list[int], ...] = ([], [], [])
    for row, number in enumerate(part):
        rows[number].append(row)
    return Splits(dataset.select(rows[2]), dataset.select(rows[1]), dataset.select(rows[0]))


def splits_of(
    dataset: Dataset,
    *,
    test: float = 0.2,
    validation: float = 0.0,
    seed: int = 0,
    strata: Sequence[str] | None = None,
) -> Splits:
    """The splits given by the source (`Example.split`) if there are any, else `split(...)` with these settings.

    Given splits are used unchanged, and the settings are ignored. If the source has no validation split, the
    validation part is empty.

    Raises:
        InputError: only some examples have a split, train or test is missing, or a class is not in train; and as in
            `split`.
    """
    counts = Counter(e.split for e in dataset)
    if not counts.keys() - {None}:
        return split(dataset, test=test, validation=validation, seed=seed, strata=strata)
    _labels(dataset)
    if counts[None]:
        lost = next(e.id for e in dataset if e.split is None)
        raise InputError(
            f"{counts[None]} of {len(dataset)} examples of {dataset.name!r} have no split, such as {lost!r}, "
            "and the others have one: give every example train, validation or test, or none of them"
        )
    for needed in ("train", "test"):
        if not counts[needed]:
            has = " and ".join(f"{name} ({counts[name]})" for name in SPLITS if counts[name])
            raise InputError(
                f"the splits given by {dataset.name!r} have no {needed} part; got {has}: "
                f"name one {needed}, or remove the given splits, and Topwork makes its own"
            )
    parts = Splits(
        train=dataset.filter(lambda e: e.split == "train"),
        validation=dataset.filter(lambda e: e.split == "validation"),
        test=dataset.filter(lambda e: e.split == "test"),
    )
    taught = set(parts.train.labels())
    for name, rest in (("validation", parts.validation), ("test", parts.test)):
        for e in rest:
            if e.label not in taught:
                raise InputError(
                    f"class {e.label!r} is in {name} but not in train of {dataset.name!r}, such as {e.id!r}: "
                    "the classifier couldn't learn it; add images of it to train, or remove it"
                )
    return parts


def folds(
    dataset: Dataset, count: int, *, seed: int = 0, strata: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """Assign each example to a fold for cross-validation: int64 (N,), from 0 to `count` - 1.

    Folds are stratified, keep groups together, and don't depend on the order of the examples. Units and strata are
    as in `split`. Units are sorted by size, largest first, then by hash; each goes to the fold with the fewest
    examples of its stratum, then the fewest examples in all. No fold is empty. Without groups, fold sizes differ by
    at most one, within each stratum and overall.

    Raises:
        InputError: `count` is below 2 or above the number of units; and as in `split`.
    """
    import numpy as np

    count = whole(count, "count")
    if count < 2:
        raise InputError(f"`count` must be at least 2 folds; got {count}")
    _refuse_given(dataset)
    by_stratum = _units(dataset, seed, strata, "folds")
    units_in_all = sum(len(units) for units in by_stratum.values())
    if count > units_in_all:
        raise InputError(
            f"`count` must be at most the number of examples (a group counts as one), {units_in_all} in "
            f"{dataset.name!r}; got {count}"
        )
    fold_of = np.empty(len(dataset), np.int64)
    total = [0] * count
    for _, units in sorted(by_stratum.items()):
        here = [0] * count
        for unit in sorted(units, key=lambda u: (-len(u.rows), u.number)):
            fold = min(range(count), key=lambda f: (here[f], total[f]))
            fold_of[list(unit.rows)] = fold
            here[fold] += len(unit.rows)
            total[fold] += len(unit.rows)
    return fold_of


def _units(
    dataset: Dataset, seed: int, strata: Sequence[str] | None, domain: str
) -> dict[Stratum, list[_Unit]]:
    labels = _labels(dataset)
    seed = whole(seed, "seed")
    if strata is not None and len(strata) != len(dataset):
        raise InputError(f"`strata` must have one text per example, {len(dataset)}; got {len(strata)}")
    stratum_of = list(zip(labels, strata if strata is not None else [""] * len(labels), strict=True))
    rows_of: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, e in enumerate(dataset):
        rows_of[("id", e.id) if e.group is None else ("group", e.group)].append(row)
    by_stratum: dict[Stratum, list[_Unit]] = defaultdict(list)
    for (kind, name), rows in rows_of.items():
        # The domain makes folds independent of splits; the kind separates groups from ids of the same name.
        text = f"topwork.{domain}\0{seed}\0{kind}\0{name}"
        number = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        stratum = stratum_of[rows[0]] if len(rows) == 1 else _most_frequent(stratum_of[row] for row in rows)
        by_stratum[stratum].append(_Unit(number, tuple(rows)))
    for units in by_stratum.values():
        units.sort(key=lambda unit: unit.number)
    return by_stratum


def _most_frequent(strata: Iterable[Stratum]) -> Stratum:
    votes = Counter(strata)
    return min(votes, key=lambda s: (-votes[s], s))


def _keep_every_class_in_train(
    dataset: Dataset, by_stratum: dict[Stratum, list[_Unit]], part: list[int]
) -> None:
    # Moving a unit to train removes no other class from train, so one pass is enough.
    lost = set(dataset.labels()) - {dataset[row].label for row, number in enumerate(part) if number == 2}
    if not lost:
        return
    last: dict[str | None, _Unit] = {}
    for units in by_stratum.values():
        for unit in units:
            for label in {dataset[row].label for row in unit.rows} & lost:
                if label not in last or unit.number > last[label].number:
                    last[label] = unit
    for unit in last.values():
        for row in unit.rows:
            part[row] = 2


def _labels(dataset: Dataset) -> list[str]:
    labels = [e.label for e in dataset if e.label is not None]
    if len(labels) < len(dataset):
        bare = next(e.id for e in dataset if e.label is None)
        raise InputError(f"splitting needs a label for every example; {bare!r} of {dataset.name!r} has none")
    return labels


def _refuse_given(dataset: Dataset) -> None:
    given = {e.split for e in dataset}
    if len(given) > 1:
        raise InputError(
            f"{dataset.name!r} has given splits: use them with `splits_of(dataset)`, or remove them first with "
            "`dataset.with_split(None)`"
        )


def _fractions(test: float, validation: float) -> tuple[Fraction, Fraction]:
    for name, value in (("test", test), ("validation", validation)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise InputError(f"`{name}` must be a fraction from 0 to below 1; got {value!r}")
    # Fractions from the decimal representation, because 0.145 * 100 is 14.499999999999998 in binary.
    first, second = Fraction(repr(float(test))), Fraction(repr(float(validation)))
    if first + second >= 1:
        raise InputError(
            f"`test` and `validation` must sum to less than 1, to leave images for training; got {test} and "
            f"{validation}"
        )
    return first, first + second


def _half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def _nearest(ends: list[int], wanted: int) -> int:
    """The number of units whose total size is closest to `wanted`; the larger on a tie. `ends` is increasing."""
    i = bisect_left(ends, wanted)
    return i - 1 if i and wanted - ends[i - 1] < ends[i] - wanted else i
