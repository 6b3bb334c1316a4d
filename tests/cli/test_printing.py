from __future__ import annotations

import csv
import dataclasses
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from photos import write_shapes
from topwork.classifiers.classifier import Prediction
from topwork.cli.console import Console
from topwork.cli.text.cache import cache_json, cache_text
from topwork.cli.text.predictions import print_csv, print_json, print_table
from topwork.cli.text.run import SHOWN, evaluation_json, evaluation_text, left_out_text, run_json, run_text
from topwork.cli.text.scorecard import summary, table
from topwork.data.dataset import Problem
from topwork.data.sources import load
from topwork.evaluation.evaluate import Evaluation
from topwork.jobs.evaluate import score_dataset
from topwork.jobs.train import Run
from topwork.storage.cache import CacheInfo, StoreInfo, size_text

CLASSES = ("cat", "dog")
GOOD = Prediction("a.jpg", CLASSES, np.float32([0.25, 0.75]))
BAD = Prediction("b, c.jpg", CLASSES, None, "no picture")
Output = pytest.CaptureFixture[str]


def test_a_line_an_image(capsys: Output) -> None:
    assert print_table([GOOD, BAD], top=2)
    assert capsys.readouterr().out == ("a.jpg: dog 75.0 %  cat 25.0 %\nb, c.jpg: can't be read: no picture\n")
    assert not print_table([BAD], top=1)
    assert not print_table([], top=1)


def test_a_line_is_printed_as_soon_as_it_is_known(capsys: Output) -> None:
    def slowly() -> object:
        yield GOOD
        assert capsys.readouterr().out.startswith("a.jpg: ")
        yield GOOD

    assert print_table(slowly(), top=1)


def test_csv_rows_have_the_columns_of_the_head(capsys: Output) -> None:
    assert print_csv([GOOD, BAD], top=3)
    out = capsys.readouterr().out
    assert out == (
        "image,class,probability,class_2,probability_2,class_3,probability_3,rejected,error\n"
        "a.jpg,dog,0.750000,cat,0.250000,,,,\n"
        '"b, c.jpg",,,,,,,,no picture\n'
    )
    assert not print_csv([BAD], top=1)
    assert capsys.readouterr().out.startswith("image,class,probability,rejected,error\n")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r\n"), min_size=1)))
def test_csv_can_be_read_whatever_the_names(names: list[str]) -> None:
    from contextlib import redirect_stdout

    held = io.StringIO()
    with redirect_stdout(held):
        print_csv([Prediction(name, CLASSES, GOOD.probabilities) for name in names], top=1)
    assert [row["image"] for row in csv.DictReader(io.StringIO(held.getvalue()))] == names


def test_json_is_one_list(capsys: Output) -> None:
    assert print_json([GOOD, BAD], top=1)
    assert json.loads(capsys.readouterr().out) == [
        {
            "image": "a.jpg",
            "class": "dog",
            "probability": 0.75,
            "top": [{"class": "dog", "probability": 0.75}],
            "rejected": None,
        },
        {"image": "b, c.jpg", "error": "no picture"},
    ]
    assert not print_json([], top=1)
    assert capsys.readouterr().out == "[]\n"


def test_what_was_left_out_is_counted_and_the_first_named() -> None:
    problems = tuple(Problem(f"{i}.jpg", "no picture") for i in range(SHOWN + 1))
    assert left_out_text((), elsewhere="there") == []
    lines = left_out_text(problems, elsewhere="there")
    assert lines[0] == f"left out: {SHOWN + 1} (there)"
    assert lines[1] == "  0.jpg: no picture"
    assert lines[-2:] == ["  …", ""]
    assert len(lines) == SHOWN + 3
    assert "  …" not in left_out_text(problems[:SHOWN], elsewhere="there")


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (1_500_000, "1.5 MB"),
        (2_345_000_000, "2.3 GB"),
        (5_000_000_000_000, "5000.0 GB"),
    ],
)
def test_sizes(n_bytes: int, text: str) -> None:
    assert size_text(n_bytes) == text


