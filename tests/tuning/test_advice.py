from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from photos import SHAPES, write_shapes
from topwork.backbones.backbone import Backbone
from topwork.checks.groups import check
from topwork.checks.looks import measuring
from topwork.cli.text.advice import advice_json, advice_text
from topwork.data.dataset import Dataset, FileImage
from topwork.data.sources import load
from topwork.data.split import splits_of
from topwork.errors import InputError, TopworkError
from topwork.evaluation.learning_curve import LearningCurve, fit_curve
from topwork.evaluation.significance import Interval
from topwork.features.extract import Features, extract, open_store
from topwork.jobs.advise import advise, measure_speed
from topwork.jobs.train import train
from topwork.recipe import FinetuneRecipe, Recipe, SplitRecipe
from topwork.tuning.advice.advice import Advice, advice_from
from topwork.tuning.advice.evidence import STEPS, Evidence, Probe, evidence
from topwork.tuning.advice.forecast import Costs, Rule, choose, forecast, is_unlike, predicted_share, signals
from topwork.tuning.advice.geometry import class_separation, neighbour_share


def seen(**changes: object) -> Evidence:
    """Evidence of 1,000 images of two classes, of which a tenth is taken for the other class."""
    plain = Evidence(
        images=1000,
        classes=2,
        smallest_class=500,
        probed=1000,
        chance=0.5,
        last=0.9,
        stages=0.9,
        interval=Interval(0.88, 0.92),
        probes=(Probe("block1", 0.0, 0.7), Probe("block5", 0.5, 0.8), Probe("last", 1.0, 0.9)),
        separation=1.0,
        neighbours=0.8,
        curve=LearningCurve((100, 800), (0.1, 0.1), 0.1, 0.0, 0.5),
    )
    return dataclasses.replace(plain, **changes)


@pytest.fixture(scope="module")
def features(shapes: Path, backbone: Backbone) -> Features:
    with open_store(backbone.facts) as store, measuring() as beside:
        extracted = extract(load(shapes), backbone, store=store, beside=beside)
        yield check(extracted, beside.store, lambda _: None).features


@pytest.fixture(scope="module")
def looked(features: Features, recipe: Recipe) -> Evidence:
    return evidence(features, splits_of(features.dataset), recipe)


@pytest.fixture(scope="module")
def advice(shapes: Path, recipe: Recipe) -> Advice:
    return advise(shapes, recipe=recipe)


# Evidence


def test_what_is_counted(looked: Evidence) -> None:
    assert (looked.images, looked.probed, looked.classes, looked.smallest_class) == (48, 48, 3, 16)
    assert looked.chance == pytest.approx(1 / 3)
    assert [probe.block for probe in looked.probes][-1] == "last"
    assert [probe.depth for probe in looked.probes] == sorted({probe.depth for probe in looked.probes})
    assert looked.probes[-1].accuracy == pytest.approx(looked.last)  # the same images, the same head
    assert looked.accuracy == max(looked.last, looked.stages) > 0.7  # three plain shapes; a guess gives 0.33
    assert looked.interval.low < looked.accuracy <= looked.interval.high
    assert looked.curve.sizes[-1] == pytest.approx(48 * 4 / 5, abs=1)


def test_held_out_accuracy_is_scikit_learns(features: Features, looked: Evidence) -> None:
    """Another library's logistic regression, cross-validated on folds of its own: near, within the folds' noise."""
    train = splits_of(features.dataset).train
    x = StandardScaler().fit_transform(features.part(train).matrix(("last",)))
    best = max(
        cross_val_score(LogisticRegression(C=c, max_iter=500), x, train.targets(), cv=5).mean()
        for c in (0.001, 0.01, 0.1)
    )
    assert looked.last == pytest.approx(best, abs=0.1)


