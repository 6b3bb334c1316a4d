"""What a classifier knows of its own doubt: "none of these", sets of classes, maps, runs compared."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from photos import SIZE_PX, Topwork, one_line, shape, write_shapes
from topwork.classifiers.attention import AttentionMapper, overlay
from topwork.classifiers.calibration import KEPT, Calibration, calibration_of
from topwork.classifiers.classifier import Classifier
from topwork.classifiers.novelty import Novelty, fit_novelty, novelty_beyond
from topwork.errors import InputError
from topwork.evaluation.metrics import auroc
from topwork.evaluation.significance import mcnemar
from topwork.graphs.compile import compile_model
from topwork.images.decode import decode
from topwork.jobs.diff import compare_runs
from topwork.jobs.train import Run, train
from topwork.recipe import BackboneRecipe, Recipe


def known(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of features, of 40 channels."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).uniform(0, 2, (3, 40))
    targets = random.integers(0, 3, n)
    return np.maximum(centres[targets] + random.normal(0, 0.2, (n, 40)), 0).astype(np.float32), targets


@pytest.fixture(scope="module")
def rule() -> Novelty:
    x, targets = known(600, 0)
    fitted = fit_novelty(x, targets, np.arange(600) % 5, class_count=3, rate=0.05)
    assert fitted is not None
    return fitted


def test_as_many_known_pictures_are_rejected_as_was_asked(rule: Novelty) -> None:
    x, _ = known(20_000, 1)
    assert 0.03 < (rule.score(x) > 1).mean() < 0.07


def test_strangers_are_told_apart(rule: Novelty) -> None:
    x, _ = known(2000, 2)
    strangers = np.random.default_rng(3).uniform(0, 2, (2000, 40)).astype(np.float32)
    scores = np.concatenate([rule.score(x), rule.score(strangers)])
    value = auroc(np.arange(4000) >= 2000, scores)
    assert value is not None
    assert value > 0.9


def test_the_distance_is_mahalanobis_and_what_lies_outside(rule: Novelty) -> None:
    x, _ = known(5, 4)
    rooted = np.sqrt(x)
    rooted /= np.linalg.norm(rooted, axis=1, keepdims=True)
    for row, told in zip(rooted, rule.distance(x), strict=True):
        z = ((row - rule.mean) @ rule.axes) @ rule.whiten
        inside = min(float(((z - c) ** 2).sum()) for c in rule.centres)
        rest = (row - rule.mean) - rule.axes @ (rule.axes.T @ (row - rule.mean))
        assert told == pytest.approx(inside + rest @ rest / rule.outside * rule.axes.shape[1], rel=1e-3)


def test_too_few_images_make_no_rule() -> None:
    x, targets = known(10, 0)
    assert fit_novelty(x, targets, np.arange(10) % 5, class_count=3) is None


def test_a_limit_from_images_beyond_those_learnt_from() -> None:
    """Features that were fitted to their training images lie closer there; the limit doesn't."""
    x, targets = known(600, 5)
    centres = np.stack([x[targets == k].mean(axis=0) for k in range(3)])
    fitted = (0.3 * x + 0.7 * centres[targets]).astype(np.float32)
    beyond, _ = known(200, 6)
    rule = novelty_beyond(fitted, targets, beyond, class_count=3, rate=0.05)
    assert rule is not None
    assert (rule.score(beyond) > 1).sum() in (9, 10)  # the ⌈0.95 · 201⌉-th of 200 is the limit
    assert 0.02 < (rule.score(known(20_000, 7)[0]) > 1).mean() < 0.09
    assert novelty_beyond(fitted, targets, beyond[:10], class_count=3) is None
    assert novelty_beyond(fitted, targets, beyond, class_count=3, rate=0.0) is None


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_cover_what_they_promise(coverage: float) -> None:
    """1,000 draws of 150 held-out images: the coverage of 150 others is as promised, within the draws' own error."""
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(4) * 0.7, 40_000)
    targets = np.array([random.choice(4, p=row) for row in p])
    covered = []
    for _ in range(1000):
        rows = random.integers(0, len(p), 300)
        held, new = rows[:150], rows[150:]
        least = 1 - calibration_of(None, targets[held], p[held]).allowance(coverage)
        covered.append((p[new, targets[new]] >= least).mean())
    assert coverage - 0.01 < np.mean(covered) < coverage + 0.02


def test_many_scores_are_kept_as_quantiles(tmp_path: Path) -> None:
    p = np.random.default_rng(0).uniform(0, 1, (50_000, 1))
    calibration = calibration_of(None, np.zeros(50_000, np.int64), p)
    assert len(calibration.scores) == KEPT
    exact = np.sort(1 - p[:, 0])
    for coverage in (0.5, 0.9, 0.99):
        assert 0 <= calibration.allowance(coverage) - exact[int(np.ceil(coverage * 50_001)) - 1] < 1e-3
    calibration.save(tmp_path / "c.npz")
    assert Calibration.load(tmp_path / "c.npz").allowance(0.9) == calibration.allowance(0.9)