def test_the_cache_in_words_and_json() -> None:
    used = datetime(2024, 5, 6, 7, 8, tzinfo=UTC)
    known = StoreInfo(
        Path("/c/features/ab.sqlite"), "ab" * 32, "lite0 at 224 px", 2064, 1234, True, 9_000_000, used
    )
    unknown = StoreInfo(Path("/c/features/cd.sqlite"), "cd" * 32, "", None, None, False, 10, used)
    early = dataclasses.replace(known, half=False, rows=5)
    info = CacheInfo(
        Path("/c"),
        (known, unknown, early),
        (Path("/c/features/x.sqlite.damaged-1"),),
        {"features": 1},
        9_000_010,
    )
    assert cache_text(info).split("\n") == [
        "/c: 9.0 MB",
        "  abababababab  1,234 images  9.0 MB  lite0 at 224 px  used 2024-05-06 07:08 UTC",
        "  cdcdcdcdcdcd  ? images  10 bytes  unknown backbone  used 2024-05-06 07:08 UTC",
        "  abababababab  5 images  9.0 MB  lite0 at 224 px  used 2024-05-06 07:08 UTC, "
        "of an earlier version: only its runs use it",
        "  x.sqlite.damaged-1: damaged, set aside",
    ]
    told = json.loads(cache_json(info))
    assert told["total_bytes"] == 9_000_010
    assert told["stores"][0]["rows"] == 1234
    assert told["stores"][0]["used"] == "2024-05-06T07:08:00+00:00"
    assert told["stores"][1]["rows"] is None
    assert told["set_aside"] == ["/c/features/x.sqlite.damaged-1"]


def test_a_run_in_words(run: Run) -> None:
    text = run_text(run)
    assert f"Test\n{summary(run.test)}\n\n{table(run.test)}\n" in text
    best, other = run.fitted.candidates
    assert f"head: linear on features {best.features!r} ({best.width} numbers), strength " in text
    assert " % in 5-fold cross-validation\n" in text
    assert f"\n  rather than {other.features!r}: " in text
    assert "left out" not in text


def test_a_run_as_json(run: Run) -> None:
    told = json.loads(run_json(run))
    assert Evaluation.from_dict(told["test"]) == run.test
    assert set(told) >= {"run", "classes", "test", "seconds", "splits", "head", "left_out"}
    assert [c["features"] for c in told["head"]["candidates"]] == [c.features for c in run.fitted.candidates]


def test_an_evaluation(run: Run, tmp_path: Path) -> None:
    photos = write_shapes(tmp_path / "photos", 2, first=300)
    (photos / "circle" / "bad.jpg").write_bytes(b"no picture")
    scored = score_dataset(run.classifier, load(photos))
    text = evaluation_text(scored)
    assert text.startswith(summary(scored.evaluation))
    assert "left out: 1 " in text
    told = json.loads(evaluation_json(scored, learned_from=3))
    assert Evaluation.from_dict(told) == scored.evaluation
    assert told["learned_from"] == 3
    assert told["left_out"][0]["id"] == "circle/bad.jpg"


def test_lines_for_the_person_who_waits_are_not_broken(capsys: Output) -> None:
    """Standard error may be a file: a line stays a line, whatever its length, brackets and all."""
    line = "a [b]long[/b] line :smile: " + "x" * 200
    console = Console()
    console.say(line)
    with console.bar("features", 10) as advance:
        advance(4)
        console.say("within")
        advance(6)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"{line}\nwithin\n"


def test_a_terminal_has_a_bar_with_rate_and_time_left(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with Console().bar("features", 10) as advance:
        advance(4, "loss 0.412, accuracy 85.1 %")
        advance(6)
    out, err = capsys.readouterr()
    assert out == ""
    assert "loss 0.412, accuracy 85.1 %" in err
    assert "features" in err
    assert "10/10" in err
    assert "img/s" in err


def test_without_a_terminal_a_long_phase_is_told_in_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from topwork.cli import console

    with Console().bar("features", 2000) as advance:
        for _ in range(20):
            advance(100)
    assert capsys.readouterr().err == ""  # it was over in a moment
    monkeypatch.setattr(console, "EVERY_S", 0.0)
    with Console().bar("features", 2000) as advance:
        advance(1000)
        advance(1000)
    assert capsys.readouterr().err.splitlines() == ["features: 1,000 of 2,000", "features: 2,000 of 2,000"]
