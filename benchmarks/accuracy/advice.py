"""Advice against what tuning really gains: datasets made from what packages ship, each under two networks.

    python -m benchmarks.accuracy.advice [--only NAME ...] [--networks HANDLE ...] [--evidence-only]
        [--minutes 15] [--pictures 1500] [--work benchmarks/work]

Each pair of dataset and network gives one JSON row in `work`/advice.jsonl: evidence, prediction, and the accuracy
on the test part before and after `topwork finetune`, which tunes the tail. Rows that are there are not measured
again. What tuning gives is the measured gain where validation images kept the tuned network, and nothing where they
kept the frozen one: that is what a run ends with. The rule is fitted to all datasets but one and judged on that
one, for each in turn; last, the rule fitted to all is printed, to be copied into topwork.tuning.advice.forecast.
benchmarks/data/packaged.py has the data.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.elpv_tuned import held_row
from benchmarks.data.packaged import DATASETS, LIMIT, named, write_dataset
from benchmarks.options import WORK, shared_options
from topwork.evaluation.learning_curve import LearningCurve
from topwork.evaluation.significance import Interval
from topwork.jobs.advise import advise
from topwork.jobs.finetune import finetune
from topwork.jobs.train import train
from topwork.recipe import BackboneRecipe, FinetuneRecipe, Recipe
from topwork.tuning.advice.advice import advice_from
from topwork.tuning.advice.evidence import Evidence, Probe
from topwork.tuning.advice.forecast import Rule, Signals, signals

BACKBONES = (("efficientnet-lite0", 128), ("efficientnet-lite2", 160))
PRIOR = Rule()
RIDGE = 0.02  # how strongly the fitted rule is held to the prior
Row = dict[str, Any]


def main() -> None:
    minutes = FinetuneRecipe().minutes
    parser = shared_options(__doc__, work=WORK, only=list(DATASETS), minutes=minutes, pictures=LIMIT)
    parser.add_argument("--networks", nargs="+", default=[handle for handle, _ in BACKBONES])
    parser.add_argument("--evidence-only", action="store_true", help="predict, and measure no gain")
    options = parser.parse_args()
    path = options.work / "advice.jsonl"
    rows = read_rows(path)
    for name in options.only:
        for handle, size_px in (pair for pair in BACKBONES if pair[0] in options.networks):
            data = named(name, options.pictures)
            row = rows.setdefault((data, handle), {"data": data, "backbone": handle, "size_px": size_px})
            recipe = Recipe(
                backbone=BackboneRecipe(handle=handle, size_px=size_px),
                finetune=FinetuneRecipe(mode="tail", minutes=options.minutes),
            )
            manifest = write_dataset(name, options.work, options.pictures)
            if "evidence" not in row:
                row.update(look(manifest, recipe))
                append_row(path, row)
            if "gain" not in row and not options.evidence_only:
                row.update(measure(manifest, recipe))
                append_row(path, row)
            print(line(row, predicted(row)), flush=True)
    print(summary([row for row in rows.values() if "gain" in row]))


def look(manifest: Path, recipe: Recipe) -> Row:
    """What `topwork advise` sees; seconds are those of the whole command but for the program's start."""
    began = time.perf_counter()
    advice = advise(manifest, recipe=recipe)
    return {
        "evidence": dataclasses.asdict(advice.evidence),
        "images_a_second": advice.images_a_second,
        "head_minutes": advice.forecast("head").minutes,
        "advise_s": round(time.perf_counter() - began, 1),
    }


