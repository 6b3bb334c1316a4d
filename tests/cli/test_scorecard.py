"""The text of an evaluation, read whole; and that it always fits a terminal."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from topwork.cli.text.scorecard import summary, table
from topwork.evaluation.evaluate import Evaluation, evaluate


def confused(matrix: list[list[int]], classes: list[str], **options) -> Evaluation:
    """The evaluation of a classifier that is always 90 % sure and makes just these confusions."""
    K = len(classes)
    pairs = [(i, j) for i in range(K) for j in range(K) for _ in range(matrix[i][j])]
    targets = np.array([i for i, _ in pairs])
    p = np.full((len(pairs), K), 0.1 / (K - 1))
    p[np.arange(len(pairs)), [j for _, j in pairs]] = 0.9
    return evaluate(targets, p, classes=classes, **options)


def test_summary_reads():
    e = confused([[40, 10], [5, 45]], ["defective", "functional"], majority="functional")
    assert summary(e) == (
        "accuracy 85.0 % (95 %: 76.7 to 90.7, 100 images)\n"
        "always predicting 'functional' gives 50.0 % · balanced accuracy 85.0 %\n"
        "log-loss 0.435 · calibration error (ECE) 5.0 % · AUROC 0.850"
    )


def test_summary_with_weights_and_many_classes():
    matrix = (np.eye(6, dtype=int) * 4).tolist()
    e = confused(matrix, list("abcdef"), weights=np.tile([1.0, 3.0], 12))
    assert summary(e) == (
        "accuracy 100.0 % (95 %: 86.2 to 100.0, 24 images)\n"
        "always predicting 'a' gives 16.7 % · balanced accuracy 100.0 %\n"
        "weighted accuracy 100.0 % (95 %: 83.3 to 100.0, worth 19 equal images)\n"
        "log-loss 0.105 · calibration error (ECE) 10.0 % · top-3 100.0 % · top-5 100.0 %"
    )


def test_one_image_is_singular():
    assert "1 image)" in summary(confused([[1, 0], [0, 0]], ["a", "b"]))


def test_table_reads():
    e = confused([[9, 1, 0, 0], [2, 2, 0, 0], [0, 0, 8, 0], [0, 0, 0, 0]], ["cat", "dog", "owl", "yak"])
    assert table(e).splitlines() == [
        "class      n  precision   recall  (95 %)               F1",
        "dog        4     66.7 %   50.0 %  (15.0 to 85.0)   57.1 %",
        "cat       10     81.8 %   90.0 %  (59.6 to 98.2)   85.7 %",
        "owl        8    100.0 %  100.0 %  (67.6 to 100.0) 100.0 %",
        "yak        0      0.0 %        –                        –",
        "",
        "most often confused (true → predicted: images)",
        "  dog → cat: 2",
        "  cat → dog: 1",
    ]


def test_table_names_what_it_leaves_out():
    lines = table(confused((np.eye(30, dtype=int) * 2).tolist(), [f"{i:02}" for i in range(30)]), rows=4)
    assert len(lines.splitlines()) == 6  # head, four classes, the rest; and no confusions
    assert lines.endswith("… and 26 more classes")


def test_three_confusions_ties_in_class_order():
    text = table(confused([[0, 2, 2], [2, 0, 5], [1, 2, 0]], ["a", "b", "c"]))
    assert text.splitlines()[-3:] == ["  b → c: 5", "  a → b: 2", "  a → c: 2"]


def test_of_equal_recalls_the_larger_class_is_first():
    rows = table(confused([[1, 1, 0], [0, 4, 4], [0, 0, 3]], ["a", "b", "c"])).splitlines()
    assert [row.split()[0] for row in rows[1:4]] == ["b", "a", "c"]


def test_long_and_wide_names_are_shortened():
    text = table(confused([[1, 1], [0, 2]], ["x" * 100, "猫" * 100]))
    assert "\n" + "x" * 27 + "…" in text
    assert "\n" + "猫" * 13 + "…" in text
    columns = {cell_len(line) for line in text.splitlines()[1:3]}
    assert len(columns) == 1, "rows are aligned"


def test_control_characters_do_not_reach_the_terminal():
    e = confused([[1, 1], [0, 2]], ["\x1b[31mred\n", "b"])
    assert "\x1b" not in summary(e) + table(e)
    assert "�[31mred�" in table(e)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.text(min_size=1, max_size=60), min_size=2, max_size=7, unique=True),
    st.integers(0, 2**32),
    st.sampled_from([1, 5, 10_000]),
)
def test_fits_80_columns(classes, seed, n):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(len(classes)), n)
    e = evaluate(rng.integers(0, len(classes), n), p, classes=classes, weights=rng.random(n) + 0.1)
    text = summary(e) + "\n" + table(e)
    assert max(cell_len(line) for line in text.split("\n")) <= 80


@pytest.mark.parametrize("module", ["evaluation.evaluate", "cli.text.scorecard", "evaluation.significance"])
def test_docstring_examples(module):
    result = doctest.testmod(importlib.import_module(f"topwork.{module}"))
    assert result.attempted
    assert not result.failed
