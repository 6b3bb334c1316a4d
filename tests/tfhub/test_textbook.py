"""The textbook's program and ours, on a data set and a module that are made here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from photos import write_shapes
from topwork.jobs.export import publish_module

EXAMPLES = Path(__file__).parents[2] / "examples"
COUNT, SIDE = 120, 64


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, in it the TFDS data set `shapes_here`, and `module`, EfficientNet-Lite0 at 64 px."""
    place = tmp_path_factory.mktemp("textbook")
    photos = write_shapes(place / "photos", COUNT // 3)
    _run(place, "folder_as_tfds.py", photos, "shapes_here", place / "data")
    publish_module("efficientnet-lite0", place / "module", size_px=SIDE)
    return place


def _run(place: Path, name: str, *arguments: object) -> str:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=place,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _textbook(place: Path, logs: str, *options: str) -> str:
    where = ("--data-dir", "data", "--module", "module", "--logs", logs)
    return _run(
        place, "textbook.py", "--dataset", "shapes_here", *where, "--size", SIDE, "--features", 1280, *options
    )


def _test_accuracy(out: str) -> float:
    found = re.search(r"test loss [\d.]+ accuracy ([\d.]+) on (\d+) images", out)
    assert found is not None, out
    assert int(found[2]) == COUNT // 4
    return float(found[1])


def test_one_line_differs_from_a_program_for_tensorflow_hub() -> None:
    lines = (EXAMPLES / "textbook.py").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if "topwork" in line and "import" in line] == [
        "import topwork.tfhub as hub"
    ]
    assert [line for line in lines if "hub." in line and "import" not in line and "https" not in line] == [
        "        hub.KerasLayer(options.module, output_shape=[options.features], trainable=options.trainable),"
    ]


@pytest.mark.slow
def test_frozen(place: Path) -> None:
    out = _textbook(place, "logs-frozen", "--epochs", "4")
    assert "name='shapes_here'" in out  # the data set's info
    assert "Non-trainable params: 3,35" in out
    steps = re.findall(r"epoch \d/4 step (\d+) \(2 an epoch\): loss [\d.]+ accuracy", out)
    assert steps == []  # 2 steps an epoch, 8 in all: the first line would come at 10
    assert len(re.findall(r"epoch \d/4: validation loss", out)) == 4
    assert _test_accuracy(out) > 0.6  # three classes
    for part in ("train", "validation"):
        assert list((place / "logs-frozen" / part).glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_trainable(place: Path) -> None:
    out = _textbook(place, "logs-trainable", "--epochs", "6", "--trainable", "--learning-rate", "3e-4")
    assert re.search(r"step 10 \(2 an epoch\): loss [\d.]+ accuracy [\d.]+", out)
    assert re.search(r"Non-trainable params: 0 ", out)
    assert _test_accuracy(out) > 0.6


@pytest.mark.slow
def test_the_same_job_by_topwork(place: Path) -> None:
    out = _run(
        place, "textbook_topwork.py", f"tfds:{place / 'data/shapes_here/1.0.0'}", place / "module", "run"
    )
    assert _test_accuracy(out) > 0.6
    assert (place / "run" / "classifier.json").is_file()
    rows = (place / "run" / "splits.csv").read_text().splitlines()[1:]
    parts = [row.split(",")[1] for row in rows]
    assert [parts.count(part) for part in ("train", "validation", "test")] == [60, 30, 30]
