"""Two runs compared: on lists of images worked out by hand, and on runs that were trained."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from scipy.stats import binomtest

from topwork.cli.text.diff import diff_json, diff_text, sentence
from topwork.errors import InputError
from topwork.evaluation.significance import Interval, PairedComparison, mcnemar
from topwork.jobs.diff import Difference, Flip, compare_runs
from topwork.jobs.train import Run, train
from topwork.recipe import Recipe

COLUMNS = ("id", "split", "label", "prediction", "probability", "sha256", "group")


def row(id: str, split: str, label: str, prediction: str = "", p: object = 0.9, group: str = "") -> list[str]:
    """A line of a run's list; an image's name stands for its bytes."""
    return [id, split, label, prediction or label, str(p), hashlib.sha256(id.encode()).hexdigest(), group]


Lists = Callable[..., Path]


@pytest.fixture
def listed(tmp_path: Path) -> Lists:
    """Writes a run's list of images; every class has an image that was learned from."""

    def write(name: str, *rows: list[str], columns: tuple[str, ...] = COLUMNS) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        learned = [row(f"learned {label}", "train", label) for label in ("cat", "dog", "owl")]
        with (folder / "splits.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *(r[: len(columns)] for r in [*learned, *rows])])
        return folder

    return write


def refused(a: Path, b: Path, text: str) -> None:
    """Check that the two runs can't be compared, for the reason `text`."""
    with pytest.raises(InputError, match=re.escape(text)):
        compare_runs(a, b)


def test_by_hand(listed: Lists) -> None:
    a = listed(
        "a",
        row("1", "test", "cat"),
        row("2", "test", "cat", "dog", 0.6),
        row("3", "test", "dog"),
        row("4", "test", "owl", "cat", 0.5),
        row("5", "test", "owl", "cat", 0.7),
        row("6", "test", "owl"),
    )
    b = listed(
        "b",
        row("5", "test", "owl", "cat", 0.8),  # wrong alike: no flip
        row("4", "test", "owl", "dog", 0.55),
        row("3", "test", "dog", "owl", 0.95),
        row("2", "test", "cat", "cat", 0.7),
        row("1", "test", "cat"),
        row("7", "test", "cat"),
        row("8", "test", "cat"),
    )
    told = compare_runs(a, b)
    assert (told.a, told.b, told.n, told.only_in_a, told.only_in_b) == (str(a), str(b), 5, 1, 2)
    assert (told.accuracy_a, told.accuracy_b) == (0.4, 0.4)
    assert told.flips == (
        Flip("3", "dog", "dog", "owl", 0.9, 0.95),
        Flip("2", "cat", "dog", "cat", 0.6, 0.7),
        Flip("4", "owl", "cat", "dog", 0.5, 0.55),
    )
    assert [flip.kind for flip in told.flips] == ["broken", "fixed", "changed"]
    assert told.interval_a == pytest.approx((0.1176, 0.7693), abs=1e-4)  # Wilson's for 2 of 5


def outcomes(listed: Lists, name: str, right: str) -> Path:
    """A run that is right on each image where `right` has a 1."""
    rows = [row(str(i), "test", "cat", "cat" if r == "1" else "dog") for i, r in enumerate(right)]
    return listed(name, *rows)


def test_the_better_run_has_a_positive_difference(listed: Lists) -> None:
    """15 fixed and 3 broken of 40: the p-value is a fair coin's, by SciPy."""
    a = outcomes(listed, "a", "0" * 15 + "1" * 3 + "1" * 22)
    b = outcomes(listed, "b", "1" * 15 + "0" * 3 + "1" * 22)
    found = compare_runs(a, b).comparison
    assert found.difference == 12 / 40
    assert found.interval.low < 12 / 40 < found.interval.high
    assert found.p_value == pytest.approx(binomtest(3, 18).pvalue)
    back = compare_runs(b, a).comparison
    assert back.difference == -found.difference
    assert back.interval == pytest.approx((-found.interval.high, -found.interval.low))


def test_copies_of_an_image_prove_no_more_than_it_does(listed: Lists) -> None:
    def run(name: str, groups: int) -> Path:
        tests = [
            row(f"{name[1:]} {i}", "test", "cat", "dog" if name[0] == "a" else "cat", group=f"g{i % groups}")
            for i in range(12)
        ]
        return listed(name, *tests)

    alone = compare_runs(run("a1", 12), run("b1", 12))
    pairs = compare_runs(run("a2", 6), run("b2", 6))
    one = compare_runs(run("a3", 1), run("b3", 1))
    assert [d.comparison.p_value for d in (alone, pairs, one)] == pytest.approx([2 * 0.5**12, 2 * 0.5**6, 1])
    assert all(d.comparison.difference == 1 for d in (alone, pairs, one))


def test_images_that_go_together_widen_the_interval() -> None:
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 10)
    a, b = (np.repeat(random.random(40) < share, 10) for share in (0.7, 0.5))
    alone, grouped = mcnemar(a, b), mcnemar(a, b, groups=groups)
    assert alone.difference == grouped.difference
    assert alone.p_value < 1e-3 < grouped.p_value
    assert grouped.interval.high - grouped.interval.low > 2 * (alone.interval.high - alone.interval.low)
    none = mcnemar(a, a, groups=groups)  # nothing differs, of which draws anew would be too sure
    assert none.interval == mcnemar(a, a).interval