def test_a_coverage_that_makes_no_sense(tmp_path: Path) -> None:
    calibration = calibration_of(None, np.zeros(10, np.int64), np.full((10, 1), 0.5))
    assert calibration.allowance(0.99) == 1  # 10 images can't tell: every class is in
    with pytest.raises(InputError, match="between 0 and 1"):
        calibration.allowance(1.5)
    with pytest.raises(InputError, match="has no held-out scores"):
        Calibration(None, np.zeros(0, np.float32), 0).allowance(0.9)
    (tmp_path / "c.npz").write_bytes(b"no")
    with pytest.raises(InputError, match="it is damaged"):
        Calibration.load(tmp_path / "c.npz")


def test_a_run_carries_the_rule_and_its_graph_agrees(run: Run, fresh: Path, tmp_path: Path) -> None:
    import openvino as ov

    classifier = Classifier.load(run.path)
    assert classifier.novelty is not None
    model = compile_model(ov.Core().read_model(run.path / "model.xml"), "f32", threads=1)
    noise = tmp_path / "noise.png"
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(noise)
    scores = {}
    for prediction in classifier.predict([str(fresh), str(noise)]):
        pixels = decode(Path(prediction.image).read_bytes(), SIZE_PX)
        assert prediction.novelty is not None
        assert float(model(pixels[None])["novelty"][0, 0]) == pytest.approx(prediction.novelty, rel=1e-3)
        scores[Path(prediction.image).name] = prediction.novelty
    assert scores["noise.png"] == max(scores.values())


def test_predict_says_none_of_these(call: Topwork, run: Run, tmp_path: Path, shapes: Path) -> None:
    folder, odd = tmp_path / "run", tmp_path / "odd.png"
    shutil.copytree(run.path, folder)
    classifier = Classifier.load(folder)
    assert classifier.calibration is not None
    assert classifier.novelty is not None
    shape("circle", 5).save(odd)
    import dataclasses

    strict = dataclasses.replace(classifier.novelty, threshold=classifier.novelty.threshold / 1e3)
    dataclasses.replace(
        classifier, calibration=dataclasses.replace(classifier.calibration, novelty=strict)
    ).save(folder)
    code, out, _ = call("predict", folder, odd)
    assert code == 0
    assert "none of these (unlike the training pictures" in out
    told = json.loads(call("predict", folder, odd, "--json")[1])[0]
    assert told["class"] in run.classifier.classes
    assert told["rejected"].startswith("unlike the training pictures")
    row = next(csv.DictReader(call("predict", folder, odd, "--csv")[1].splitlines()))
    assert row["rejected"] == told["rejected"]
    assert (
        json.loads(call("predict", run.path, shapes / "circle" / "000.png", "--json")[1])[0]["rejected"]
        is None
    )


def test_predict_names_sets(call: Topwork, run: Run, shapes: Path) -> None:
    one = shapes / "circle" / "000.png"
    small, large = (
        json.loads(call("predict", run.path, one, "--json", "--coverage", c)[1])[0]["set"]
        for c in (0.5, 0.95)
    )
    assert 1 <= len(small) <= len(large)
    assert small == large[: len(small)]
    assert "|".join(large) in call("predict", run.path, one, "--csv", "--coverage", 0.95)[1]
    one_line(call("predict", run.path, one, "--coverage", 2), "must lie between 0 and 1")


def test_no_rule_if_none_is_wanted(shapes: Path, tmp_path: Path, call: Topwork) -> None:
    call("train", shapes, "--out", tmp_path / "r", "--size", SIZE_PX, "--reject", 0)
    assert Classifier.load(tmp_path / "r").novelty is None
    one_line(call("train", shapes, "--out", tmp_path / "q", "--reject", 1.5), "a share from 0 to below 1")