def measure(manifest: Path, recipe: Recipe) -> Row:
    """Train a head, tune the tail, and read the verdict: points, their 95 % interval, the tuning's minutes."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            manifest, Path(folder) / "run", recipe=dataclasses.replace(recipe, finetune=FinetuneRecipe())
        )
        began = time.perf_counter()
        tuned = finetune(run.path, manifest, recipe=recipe.finetune)
        minutes = (time.perf_counter() - began) / 60
    verdict = tuned.verdict
    assert verdict is not None
    return {
        "before": 100 * verdict.before,
        "after": 100 * verdict.after,
        "gain": 100 * verdict.gain,
        "interval": [100 * verdict.interval.low, 100 * verdict.interval.high],
        "p_value": verdict.p_value,
        "test_images": verdict.n,
        "kept": tuned.kept,
        "share": tuned.tuned.share,
        **held_row(tuned.tuned),
        "epochs": len(tuned.tuned.history),
        "budget": recipe.finetune.minutes,
        "minutes": minutes,
    }


def calibrate(rows: list[Row], *, prior: Rule = PRIOR, ridge: float = RIDGE) -> Rule:
    """The prior rule, corrected by measured gains.

    Least squares of gain = headroom · (signals · coefficients), where the coefficients are held to the prior's by
    ridge · rows · |difference|². `spread` becomes the root mean square of what is left over, in shares of the
    headroom, weighed as in the fit. Every dataset weighs the same, however many rows it has.
    """
    names = [field.name for field in dataclasses.fields(Signals)]
    start = np.array([getattr(prior, name) for name in names])
    headroom, x, gain, weight = _arrays(rows, names)
    mean_square = np.average(headroom**2, weights=weight)  # so that `ridge` has no unit
    a = x * headroom[:, None]
    hessian = (a * weight[:, None]).T @ a / weight.sum() + ridge * mean_square * np.eye(len(names))
    moved = start + np.linalg.solve(hessian, (a * weight[:, None]).T @ (gain - a @ start) / weight.sum())
    left = gain - a @ moved
    spread = float(np.sqrt(np.average(left**2, weights=weight) / mean_square))
    named = dict(zip(names, moved.round(4).tolist(), strict=True))
    return dataclasses.replace(prior, **named, spread=round(spread, 4))


def given(row: Row) -> float:
    """Points that a run is better by in the end; the frozen network stays where it is the better one."""
    return float(row["gain"]) if row.get("kept", True) else 0.0


def leave_one_out(rows: list[Row]) -> dict[tuple[str, str], Rule]:
    """For each row, the rule fitted without any row of its dataset."""
    return {
        (row["data"], row["backbone"]): calibrate([r for r in rows if family(r) != family(row)])
        for row in rows
    }


def family(row: Row) -> str:
    """Datasets made of the same pictures are left out together."""
    return str(row["data"]).split("-")[0]


def summary(rows: list[Row]) -> str:
    """Predicted, by the rule of the other datasets, beside measured; the signs; the regret in points and minutes."""
    if len({family(row) for row in rows}) < 3:
        return f"{len(rows)} rows with a measured gain: too few to judge the rule by"
    rules = leave_one_out(rows)
    lines, signs, sure, inside, regret_points, regret_minutes = [], [], [], [], [], []
    for row in rows:
        advice = predicted(row, rules[row["data"], row["backbone"]])
        tail = advice.forecast("tail")
        tuned = advice.mode != "head"
        lines.append(line(row, advice))
        signs.append(tuned == (given(row) > 0))
        if given(row) and (row["interval"][0] > 0 or row["interval"][1] < 0):
            sure.append(signs[-1])
        inside.append(tail.interval.low <= given(row) <= tail.interval.high)
        got, best = given(row) * tuned, max(given(row), 0.0)
        regret_points.append(best - got)
        regret_minutes.append(row["minutes"] if tuned and given(row) <= 0 else 0.0)
    fitted = calibrate(rows)
    return "\n".join(
        [
            "",
            "Each predicted by the rule fitted to the other datasets:",
            *lines,
            "",
            f"sign right: {sum(signs)} of {len(signs)}; where it was kept and the gain's 95 % interval excludes 0: "
            f"{sum(sure)} of {len(sure)}",
            f"measured gain within the predicted 90 % interval: {sum(inside)} of {len(inside)}",
            f"regret: {np.mean(regret_points):.2f} points and {np.mean(regret_minutes):.1f} minutes a dataset; "
            f"the worst {max(regret_points):.2f} points, {max(regret_minutes):.1f} minutes",
            f"regret of always tuning: {np.mean([max(-given(row), 0) for row in rows]):.2f} points, "
            f"{np.mean([row['minutes'] * (given(row) <= 0) for row in rows]):.1f} minutes; of never: "
            f"{np.mean([max(given(row), 0) for row in rows]):.2f} points",
            f"fitted to all: {fitted}",
        ]
    )


def line(row: Row, advice: Any) -> str:
    """One pair, predicted and measured."""
    tail = advice.forecast("tail")
    text = (
        f"{row['data']:21} {row['backbone'][-5:]} frozen {100 * advice.evidence.accuracy:5.1f} %  predicted "
        f"{tail.gain:+5.1f} ({tail.interval.low:+5.1f} to {tail.interval.high:+5.1f}) {tail.minutes:4.1f} min "
        f"→ {advice.mode:4}"
    )
    if "gain" in row:
        low, high = row["interval"]
        kept = "kept" if row.get("kept", True) else "not kept"
        text += (
            f"  measured {row['gain']:+5.1f} ({low:+5.1f} to {high:+5.1f}) {row['minutes']:4.1f} min, {kept}"
        )
    return text


def predicted(row: Row, rule: Rule | None = None) -> Any:
    """The advice that the row's evidence gives under a rule; None: under the one that goes with its minutes."""
    tuning = FinetuneRecipe(minutes=row.get("budget", FinetuneRecipe().minutes))
    head_s = max(0.0, 60 * row["head_minutes"] - row["evidence"]["images"] / row["images_a_second"])
    return advice_from(evidence_of(row), row["images_a_second"], tuning=tuning, head_s=head_s, rule=rule)


def evidence_of(row: Row) -> Evidence:
    """The record that a row keeps as plain JSON."""
    plain = dict(row["evidence"])
    curve = plain["curve"]
    plain["curve"] = LearningCurve(
        **{**curve, "sizes": tuple(curve["sizes"]), "errors": tuple(curve["errors"])}
    )
    plain["probes"] = tuple(Probe(**probe) for probe in plain["probes"])
    plain["interval"] = Interval(*plain["interval"])
    return Evidence(**plain)


def read_rows(path: Path) -> dict[tuple[str, str], Row]:
    """The last row of each pair; a line that a break cut short is passed over."""
    rows: dict[tuple[str, str], Row] = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            row = json.loads(text)
        except json.JSONDecodeError:
            continue
        rows[row["data"], row["backbone"]] = row
    return rows


def append_row(path: Path, row: Row) -> None:
    """Add a line; the latest of a pair counts. It begins anew, even after one that a kill cut short."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{json.dumps(row)}")


def _arrays(rows: list[Row], names: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    seen = [evidence_of(row) for row in rows]
    headroom = np.array([one.headroom for one in seen])
    x = np.array([[getattr(signals(one), name) for name in names] for one in seen])
    gain = np.array([given(row) for row in rows]) / 100
    counts = {name: sum(row["data"] == name for row in rows) for name in {row["data"] for row in rows}}
    return headroom, x, gain, np.array([1 / counts[row["data"]] for row in rows])


if __name__ == "__main__":
    main()