def test_json_counts_what_each_run_alone_got_right(listed: Lists) -> None:
    told = compare_runs(outcomes(listed, "a", "0001"), outcomes(listed, "b", "1110"))
    plain = json.loads(diff_json(told))
    assert (plain["comparison"]["only_a"], plain["comparison"]["only_b"]) == (1, 3)
    assert plain["comparison"]["difference"] == 0.5
    assert plain["interval_b"] == list(told.interval_b)
    assert [flip["kind"] for flip in plain["flips"]].count("fixed") == 3
    assert plain == json.loads(json.dumps(told.to_dict()))


answers: SearchStrategy[list[tuple[bool, bool]]] = st.lists(
    st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30
)


@given(answers)
def test_flips_account_for_the_difference(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[bool, bool]]
) -> None:
    root = tmp_path_factory.mktemp("runs")
    for name, place in (("a", 0), ("b", 1)):
        rows = [row(str(i), "test", "cat", "cat" if pair[place] else "dog") for i, pair in enumerate(pairs)]
        (root / name).mkdir()
        with (root / name / "splits.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
    told = compare_runs(root / "a", root / "b")
    kinds = [flip.kind for flip in told.flips]
    assert kinds.count("fixed") - kinds.count("broken") == round(told.n * told.comparison.difference)
    assert kinds.count("fixed") + kinds.count("broken") == sum(one != other for one, other in pairs)


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize("learner_first", [False, True])
def test_an_image_that_the_other_learned_from(listed: Lists, part: str, learner_first: bool) -> None:
    tester = listed("tester", row("1", "test", "cat"), row("2", "test", "dog"))
    learner = listed("learner", row("1", "test", "cat"), row("2", part, "dog"))
    pair = (learner, tester) if learner_first else (tester, learner)
    refused(*pair, f"{learner} learned from 1 of the 2 test images of {tester}")
    refused(*pair, "such as '2'")
    refused(*pair, "train both with the same --seed, --test, --copies and --group-by")


def test_an_image_that_the_other_learned_from_and_tests_on(listed: Lists) -> None:
    """The same bytes stand twice in the learner's list: the test row must not hide the other."""
    tester = listed("tester", row("1", "test", "cat"))
    for name, parts in (("x", ("train", "test")), ("y", ("test", "train"))):
        learner = listed(name, *(row("1", part, "cat") for part in parts))
        refused(tester, learner, "learned from 1 of the 1 test images")


def test_copies_by_the_learners_groups(listed: Lists) -> None:
    tester = listed("tester", row("1", "test", "cat"))
    learner = listed("learner", row("1", "test", "cat", group="g"), row("copy", "train", "cat", group="g"))
    refused(tester, learner, "or from copies of them, such as '1'")


def test_copies_by_the_testers_groups(listed: Lists) -> None:
    """The learner was trained blind to copies; the tester's list knows of them."""
    tester = listed("tester", row("1", "test", "cat", group="g"), row("copy", "test", "cat", group="g"))
    learner = listed("learner", row("1", "test", "cat"), row("copy", "train", "cat"), columns=COLUMNS[:-1])
    refused(tester, learner, "learned from 2 of the 2 test images")


def test_equal_names_of_groups_say_nothing_across_runs(listed: Lists) -> None:
    a = listed("a", row("1", "test", "cat", group="g"))
    b = listed("b", row("1", "test", "cat", group="h"), row("2", "train", "cat", group="g"))
    assert compare_runs(a, b).n == 1


def test_what_leaks_within_both_is_no_advantage(listed: Lists) -> None:
    rows = row("1", "test", "cat", group="g"), row("copy", "train", "cat", group="g")
    assert compare_runs(listed("a", *rows), listed("b", *rows)).n == 1


def test_no_image_in_common(listed: Lists) -> None:
    a, b = listed("a", row("1", "test", "cat")), listed("b", row("2", "test", "cat"), row("3", "test", "cat"))
    refused(
        a,
        b,
        f"{a} and {b} have no test image in common (they have 1 and 2): train both on the same photos",
    )


def test_labels_that_differ(listed: Lists) -> None:
    a, b = listed("a", row("1", "test", "cat")), listed("b", row("1", "test", "dog", "cat"))
    refused(a, b, f"'1' is 'cat' in {a} and 'dog' in {b}: train both on the same labels")


def test_classes_that_differ(listed: Lists) -> None:
    a = listed("a", row("1", "test", "cat"), row("2", "train", "ant"))
    b = listed("b", row("1", "test", "cat"), *(row(f"b{i}", "train", f"bee {i}") for i in range(7)))
    five = "'bee 0', 'bee 1', 'bee 2', 'bee 3', 'bee 4' and 2 more"
    refused(a, b, f"got 'ant' in {a} alone and {five} in {b} alone: train both on the same classes")


def test_no_run(listed: Lists, tmp_path: Path) -> None:
    a = listed("a", row("1", "test", "cat"))
    refused(a, tmp_path / "none", "expected a folder that `topwork train` wrote; it has no splits.csv")
    refused(tmp_path, a, "it has no splits.csv")
    refused(a / "splits.csv", a, "it can't be read")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"id,split\n1,test\n", "'label'"),
        (b"id,split,label,prediction,probability,sha256\n1,test,cat\n", "row 2 has no prediction"),
        (b"id,split,label,prediction,probability,sha256\n1,tset,cat,cat,0.5,00\n", "got 'tset'"),
        (b"id,split,label,prediction,probability,sha256\n1,test,cat,cat,high,00\n", "got 'high'"),
        (b"id,split,label,prediction,probability,sha256\n1,test,cat,cat,nan,00\n", "got 'nan'"),
        (b"id,split,label,prediction,probability,sha256\n" + b"x" * 200_000, "field larger than field limit"),
        (b"\xff\xfe\xfd", "can't decode byte"),
    ],
)
def test_damaged_lists(listed: Lists, tmp_path: Path, text: bytes, reason: str) -> None:
    a = listed("a", row("1", "test", "cat"))
    b = tmp_path / "b"
    b.mkdir()
    (b / "splits.csv").write_bytes(text)
    refused(a, b, f"{b / 'splits.csv'}: expected a run's list of images; it can't be read")
    refused(a, b, reason)