def test_test_images_are_not_looked_at(features: Features, looked: Evidence, recipe: Recipe) -> None:
    splits = splits_of(features.dataset)
    test = {example.id for example in splits.test}
    gone = tuple(
        bytes(32) if e.id in test else k for e, k in zip(features.dataset, features.keys, strict=True)
    )
    assert evidence(dataclasses.replace(features, keys=gone), splits, recipe) == looked


def test_validation_images_count_as_training_images(features: Features, recipe: Recipe) -> None:
    splits = splits_of(features.dataset, validation=0.25)
    assert evidence(features, splits, recipe).images == len(splits.train) + len(splits.validation)


def test_labels_by_chance_have_no_accuracy(features: Features, recipe: Recipe) -> None:
    train = splits_of(features.dataset).train
    labels = np.random.default_rng(0).permutation(train.labels())
    mixed = tuple(dataclasses.replace(e, label=str(name)) for e, name in zip(train, labels, strict=True))
    splits = dataclasses.replace(splits_of(features.dataset), train=Dataset(mixed, SHAPES, "mixed"))
    found = evidence(features, splits, recipe)
    assert found.last < 0.6
    assert found.neighbours < 0.6
    assert found.separation < 0.6


def test_a_large_set_is_sampled(features: Features, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topwork.tuning.advice.evidence.LIMIT", 30)
    monkeypatch.setattr("topwork.tuning.advice.evidence.PROBE_LIMIT", 20)
    done: list[int] = []
    found = evidence(features, splits_of(features.dataset), recipe, progress=done.append)
    assert (found.images, found.probed, found.smallest_class) == (48, 30, 16)
    assert found.curve.sizes[-1] == 24
    assert sum(done) == STEPS


def test_too_few_images(backbone: Backbone, recipe: Recipe, tmp_path: Path) -> None:
    photos = write_shapes(tmp_path / "photos", 4)
    for path in sorted((photos / "circle").iterdir())[1:]:
        path.unlink()
    with pytest.raises(InputError) as told:
        advise(photos, recipe=recipe)
    assert str(told.value) == (
        f"{photos}: expected at least 2 training images of every class, one to train on and one to hold out; "
        "'circle' has 1 that can be read: add some, or leave the class out"
    )


def test_one_class(recipe: Recipe, shapes: Path) -> None:
    circles = tuple(e for e in load(shapes) if e.label == "circle")
    with pytest.raises(InputError, match=r"round: expected at least two classes; got 1: put each class's"):
        advise(Dataset(circles, ("circle",), "round"), recipe=recipe)


def test_one_group(recipe: Recipe, tmp_path: Path) -> None:
    photos = load(write_shapes(tmp_path / "photos", 4))
    grouped = tuple(dataclasses.replace(e, group="the same") for e in photos)
    with pytest.raises(
        InputError, match=r"of at least two groups, .* all 12 are of one group: add images of anot"
    ):
        advise(Dataset(grouped, SHAPES, "one"), recipe=recipe)


def test_two_images_a_class_are_enough(recipe: Recipe, tmp_path: Path) -> None:
    photos = write_shapes(tmp_path / "photos", 2)
    found = advise(photos, recipe=dataclasses.replace(recipe, split=SplitRecipe(test=0.0)))
    assert found.evidence.images == 6
    assert all(math.isfinite(f.gain) and f.minutes > 0 for f in found.forecasts[1:])


# Learning curve


@given(st.floats(0, 0.5), st.floats(0.01, 2), st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]))
def test_a_power_law_is_found_again(floor: float, scale: float, rate: float) -> None:
    sizes = (100, 200, 400, 800)
    curve = fit_curve(sizes, tuple(floor + scale * n**-rate for n in sizes))
    for n in (100, 800, 1600):
        assert curve.error(n) == pytest.approx(min(1.0, floor + scale * n**-rate), abs=1e-6)


