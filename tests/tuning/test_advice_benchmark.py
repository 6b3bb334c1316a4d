from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from topwork.data.sources import load
from topwork.tuning.advice.forecast import Rule


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    return importlib.import_module("benchmarks.accuracy.advice")


def made_row(number: int, share: float) -> dict[str, object]:
    """A dataset of its own, whose tail gains `share` of the frozen head's errors."""
    random = np.random.default_rng(number)
    last = float(random.uniform(0.6, 0.8))
    stages = last + float(random.uniform(0, 0.15))
    evidence = {
        "images": 1000,
        "classes": 2,
        "smallest_class": 500,
        "probed": 1000,
        "chance": 0.5,
        "last": last,
        "stages": stages,
        "interval": [last, stages],
        "probes": [{"block": "last", "depth": 1.0, "accuracy": last}],
        "separation": 1.0,
        "neighbours": 0.7,
        "curve": {"sizes": [100, 800], "errors": [0.3, 0.2], "floor": 0.2, "scale": 0.0, "rate": 0.5},
    }
    gain = 100 * share * (1 - stages)
    return {
        "data": f"set{number}",
        "backbone": "a network",
        "evidence": evidence,
        "images_a_second": 100.0,
        "head_minutes": 0.5,
        "gain": gain,
        "interval": [gain - 1, gain + 1],
        "minutes": 3.0,
    }


def test_measured_gains_correct_the_rule(benchmark: ModuleType) -> None:
    """Where tuning avoids 0.4 of all errors, so does the fitted rule's prediction, and its spread is small."""
    rows = [made_row(number, 0.4) for number in range(12)]
    fitted = benchmark.calibrate(rows, ridge=1e-6)
    for row in rows:
        tail = benchmark.predicted(row, fitted).forecast("tail")
        assert tail.gain == pytest.approx(row["gain"], abs=0.2)
    assert fitted.spread < 0.02
    assert benchmark.calibrate(rows).spread < benchmark.calibrate(rows, ridge=100.0).spread


def test_much_ridge_leaves_the_prior(benchmark: ModuleType) -> None:
    prior = Rule()
    fitted = benchmark.calibrate([made_row(n, 0.4) for n in range(4)], prior=prior, ridge=1e6)
    assert dataclasses.replace(fitted, spread=prior.spread) == prior


def test_a_set_is_judged_without_its_own_rows(benchmark: ModuleType) -> None:
    rows = [made_row(number, 0.3) for number in range(5)]
    changed = [*rows[:-1], {**rows[-1], "gain": -20.0}]
    key = ("set4", "a network")
    assert benchmark.leave_one_out(rows)[key] == benchmark.leave_one_out(changed)[key]
    assert (
        benchmark.leave_one_out(rows)["set0", "a network"]
        != benchmark.leave_one_out(changed)["set0", "a network"]
    )
    assert benchmark.family({"data": "emoji-animals"}) == benchmark.family({"data": "emoji-vendors"})


def test_the_regret_of_a_wrong_sign(benchmark: ModuleType) -> None:
    rows = [made_row(number, 0.4) for number in range(5)]
    text = benchmark.summary([*rows, {**made_row(5, 0.4), "gain": -2.4, "interval": [-4.0, -1.0]}])
    assert "sign right: 5 of 6; where it was kept and the gain's 95 % interval excludes 0: 5 of 6" in text
    assert "regret: 0.40 points and 0.5 minutes a dataset; the worst 2.40 points, 3.0 minutes" in text
    assert "of always tuning: 0.40 points, 0.5 minutes" in text


def test_a_worse_network_that_was_not_kept_costs_time_alone(benchmark: ModuleType) -> None:
    rows = [made_row(number, 0.4) for number in range(5)]
    text = benchmark.summary([*rows, {**made_row(5, 0.4), "gain": -2.4, "kept": False}])
    assert "regret: 0.00 points and 0.5 minutes a dataset; the worst 0.00 points, 3.0 minutes" in text
    assert "not kept" in text


def test_rows_are_read_again(benchmark: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "advice.jsonl"
    assert benchmark.read_rows(path) == {}
    row = made_row(1, 0.1)
    benchmark.append_row(path, {"data": "set1", "backbone": "a network"})
    benchmark.append_row(path, row)
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(row)[:40])  # killed while writing
    assert benchmark.read_rows(path) == {("set1", "a network"): row}
    benchmark.append_row(path, made_row(2, 0.1))
    assert list(benchmark.read_rows(path)) == [("set1", "a network"), ("set2", "a network")]


def test_digits_as_a_folder(benchmark: ModuleType, tmp_path: Path) -> None:
    manifest = benchmark.write_dataset("digits", tmp_path)
    digits = load(manifest)
    assert len(digits) == 1500
    assert digits.classes == tuple("0123456789")
    test = [e for e in digits if e.split == "test"]
    assert len(test) == pytest.approx(375, abs=5)
    before = manifest.stat().st_mtime_ns
    assert benchmark.write_dataset("digits", tmp_path) == manifest
    assert manifest.stat().st_mtime_ns == before
