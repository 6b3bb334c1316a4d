"""`split`, `splits_of` and `folds`: the rule's promises, as properties."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from topwork.data.dataset import Dataset, Example, FileImage, class_names
from topwork.data.split import folds, split, splits_of
from topwork.errors import InputError


def make(examples: list[Example]) -> Dataset:
    return Dataset(tuple(examples), class_names(examples), "made")


def photos(label: str, n: int, *, first: int = 0) -> list[Example]:
    return [Example(f"{label}/{i}", FileImage(""), label) for i in range(first, first + n)]


def ids(dataset: Dataset) -> set[str]:
    return {e.id for e in dataset}


def half_up(f: float, n: int) -> int:
    return math.floor(Fraction(str(f)) * n + Fraction(1, 2))


fractions = st.sampled_from([0.0, 0.05, 0.1, 0.145, 0.15, 0.2, 0.25, 0.3, 0.45])
class_sizes = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@st.composite
def grouped(draw):
    rows = draw(
        st.lists(
            st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.sampled_from("wxyz"))),
            min_size=1,
            max_size=60,
        )
    )
    return make([Example(f"{i}", FileImage(""), c, g) for i, (c, g) in enumerate(rows)])


@settings(deadline=None)
@given(class_sizes, fractions, fractions, st.integers(-3, 2**40))
def test_sizes_are_exact_in_every_class(sizes, test, validation, seed):
    d = make([e for c, n in zip("abcd", sizes, strict=False) for e in photos(c, n)])
    parts = split(d, test=test, validation=validation, seed=seed)
    assert ids(parts.train) | ids(parts.validation) | ids(parts.test) == ids(d)
    assert len(parts.train) + len(parts.validation) + len(parts.test) == len(d)
    for c, n in d.class_counts().items():
        assert parts.test.class_counts()[c] == min(half_up(test, n), n - 1)
        held_out = parts.test.class_counts()[c] + parts.validation.class_counts()[c]
        assert held_out == min(half_up(float(Fraction(str(test)) + Fraction(str(validation))), n), n - 1)
        assert abs(parts.validation.class_counts()[c] - validation * n) <= 1
        assert parts.train.class_counts()[c] >= 1


@settings(deadline=None)
@given(class_sizes, fractions, fractions, st.integers(0, 9), st.integers(0, 40), st.integers(0, 3))
def test_added_photos_move_at_most_as_many_old_ones(sizes, test, validation, seed, added, target):
    old = [e for c, n in zip("abcd", sizes, strict=False) for e in photos(c, n)]
    grown = "abcd"[target % len(sizes)]
    before = split(make(old), test=test, validation=validation, seed=seed)
    new = make(old + photos(grown, added, first=1000))
    after = split(new, test=test, validation=validation, seed=seed)

    for first, second in (
        (ids(before.test), ids(after.test)),
        (ids(before.test) | ids(before.validation), ids(after.test) | ids(after.validation)),
    ):
        moved = [e for e in old if (e.id in first) != (e.id in second)]
        assert len(moved) <= added
        assert all(e.label == grown for e in moved)


def test_added_photos_typically_move_few():
    # About sqrt(m f (1 - f)) = 4 of m = 100 are expected to move; 16 is four times that.
    old = photos("a", 500)
    for seed in range(20):
        before = split(make(old), seed=seed)
        after = split(make(old + photos("a", 100, first=1000)), seed=seed)
        assert len(ids(before.test) ^ (ids(after.test) & ids(make(old)))) <= 16


@settings(deadline=None)
@given(grouped(), fractions, fractions, st.integers(0, 9), st.integers(0, 99))
def test_groups_stay_whole_and_order_does_not_matter(d, test, validation, seed, shuffle):
    parts = split(d, test=test, validation=validation, seed=seed)
    every = [parts.train, parts.validation, parts.test]
    assert sum(map(len, every)) == len(d)
    assert set.union(*map(ids, every)) == ids(d)
    groups = [{e.group for e in part} - {None} for part in every]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert set(parts.train.labels()) == set(d.labels())
    if validation == 0:
        assert len(parts.validation) == 0

    again = split(d.shuffle(shuffle), test=test, validation=validation, seed=seed)
    assert [ids(p) for p in (again.train, again.validation, again.test)] == [ids(p) for p in every]


def test_the_rule_worked_by_hand():
    d = make(photos("a", 10))

    def number(e: Example) -> bytes:
        return hashlib.sha256(f"topwork.split\0{5}\0id\0{e.id}".encode()).digest()

    order = [e.id for e in sorted(d, key=number)]
    parts = split(d, test=0.25, validation=0.2, seed=5)  # 2.5 -> 3; 4.5 -> 5
    assert ids(parts.test) == set(order[:3])
    assert ids(parts.validation) == set(order[3:5])
    assert [e.id for e in parts.train] == [e.id for e in d if e.id in order[5:]]


def test_rounding_is_of_the_decimal_that_was_written():
    assert 0.145 * 100 < 14.5  # in binary
    assert len(split(make(photos("a", 100)), test=0.145).test) == 15


def test_groups_are_cut_at_the_nearest_border():
    rows = [Example(f"{g}{i}", FileImage(""), "a", g) for g in "pqrstuvwxy" for i in range(10)]
    assert len(split(make(rows), test=0.23).test) == 20
    assert len(split(make(rows), test=0.26).test) == 30


def test_a_groups_stratum_is_its_most_frequent_class():
    # One group of 3 a and 2 b, and single b: the group counts among the a, of which it is all.
    mixed = [Example(f"m{i}", FileImage(""), label, "g") for i, label in enumerate("aaabb")]
    parts = split(make(mixed + photos("b", 10)), test=0.2)
    assert {e.group for e in parts.train} == {"g", None}
    assert parts.test.class_counts() == {"a": 0, "b": 2}


def test_strata_are_crossed_with_the_classes():
    d = make(photos("a", 40) + photos("b", 20))
    strata = ["left" if i % 4 else "right" for i in range(60)]
    where = dict(zip([e.id for e in d], strata, strict=True))
    parts = split(d, test=0.2, strata=strata)
    assert Counter((e.label, where[e.id]) for e in parts.test) == {
        ("a", "left"): 6,
        ("a", "right"): 2,
        ("b", "left"): 3,
        ("b", "right"): 1,
    }


def test_strata_of_one_leave_each_class_in_train():
    d = make(photos("a", 3))
    parts = split(d, test=0.9, strata=["p", "q", "r"])
    assert (len(parts.train), len(parts.test)) == (1, 2)


def test_the_seed_matters_and_an_empty_dataset_has_empty_parts():
    d = make(photos("a", 100))
    assert ids(split(d, seed=0).test) != ids(split(d, seed=1).test)
    empty = split(Dataset((), (), "none"))
    assert [len(p) for p in (empty.train, empty.validation, empty.test)] == [0, 0, 0]


def test_given_splits_are_used():
    rows = photos("a", 4) + photos("b", 4)
    names = ["train", "test", "train", "train"] * 2
    d = make([Example(e.id, e.image, e.label, split=s) for e, s in zip(rows, names, strict=True)])
    parts = splits_of(d, test=0.5, seed=3)
    assert ids(parts.test) == {"a/1", "b/1"}
    assert len(parts.validation) == 0
    assert len(parts.train) == 6


def test_without_given_splits_the_rule_is_used():
    d = make(photos("a", 50) + photos("b", 50))
    assert splits_of(d, test=0.3, validation=0.1, seed=4) == split(d, test=0.3, validation=0.1, seed=4)


def with_splits(*names: str | None, labels: str = "") -> Dataset:
    labels = labels or "a" * len(names)
    return make([Example(str(i), FileImage(""), c, split=s) for i, (s, c) in enumerate(zip(names, labels))])  # noqa: B905


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (with_splits("train", None, "test", None), "2 of 4 examples of 'made' have no split, such as '1'"),
        (
            with_splits("train", "validation"),
            "no test part; got train (1) and validation (1): name one",
        ),
        (with_splits("test", "test"), "have no train part; got test (2)"),
        (
            with_splits("train", "test", labels="ab"),
            "'b' is in test but not in train of 'made', such as '1'",
        ),
        (
            make([Example("x", FileImage(""), None, split="train"), *with_splits("train", "test")]),
            "splitting needs a label for every example; 'x' of 'made' has none",
        ),
    ],
)
def test_given_splits_that_cannot_be_used_are_explained(dataset, message):
    with pytest.raises(InputError, match=re.escape(message)):
        splits_of(dataset)


@pytest.mark.parametrize("part", [split, lambda d: folds(d, 2)])
def test_given_splits_are_never_silently_ignored(part):
    with pytest.raises(InputError, match=r"has given splits: use them with `splits_of\(dataset\)`"):
        part(with_splits("train", "train", "test"))
    part(with_splits("train", "train", "test").with_split(None))
    part(with_splits("train", "train", "train"))  # the given train part may be parted further


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test": 1.0}, "`test` must be a fraction from 0 to below 1; got 1.0"),
        ({"test": -0.1}, "`test` must be a fraction from 0 to below 1; got -0.1"),
        ({"test": float("nan")}, "`test` must be a fraction from 0 to below 1; got nan"),
        ({"test": True}, "`test` must be a fraction from 0 to below 1; got True"),
        ({"validation": "0.1"}, "`validation` must be a fraction from 0 to below 1; got '0.1'"),
        (
            {"test": 0.7, "validation": 0.3},
            "must sum to less than 1, to leave images for training; got 0.7",
        ),
        ({"strata": ["x"]}, "`strata` must have one text per example, 4; got 1"),
        ({"seed": 0.5}, "`seed` must be a whole number; got 0.5"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(InputError, match=re.escape(message)):
        split(make(photos("a", 4)), **settings)


def test_an_example_without_a_label_is_named():
    d = make([*photos("a", 3), Example("bare", FileImage(""))])
    for call in (split, splits_of, lambda d: folds(d, 2)):
        with pytest.raises(InputError, match="a label for every example; 'bare' of 'made' has none"):
            call(d)


@settings(deadline=None)
@given(class_sizes, st.integers(2, 6), st.integers(0, 9), st.integers(0, 99))
def test_folds_are_balanced_in_every_class(sizes, count, seed, shuffle):
    d = make([e for c, n in zip("abcd", sizes, strict=False) for e in photos(c, n)])
    assume(count <= len(d))
    fold = folds(d, count, seed=seed)
    assert fold.dtype == np.int64
    assert fold.shape == (len(d),)
    for mask in [np.full(len(d), True), *(d.targets() == k for k in range(len(d.classes)))]:
        sizes = np.bincount(fold[mask], minlength=count)
        assert len(sizes) == count
        assert sizes.max() - sizes.min() <= 1
    assert np.bincount(fold, minlength=count).min() >= 1

    moved = d.shuffle(shuffle)
    again = dict(zip([e.id for e in moved], folds(moved, count, seed=seed), strict=True))
    assert [again[e.id] for e in d] == fold.tolist()


@settings(deadline=None)
@given(grouped(), st.integers(2, 6), st.integers(0, 9))
def test_folds_keep_groups_whole_and_none_is_empty(d, count, seed):
    units = {e.group or f"id {e.id}" for e in d}
    assume(count <= len(units))
    fold = folds(d, count, seed=seed)
    assert set(fold.tolist()) == set(range(count))
    for group in {e.group for e in d} - {None}:
        assert len({fold[i] for i, e in enumerate(d) if e.group == group}) == 1


def test_folds_follow_strata_and_the_seed():
    d = make(photos("a", 40))
    strata = ["p"] * 10 + ["q"] * 30
    fold = folds(d, 5, strata=strata)
    assert np.bincount(fold[:10]).tolist() == [2] * 5
    assert np.bincount(fold[10:]).tolist() == [6] * 5
    assert fold.tolist() != folds(d, 5, strata=strata, seed=1).tolist()


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (1, "`count` must be at least 2 folds; got 1"),
        (5, "`count` must be at most the number of examples (a group counts as one), 4 in 'made'; got 5"),
        (2.0, "`count` must be a whole number; got 2.0"),
    ],
)
def test_wrong_counts_of_folds_are_named(count, message):
    with pytest.raises(InputError, match=re.escape(message)):
        folds(make(photos("a", 4)), count)