def test_sizes_that_are_all_alike_give_a_flat_curve() -> None:
    """Many classes of one photo each: every share of them is the same images."""
    curve = fit_curve((60, 60, 60), (0.4, 0.5, 0.6))
    assert (curve.floor, curve.scale, curve.doubled) == (pytest.approx(0.5), 0.0, 0.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_a_fitted_curve_never_rises_nor_leaves_its_bounds(errors: list[float]) -> None:
    curve = fit_curve(tuple(100 * 2**i for i in range(len(errors))), tuple(errors))
    assert curve.doubled >= 0
    assert curve.floor >= 0
    assert curve.scale >= 0
    assert 0 <= curve.error(1e6) <= curve.error(100) <= 1


def test_worse_with_more_images_is_taken_for_flat() -> None:
    curve = fit_curve((100, 200, 400), (0.1, 0.15, 0.2))
    assert curve.doubled == 0
    assert curve.error(1000) == pytest.approx(0.15)


# Geometry


def test_neighbours_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, 700)
    x = random.standard_normal((700, 5)).astype(np.float32) + targets[:, None] * np.float32(0.5)
    model = KNeighborsClassifier(1, metric="cosine").fit(x, targets)
    nearest = model.kneighbors(return_distance=False)[:, 0]  # without the image itself
    expected = (targets[nearest] == targets).mean()
    assert neighbour_share(x, targets, np.arange(700)) == pytest.approx(expected, abs=0.003)


def test_a_neighbour_of_the_same_group_does_not_count() -> None:
    x = np.array([[1, 0], [1, 0.01], [0, 1], [0.01, 1]], np.float32)
    targets = np.array([0, 0, 1, 1])
    assert neighbour_share(x, targets, np.arange(4)) == 1
    assert neighbour_share(x, targets, np.array([0, 0, 1, 1])) == 0


def test_separation_by_hand() -> None:
    """Means at 0 and 10, variances 2 with n - 1: (100 - 2/2 - 2/2) / 2 = 49, and its root."""
    x = np.array([[-1], [1], [9], [11]], np.float32)
    assert class_separation(x, np.array([0, 0, 1, 1])) == pytest.approx(7)
    assert class_separation(x + 1000, np.array([0, 0, 1, 1])) == pytest.approx(7)
    assert class_separation(x, np.array([0, 0, 0, 1])) == 0  # a class of one image has no spread


def test_separation_of_like_classes_is_small() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((2000, 50)).astype(np.float32)
    assert class_separation(x, random.integers(0, 2, 2000)) < 0.1


# Forecast


def test_the_rule_by_hand() -> None:
    one = seen(stages=0.95, images=10_000)
    values = signals(one)
    assert dataclasses.astuple(values) == pytest.approx((1, 1, 0.5, 0.4, 0))
    rule = Rule(base=0.1, size=0.2, unlike=0.3, tangled=-0.25, steep=7, most=0.8)
    assert predicted_share(one, rule) == pytest.approx(0.1 + 0.2 + 0.15 - 0.1)
    _, tail, full = forecast(one, 100.0, FinetuneRecipe(), rule=dataclasses.replace(rule, deep=1.5))
    assert tail.gain == pytest.approx(100 * 0.35 * 0.05)
    assert full.gain == pytest.approx(1.5 * tail.gain)


def test_the_interval_is_that_of_its_spread() -> None:
    rule = Rule(spread=0.1, noise=0.0)
    _, tail, _ = forecast(seen(), 100.0, FinetuneRecipe(), rule=rule)
    assert tail.gain - tail.interval.low == pytest.approx(100 * 1.6449 * 0.1 * 0.1)  # of a tenth wrong
    assert tail.interval.high <= 10  # no more than all errors


