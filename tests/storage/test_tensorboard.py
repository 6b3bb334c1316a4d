"""Curves: read back by TensorBoard itself, from the files and through its server."""

from __future__ import annotations

import contextlib
import doctest
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from topwork.storage import tensorboard as module
from topwork.storage.tensorboard import scalars

TRAIN = [(10, 0.5, 0.75), (20, 0.25, 0.875)]
VALIDATION = [(41, 0.375, 0.8125)]  # halves and eighths: exact in the float32 that the files hold


def _write(folder: Path) -> None:
    with scalars(folder) as log:
        for step, loss, accuracy in TRAIN:
            log.train(step, loss=loss, accuracy=accuracy)
        for step, loss, accuracy in VALIDATION:
            log.validation(step, loss=loss, accuracy=accuracy)


def _read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorBoard's own, about its own dependencies
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder)).Reload()
        return {
            tag: [(event.step, event.value) for event in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        }


def test_the_examples_run() -> None:
    assert doctest.testmod(module).failed == 0


def test_tensorboard_reads_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "tensorboard"
    _write(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["train", "validation"]
    for run, expected in (("train", TRAIN), ("validation", VALIDATION)):
        assert _read(folder / run) == {
            "loss": [(step, loss) for step, loss, _ in expected],
            "accuracy": [(step, accuracy) for step, _, accuracy in expected],
        }


def test_a_run_that_is_not_written_to_is_not_made(tmp_path: Path) -> None:
    with scalars(tmp_path) as log:
        log.train(1, loss=1)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_going_on_at_once_keeps_what_was_there(tmp_path: Path) -> None:
    for step in range(3):  # within one second: tensorboardX alone would take the same name each time
        with scalars(tmp_path) as log:
            log.train(step, loss=step)
    assert _read(tmp_path / "train") == {"loss": [(0, 0.0), (1, 1.0), (2, 2.0)]}


def test_all_is_on_the_disk_when_training_fails(tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), scalars(tmp_path) as log:
        for step in range(200):
            log.train(step, loss=step)
        raise KeyboardInterrupt
    assert len(_read(tmp_path / "train")["loss"]) == 200


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, topwork.storage.tensorboard; print('tensorboardX' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    assert run.stdout == "False\n"


@contextlib.contextmanager
def _server(folder: Path, log: Path) -> Iterator[str]:
    """A real TensorBoard on a port that it chose itself; killed with all its children at the end."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", "0"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--load_fast", "false"],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 90
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield found[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _get(url: str) -> object:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=10) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_a_running_tensorboard_shows_the_curves(tmp_path: Path) -> None:
    _write(tmp_path / "tensorboard")
    with _server(tmp_path / "tensorboard", tmp_path / "log.txt") as url:
        deadline = time.monotonic() + 60
        while set(tags := _get(f"{url}data/plugin/scalars/tags")) != {"train", "validation"}:  # type: ignore[call-overload]
            assert time.monotonic() < deadline, tags
            time.sleep(0.2)
        for run, expected in (("train", TRAIN), ("validation", VALIDATION)):
            for place, tag in enumerate(("loss", "accuracy"), start=1):
                query = urllib.parse.urlencode({"run": run, "tag": tag})
                points = _get(f"{url}data/plugin/scalars/scalars?{query}")
                assert [(step, value) for _, step, value in points] == [  # type: ignore[attr-defined]
                    (row[0], row[place]) for row in expected
                ]