@pytest.fixture(scope="module")
def larger(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    recipe = Recipe(backbone=BackboneRecipe(size_px=128, precision="f32"))
    return train(shapes, tmp_path_factory.mktemp("larger") / "run", recipe=recipe).classifier


def test_places_add_up_to_the_average(larger: Classifier) -> None:
    """The slope towards a place is linear in it, and the places' mean is where the average is already."""
    slopes = AttentionMapper(larger).logit_slopes(decode_shape("circle", 1), 0)
    assert slopes.shape == (4, 4)
    assert abs(slopes.mean()) < 0.1 * np.abs(slopes).max()


def test_the_map_finds_the_object(larger: Classifier) -> None:
    """A square lies in one corner of noise: its quarter of the map must speak most, oftener than by chance."""
    mapper, hits = AttentionMapper(larger), 0
    for number in range(24):
        random = np.random.default_rng(number)
        pixels = np.full((128, 128, 3), 60, np.uint8) + random.integers(0, 8, (128, 128, 3), np.uint8)
        top, left = divmod(number % 4, 2)
        pixels[16 + 64 * top : 48 + 64 * top, 16 + 64 * left : 48 + 64 * left] = (220, 200, 180)
        heat = mapper.map(pixels, larger.classes.index("square"))
        quarters = heat.reshape(2, 2, 2, 2).sum(axis=(1, 3))
        hits += int(quarters.argmax() == 2 * top + left)
    assert hits >= 13  # by chance 6; 13 or more has a probability below 0.2 %


def test_maps_need_places(run: Run) -> None:
    assert not AttentionMapper(run.classifier).possible  # at 32 px the last layer is one place


def test_an_overlay_is_orange_where_it_is_hot() -> None:
    pixels = np.full((40, 40, 3), 100, np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0] = 1
    out = overlay(pixels, heat)
    assert out.shape == pixels.shape
    assert out[2, 2, 0] > out[2, 2, 2] + 80
    assert (out[-4:, -4:] == 100).all()


def decode_shape(label: str, number: int) -> np.ndarray:
    return np.asarray(shape(label, number).resize((128, 128)))


@pytest.fixture(scope="module")
def other(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = Recipe(backbone=BackboneRecipe(size_px=64, precision="f32"))
    return train(shapes, tmp_path_factory.mktemp("other") / "run", recipe=recipe)


def test_two_runs_on_their_common_images(run: Run, other: Run) -> None:
    told = compare_runs(run.path, other.path)
    rows = [
        list(csv.DictReader((r.path / "splits.csv").read_text("utf-8").splitlines())) for r in (run, other)
    ]
    right = [
        np.array([row["label"] == row["prediction"] for row in some if row["split"] == "test"])
        for some in rows
    ]
    assert told.n == len(right[0])
    assert told.comparison == mcnemar(right[1], right[0])
    assert (told.accuracy_a, told.accuracy_b) == (right[0].mean(), right[1].mean())
    kinds = [flip.kind for flip in told.flips]
    assert kinds.count("fixed") - kinds.count("broken") == right[1].sum() - right[0].sum()


def test_the_diff_command(call: Topwork, run: Run, other: Run) -> None:
    code, out, _ = call("diff", run.path, other.path)
    assert code == 0
    assert f"{run.path}:" in out
    assert "common test images" in out
    assert json.loads(call("diff", run.path, other.path, "--json")[1])["n"] == run.test.n  # type: ignore[union-attr]
    same = call("diff", run.path, run.path)[1]
    assert "equally good" in same


def test_runs_that_leak_are_refused(
    run: Run, shapes: Path, tmp_path: Path, recipe: Recipe, call: Topwork
) -> None:
    import dataclasses

    again = train(
        shapes,
        tmp_path / "r",
        recipe=dataclasses.replace(recipe, split=dataclasses.replace(recipe.split, seed=1)),
    )
    one_line(call("diff", run.path, again.path), "learned from")


def test_runs_that_do_not_fit_are_refused(run: Run, tmp_path: Path, call: Topwork) -> None:
    def changed(name: str, change: dict[str, str]) -> Path:
        folder = tmp_path / name
        shutil.copytree(run.path, folder)
        rows = list(csv.DictReader((folder / "splits.csv").read_text("utf-8").splitlines()))
        for row in rows:
            if row["split"] == "test":
                row |= {k: v.format(**row) for k, v in change.items()}
        with (folder / "splits.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return folder

    one_line(
        call("diff", run.path, changed("labels", {"label": "circle"})),
        "expected the same labels in both runs",
    )
    one_line(call("diff", run.path, changed("bytes", {"sha256": "00{sha256}"})), "no test image in common")
    one_line(call("diff", run.path, changed("classes", {"label": "x{label}"})), "of the same classes")
    one_line(call("diff", run.path, tmp_path), "expected a folder that `topwork train` wrote")
    (tmp_path / "labels" / "splits.csv").write_text("id\n1\n")
    one_line(call("diff", run.path, tmp_path / "labels"), "it can't be read")


def test_copies_of_test_images_leak_too(run: Run, tmp_path: Path, call: Topwork) -> None:
    folder = tmp_path / "copies"
    shutil.copytree(run.path, folder)
    rows = list(csv.DictReader((folder / "splits.csv").read_text("utf-8").splitlines()))
    next(row for row in rows if row["split"] == "test")["group"] = "g"
    next(row for row in rows if row["split"] == "train")["group"] = "g"
    with (folder / "splits.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    one_line(call("diff", run.path, folder), "or from copies of them")


def test_a_growing_set_is_forecast(tmp_path: Path, recipe: Recipe) -> None:
    run = train(write_shapes(tmp_path / "photos", 40), tmp_path / "run", recipe=recipe)
    report = json.loads((run.path / "report.json").read_text("utf-8"))
    assert report["curve"]["sizes"] == sorted(report["curve"]["sizes"])
    assert "Twice as many photos would bring" in report["growth"][0]
    assert len(report["cross_validated"]) == 5
    assert run.cross_validated == tuple(report["cross_validated"])