@given(st.integers(4, 10**7), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0.3, 0.99))
def test_no_forecast_beyond_the_headroom(
    images: int, last: float, stages: float, neighbours: float, chance: float
) -> None:
    one = seen(images=images, last=last, stages=stages, neighbours=neighbours, chance=chance)
    for each in forecast(one, 50.0, FinetuneRecipe()):
        assert each.interval.low <= each.gain + 1e-9
        assert each.gain <= each.interval.high + 1e-9
        assert each.gain <= 100 * one.headroom + 1e-9
        assert math.isfinite(each.minutes)


def test_the_classic_rule_is_the_prior() -> None:
    """Few pictures: the network stays as it is, and different ones get a head on earlier layers; many: tune."""
    similar, different = seen(), seen(last=0.8, stages=0.9)
    assert is_unlike(different)
    assert not is_unlike(similar)
    for one in (similar, different):
        few, many = (dataclasses.replace(one, images=n) for n in (50, 50_000))
        assert 0 == predicted_share(few, Rule()) <= predicted_share(one, Rule()) < 0.5
        assert predicted_share(many, Rule()) > 0.15
        assert advice_from(few, 100.0, rule=Rule()).mode == "head"
        assert advice_from(many, 100.0, rule=Rule()).mode != "head"


def test_the_less_time_the_less_is_gained() -> None:
    one = seen(images=20_000)
    gains = [
        advice_from(one, 100.0, tuning=FinetuneRecipe(minutes=m)).forecast("tail").gain
        for m in (0.5, 1, 4, 15)
    ]
    assert gains[0] == gains[1] < gains[2] < gains[3]


def test_nothing_to_gain_keeps_the_network() -> None:
    perfect = advice_from(seen(last=1.0, stages=1.0), 100.0)
    assert perfect.mode == "head"
    assert perfect.forecast("tail").interval.high == 0


def test_minutes_by_hand() -> None:
    tuning = FinetuneRecipe(epochs=10, views=4, minutes=1000.0)
    costs = Costs(prefix=0.5, tail_step=2.0, full_step=10.0, start_s=30.0)
    head, tail, full = forecast(seen(), 100.0, tuning, views=2, head_s=40.0, costs=costs)
    assert head.minutes == pytest.approx((20 + 40) / 60)
    assert tail.minutes == pytest.approx(head.minutes + (30 + 20 + 200) / 60)
    assert full.minutes == pytest.approx(head.minutes + (30 + 1000) / 60)
    _, _, cut = forecast(seen(), 100.0, dataclasses.replace(tuning, minutes=5.0), costs=costs)
    assert cut.minutes == pytest.approx(10 / 60 + 5)


def test_all_is_tuned_only_where_it_gains_more() -> None:
    one = seen(images=10_000)
    for deep, wanted in ((1.0, "tail"), (3.0, "full")):
        rule = Rule(base=0.3, size=0.0, unlike=0.0, tangled=0.0, steep=0.0, deep=deep)
        assert choose(forecast(one, 100.0, FinetuneRecipe(), rule=rule), rule) == wanted
        assert advice_from(one, 100.0, rule=rule).mode == wanted


# The whole


def test_advice_on_photos(advice: Advice, looked: Evidence, shapes: Path) -> None:
    assert advice.evidence == looked
    assert advice.data == str(shapes)
    assert [f.mode for f in advice.forecasts] == ["head", "tail", "full"]
    head, tail, full = (f.minutes for f in advice.forecasts)
    assert 0 < head < tail < full
    assert advice.images_a_second > 1