def difference(points: float, low: float, high: float, p_value: float) -> Difference:
    comparison = PairedComparison(269, 30, 20, p_value, points, Interval(low, high))
    flips = tuple(Flip(str(i), "cat", "dog", "cat", 0.5, 0.99 - i / 100) for i in range(30))
    share = Interval(0.8, 0.9)
    return Difference("A", "B", 269, 3, 0, 0.85, 0.869, share, share, comparison, flips)


def test_the_sentence() -> None:
    unsure = difference(0.019, -0.004, 0.041, 0.12)
    assert sentence(unsure) == (
        "B is better than A by +1.9 points (95 % -0.4 to +4.1) on 269 common test images: not significant "
        "(McNemar p = 0.12)"
    )
    assert "B is worse than A by -5.0 points" in sentence(difference(-0.05, -0.08, -0.02, 0.003))
    assert sentence(difference(0.05, 0.02, 0.08, 0.003)).endswith(": significant (McNemar p = 0.003)")
    assert "equally good" in sentence(difference(0.0, -0.02, 0.02, 1.0))


def test_the_text() -> None:
    lines = diff_text(difference(0.019, -0.004, 0.041, 0.12), limit=4).splitlines()
    assert lines[0].startswith("B is better")
    assert lines[2:6] == [
        "A: 85.0 % right (95 %: 80.0 to 90.0)",
        "B: 86.9 % right (95 %: 80.0 to 90.0)",
        "fixed 30, broken 0, wrong in both but different 0",
        "test images in only one run, not compared: 3 in A, 0 in B",
    ]
    assert lines[6] == "  fixed   0 (cat): dog 50 % → cat 99 %"
    assert lines[10:] == ["  … and 26 more; --json lists all"]


def test_trained_runs(run: Run, shapes: Path, recipe: Recipe, tmp_path: Path) -> None:
    """Another head on the same split: the same images, and the accuracies that the runs tell themselves."""
    head = dataclasses.replace(recipe.head, kind="centroid")
    other = train(shapes, tmp_path / "run", recipe=dataclasses.replace(recipe, head=head))
    assert run.test is not None
    assert other.test is not None
    told = compare_runs(run.path, str(other.path))
    assert (told.n, told.only_in_a, told.only_in_b) == (run.test.n, 0, 0)
    assert (told.accuracy_a, told.accuracy_b) == (run.test.accuracy, other.test.accuracy)
    assert told.interval_b == other.test.interval