def test_advice_learns_from_no_image_that_a_training_tests_on(recipe: Recipe, tmp_path: Path) -> None:
    """Each picture thrice, hardly changed: a split that knows nothing of copies would be another."""
    photos = write_shapes(tmp_path / "photos", 13)
    for path in sorted(photos.rglob("*.png")):
        for number in (1, 2):
            pixels = np.asarray(Image.open(path)).copy()
            pixels[0, number] += 1
            Image.fromarray(pixels).save(path.with_name(f"{path.stem}-{number}.png"))
    run = train(photos, tmp_path / "run", recipe=recipe)
    alike = advise(photos, recipe=recipe)
    assert alike.evidence.images == run.splits["train"]
    unlike = dataclasses.replace(recipe, split=dataclasses.replace(recipe.split, copies=False))
    assert advise(photos, recipe=unlike).evidence.images != run.splits["train"]
    rows = ((path.relative_to(tmp_path), path.parent.name) for path in sorted(photos.rglob("*.png")))
    table = "".join(f"{path},{label},{label}{path.name[:3]}\n" for path, label in rows)
    (tmp_path / "list.csv").write_text("path,label,burst\n" + table)
    by_burst = dataclasses.replace(unlike, split=dataclasses.replace(unlike.split, group_by="burst"))
    told = train(tmp_path / "list.csv", tmp_path / "grouped", recipe=by_burst)
    assert advise(tmp_path / "list.csv", recipe=by_burst).evidence.images == told.splits["train"]


def test_three_sentences(advice: Advice) -> None:
    first, second, third = advice.sentences
    assert first.startswith("Seen: 48 training images of 3 classes, 16 in the smallest; ")
    assert f"{100 * advice.evidence.stages:.1f} % with all stages" in first
    assert second.startswith(
        f"Predicted: tuning the tail changes the accuracy by {advice.forecast('tail').gain:+.1f}"
    )
    assert third.startswith("Do: ")
    assert "the classic rule for few and " in third
    for sentence in advice.sentences:
        assert sentence.endswith(".")
        assert ". " not in sentence  # one each


def test_what_to_do_names_the_command_and_the_limit() -> None:
    rule = Rule(base=0.5, size=0, unlike=0, tangled=0, steep=0, deep=1.0)
    told = advice_from(seen(images=10_000), 1.0, rule=rule)
    assert "(topwork train --finetune tail), which will stop at its limit of 15 minutes;" in told.sentences[2]
    assert "the classic rule for many and similar pictures tunes." in told.sentences[2]
    kept = advice_from(seen(images=10_000), 1.0, rule=dataclasses.replace(rule, base=0.0))
    assert kept.sentences[2] == (
        "Do: keep the frozen network (topwork train), since no tuning is predicted to gain 0.5 points or more, "
        "although the classic rule for many and similar pictures tunes."
    )
    few = advice_from(seen(images=1100), 1.0)
    assert few.sentences[2] == (
        "Do: keep the frozen network (topwork train), since no tuning is predicted to gain 0.5 points or more; "
        "the classic rule for few and similar pictures keeps the network fixed."
    )


def test_printed(advice: Advice) -> None:
    text = advice_text(advice)
    for sentence in advice.sentences:
        assert sentence in text
    (chosen,) = (line for line in text.splitlines() if line.startswith("→"))
    assert {"head": "frozen", "tail": "tune the tail", "full": "tune all"}[advice.mode] in chosen
    assert f"last {100 * advice.evidence.probes[-1].accuracy:.1f}" in text


def test_as_json(advice: Advice) -> None:
    plain = json.loads(advice_json(advice))
    assert plain["advice"] == advice.mode
    assert plain["forecasts"]["tail"]["gain"] == advice.forecast("tail").gain
    assert plain["forecasts"]["full"]["interval"] == list(advice.forecast("full").interval)
    assert plain["sentences"] == list(advice.sentences)
    assert plain["evidence"]["headroom"] == pytest.approx(1 - advice.evidence.accuracy)
    assert len(plain["evidence"]["probes"]) == len(advice.evidence.probes)


def test_images_that_went_away(backbone: Backbone, shapes: Path) -> None:
    photos = load(shapes).take(2)
    gone = tuple(dataclasses.replace(e, image=FileImage(f"{shapes}/gone/{e.id}")) for e in photos)
    with pytest.raises(TopworkError, match=r"mine: no image can be read any more; .* put the images back"):
        measure_speed(backbone, Dataset(gone, SHAPES, "mine"))
