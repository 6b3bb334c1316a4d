"""Tuning a run's network, from the run's folder to the run's folder: what it leaves, and what it survives."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from photos import Listener, Topwork, finished, one_line, start, start_python, write_shapes
from topwork import Classifier, FinetuneRecipe, InputError, TopworkError, finetune
from topwork.backbones.backbone import TUNED
from topwork.graphs import features as graphs
from topwork.graphs.cuts import cut_named, find_cuts, split_at
from topwork.jobs.finetune import FROZEN, Finetuned
from topwork.jobs.train import Run, train
from topwork.recipe import AugmentRecipe, HeadRecipe, Recipe
from topwork.runs.folder import RECIPE, REPORT, WORK, check_folder
from topwork.runs.record import images_of

QUICK = FinetuneRecipe(
    mode="tail", cut="block13", epochs=3, views=2, batch=8, rate=1e-3, average=0.8, minutes=100
)
DEEP = dataclasses.replace(QUICK, cut="block3", epochs=8, views=4, batch=16, rate_decay=0.95, validation=0.3)


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Waves of two lengths in noise: the last layer of a network that saw photographs is blind to them. Read only."""
    root = tmp_path_factory.mktemp("photos") / "hard"
    for label, length in (("long", 7), ("short", 5)):
        (root / label).mkdir(parents=True)
        for number in range(80):
            random = np.random.default_rng([length, number])
            wave = 30 * np.cos(2 * np.pi * (np.arange(32) / length + random.random()))
            pixels = 128 + wave[:, None, None] + random.normal(0, 40, (32, 32, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(root / label / f"{number:03}.png")
    return root


@pytest.fixture(scope="module")
def frozen(hard: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the waves, by the last layer alone. Copy it to change it."""
    last = dataclasses.replace(recipe, head=HeadRecipe(features="last"))
    return train(hard, tmp_path_factory.mktemp("runs") / "hard", recipe=last).path


@pytest.fixture(scope="module")
def tuned(frozen: Path, tmp_path_factory: pytest.TempPathFactory) -> Finetuned:
    run = tmp_path_factory.mktemp("tuned") / "run"
    shutil.copytree(frozen, run)
    return finetune(run, recipe=DEEP)


@pytest.fixture(scope="module")
def straight(frozen: Path, tmp_path_factory: pytest.TempPathFactory) -> Finetuned:
    """A tuning that nobody broke off."""
    return finetune(copied(frozen, tmp_path_factory.mktemp("straight")), recipe=QUICK)


def copied(run: Path, to: Path) -> Path:
    shutil.copytree(run, to / "run")
    return to / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_is_kept_is_what_is_there(tuned: Finetuned, hard: Path) -> None:
    report = json.loads((tuned.path / REPORT).read_text(encoding="utf-8"))
    assert report["finetune"]["kept"] == tuned.kept == tuned.tuned.better
    assert len(report["finetune"]["history"]) == len(tuned.tuned.history) <= 8
    assert not (tuned.path / WORK).exists()
    there = Classifier.load(tuned.path)
    wanted = tuned.tuned.classifier if tuned.kept else Classifier.load(tuned.path)
    images = str(hard / "long" / "00*.png")
    for a, b in zip(there.predict(images), wanted.predict(images), strict=True):
        assert a.probabilities is not None
        np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-6)


def test_validation_images_decide_and_test_images_tell(tuned: Finetuned) -> None:
    verdict = tuned.verdict
    assert verdict is not None
    assert verdict.kept == tuned.kept
    assert tuned.frozen is not None
    assert tuned.test is not None
    assert verdict.before == pytest.approx(tuned.frozen.evaluation.accuracy)
    assert verdict.after == pytest.approx(tuned.test.evaluation.accuracy)
    assert verdict.n == sum(image.part == "test" for image in images_of(tuned.path))


def test_the_tuned_network_is_another_and_the_frozen_one_is_kept(tuned: Finetuned, frozen: Path) -> None:
    assert tuned.kept, tuned.verdict
    before = Classifier.load(frozen)
    facts = tuned.tuned.classifier.backbone.facts
    assert facts.fingerprint != before.backbone.facts.fingerprint
    assert Classifier.load(tuned.path / FROZEN).backbone.facts == before.backbone.facts
    assert Recipe.load(tuned.path / "recipe.toml").finetune.cut == "block3"
    report = json.loads((tuned.path / REPORT).read_text(encoding="utf-8"))
    assert tuned.test is not None
    assert report["test"]["accuracy"] == tuned.test.evaluation.accuracy


def test_the_tuned_one_knows_its_doubt(tuned: Finetuned, frozen: Path, hard: Path, tmp_path: Path) -> None:
    """It rejects what is no wave, and as many pictures of the known classes as it may; sets hold the truth."""
    assert tuned.kept
    there, before = Classifier.load(tuned.path), Classifier.load(frozen)
    assert there.novelty is not None
    assert before.novelty is not None
    assert (TUNED in there.blocks) == (tuned.tuned.share < 1)
    if TUNED in there.blocks:
        np.testing.assert_array_equal(there.novelty.centres, before.novelty.centres)
    known = list(there.predict(str(hard)))
    assert sum(p.rejected for p in known) <= 0.1 * len(known)
    strange = np.zeros((32, 32, 3), np.uint8)
    strange[:16] = (255, 0, 0)
    Image.fromarray(strange).save(tmp_path / "strange.png")
    assert next(iter(there.predict(str(tmp_path / "strange.png")))).rejected
    assert there.calibration is not None
    assert there.calibration.images == len(tuned.tuned.held)
    least = there.least_probability(0.8)
    held = tuned.tuned.held_probabilities[np.arange(len(tuned.tuned.held)), tuned.tuned.held.targets()]
    assert (held >= least - 1e-6).mean() >= 0.8
    assert (held > least + 1e-6).mean() <= 0.9  # as many as ties allow


def test_rare_classes_count_more_where_asked(hard: Path, recipe: Recipe, frozen: Path) -> None:
    from topwork import load
    from topwork.tuning.data import _weights

    few = load(hard).select([*range(80), *range(80, 90)])
    classifier = Classifier.load(frozen)
    balanced = dataclasses.replace(recipe, head=HeadRecipe(class_weight="balanced"))
    found = _weights(few, classifier, balanced)
    assert found[:80].sum() == pytest.approx(found[80:].sum())
    np.testing.assert_array_equal(_weights(few, classifier, recipe), np.ones(90))


def test_early_layers_stay_as_they_were(tuned: Finetuned, frozen: Path) -> None:
    """What comes before the cut is bit for bit the frozen network's; what comes after is not."""
    facts = Classifier.load(frozen).backbone
    single = graphs.single_view(facts.graph)
    cut = cut_named(find_cuts(single, facts.facts.blocks), "block3")
    now = kernels(tuned.tuned.classifier.backbone.graph)
    prefix, tail = (kernels(part) for part in split_at(single, cut, last=True))
    assert prefix <= now
    if tuned.tuned.share == 1:
        assert not tail & now
    else:  # the frozen tail beside the tuned one
        assert tail <= now
    assert len(now) >= len(prefix | tail) + len(tail) * (tuned.tuned.share < 1)


def kernels(graph: Any) -> set[bytes]:
    nodes = (n for n in graph.get_ordered_ops() if n.get_type_name() == "Constant")
    return {n.data.tobytes() for n in nodes if n.data.dtype == np.float32 and n.data.size > 100}


def test_tuning_again_begins_with_the_frozen_one(
    tuned: Finetuned, straight: Finetuned, tmp_path: Path
) -> None:
    """Of a run that was tuned before, a tuning comes to what it comes to on the run as it was."""
    again = finetune(copied(tuned.path, tmp_path), recipe=QUICK)
    assert [e.held_loss for e in again.tuned.history] == pytest.approx(
        [e.held_loss for e in straight.tuned.history], rel=1e-4
    )


def test_photos_that_are_elsewhere_or_not_the_same(
    frozen: Path, hard: Path, shapes: Path, tmp_path: Path
) -> None:
    run = copied(frozen, tmp_path)
    before = contents(run)
    moved = copied(hard, tmp_path / "elsewhere")
    (moved / "long" / "000.png").unlink()
    with pytest.raises(InputError, match=r"expected the photos of the run .*; 1 of 160 are missing or have"):
        finetune(run, moved, recipe=QUICK)
    report = json.loads((run / REPORT).read_text(encoding="utf-8"))
    report["source"] = None
    (run / REPORT).write_text(json.dumps(report), encoding="utf-8")
    with pytest.raises(InputError, match="doesn't record where its photos are; name them: topwork finetune"):
        finetune(run, recipe=QUICK)
    (run / REPORT).write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="expected a file that `topwork train` wrote; it has been changed"):
        finetune(run, hard, recipe=QUICK)
    (run / REPORT).unlink()
    with pytest.raises(InputError, match="expected a file that `topwork train` wrote; it can't be read"):
        finetune(run, hard, recipe=QUICK)
    (run / REPORT).write_bytes(before[REPORT])
    assert contents(run) == before


def test_settings_that_can_not_be(frozen: Path, tmp_path: Path) -> None:
    run = copied(frozen, tmp_path)
    before = {name: data for name, data in contents(run).items() if not name.startswith(WORK)}
    with pytest.raises(InputError, match=r"unknown cut 'blok9'; did you mean 'block9'"):
        finetune(run, recipe=dataclasses.replace(QUICK, cut="blok9"))
    with pytest.raises(
        InputError, match=r"take at least \d\.\d GB on disk; 0 GB are allowed: use fewer views"
    ):
        finetune(run, recipe=dataclasses.replace(QUICK, cut=None, disk_gb=0.0))
    after = {name: data for name, data in contents(run).items() if not name.startswith(WORK)}
    assert after == before


def test_too_few_photos_to_choose_by(recipe: Recipe, tmp_path: Path) -> None:
    few = write_shapes(tmp_path / "few", 3)
    run = train(few, tmp_path / "run", recipe=recipe).path
    with pytest.raises(InputError, match="expected some images of each class to hold out for validation; "):
        finetune(run, recipe=dataclasses.replace(QUICK, validation=0.01))
    assert not (run / WORK).exists()  # nothing was begun that could be gone on with


def test_the_whole_network_learns_too(frozen: Path, tmp_path: Path) -> None:
    run = copied(frozen, tmp_path)
    options = dataclasses.replace(
        QUICK, mode="full", epochs=1, augment=AugmentRecipe(flips="both", crop=0.8, colour=0.1)
    )
    result = finetune(run, recipe=options)
    assert result.tuned.cut is None
    assert np.isfinite(result.tuned.history[0].held_loss)


PROGRAM = """
import sys
from topwork import finetune, FinetuneRecipe
from topwork.progress import Silent

class Listener(Silent):
    def say(self, text):
        print(text, flush=True)

finetune(sys.argv[1], recipe=FinetuneRecipe(
    mode="tail", cut="block13", epochs=3, views=2, batch=8, rate=1e-3, average=0.8, minutes=100
), resume=True, watch=Listener())
"""


def test_killed_after_each_epoch_it_comes_to_the_same_end(
    frozen: Path, straight: Finetuned, tmp_path: Path
) -> None:
    run = copied(frozen, tmp_path)
    for epoch in (1, 2):
        with start_python(PROGRAM, run) as process:
            assert process.stdout is not None
            seen = next(line for line in process.stdout if line.startswith(f"epoch {epoch} of 3"))
            process.send_signal(signal.SIGKILL)  # before or after the checkpoint: either must do
            assert seen
        Classifier.load(run)  # the frozen one, whole
    with pytest.raises(InputError, match=rf"already contains a run; .*: topwork finetune {run} --resume"):
        check_folder(run, overwrite=False)
    told = Listener()
    resumed = finetune(run, resume=True, watch=told)  # by the settings that it was begun with
    assert any(text.startswith("resuming after") for text in told.said)
    a, b = (
        [
            n.data
            for n in r.tuned.classifier.backbone.graph.get_ordered_ops()
            if n.get_type_name() == "Constant"
        ]
        for r in (resumed, straight)
    )
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)
    assert resumed.tuned.mix == straight.tuned.mix


def test_ctrl_c_before_the_first_epoch_says_how_to_go_on(frozen: Path, tmp_path: Path) -> None:
    run = copied(frozen, tmp_path)
    before = contents(run)
    with start("finetune", run, "--cut", "block13", "--epochs", 3) as process:
        assert process.stderr is not None
        assert next(line for line in process.stderr if line.startswith("solving the initial head"))
        process.send_signal(signal.SIGINT)
        code, _, err = finished(process)
    assert code == 130
    assert err.splitlines()[-1] == (f"topwork: stopped; to resume: topwork finetune {run} --resume")
    shutil.rmtree(run / WORK)
    assert contents(run) == before


def test_a_run_that_followed_advice_is_tuned_by_its_tail(frozen: Path, tmp_path: Path) -> None:
    run = copied(frozen, tmp_path)
    auto = dataclasses.replace(
        Recipe.load(run / RECIPE), finetune=dataclasses.replace(QUICK, mode="auto", epochs=1)
    )
    (run / RECIPE).write_text(auto.to_toml(), encoding="utf-8")
    assert finetune(run).tuned.cut is not None
    assert Recipe.load(run / RECIPE).finetune.mode == "tail"


def test_a_second_tuning_that_is_not_kept_leaves_the_first(
    tuned: Finetuned, call: Topwork, tmp_path: Path
) -> None:
    run = copied(tuned.path, tmp_path)
    before = contents(run)
    code, out, _ = call("finetune", run, "--cut", "block15", "--epochs", 1, "--rate", 1e-8)
    assert code == 0
    assert f"{run} contains the earlier tuned classifier" in out
    after = contents(run)
    assert json.loads(after.pop(REPORT)) == json.loads(before.pop(REPORT)) | {
        "finetune_not_kept": json.loads((run / REPORT).read_text())["finetune_not_kept"]
    }
    assert {name: b for name, b in after.items() if name in before} == before
    assert all(name.startswith("tensorboard/") for name in after.keys() - before.keys())


def test_a_run_that_is_replaced_leaves_nothing_to_tune_from(
    tuned: Finetuned, shapes: Path, recipe: Recipe, tmp_path: Path
) -> None:
    run = copied(tuned.path, tmp_path)
    (run / WORK).mkdir()
    train(shapes, run, recipe=recipe, overwrite=True)
    assert not (run / FROZEN).exists()
    assert not (run / WORK).exists()


def test_settings_that_change_lose_nothing(frozen: Path, tmp_path: Path) -> None:
    run = copied(frozen, tmp_path)
    with start_python(PROGRAM, run) as process:
        assert process.stdout is not None
        assert next(line for line in process.stdout if line.startswith("epoch 2"))
        process.kill()
    kept = contents(run)
    with pytest.raises(InputError, match="got others: omit them to resume, or omit --resume"):
        finetune(run, recipe=dataclasses.replace(QUICK, rate=2e-3), resume=True)
    assert contents(run) == kept


def test_train_tunes_where_it_is_asked_to(hard: Path, recipe: Recipe, tmp_path: Path) -> None:
    asked = dataclasses.replace(recipe, finetune=dataclasses.replace(QUICK, epochs=1))
    run = train(hard, tmp_path / "run", recipe=asked)
    assert isinstance(run, Run)
    assert run.finetuned is not None
    assert run.test is not None
    assert "tune" in run.seconds
    there = Classifier.load(run.path).backbone.facts
    assert there == run.classifier.backbone.facts


def test_the_command(frozen: Path, call: Topwork, tmp_path: Path) -> None:
    run = copied(frozen, tmp_path)
    code, out, _ = call("finetune", run, "--cut", "block13", "--epochs", 1, "--views", 1, "--json")
    plain = json.loads(out)
    assert code == 0
    assert plain["cut"] == "block13"
    assert plain["verdict"]["n"] == plain["test"]["n"]
    code, out, _ = call("finetune", run, "--cut", "block15", "--epochs", 1, "--views", 1)
    assert code == 0
    assert "Tuned the tail after block15: 1 epoch of 1" in out
    assert "points (95 %" in out
    one_line(call("finetune", run, "--mode", "auto"), "'auto' is not one of 'tail', 'full'")
    one_line(call("finetune", run, "--epochs", 0), "finetune.epochs must be 1 to 10000; got 0")
    one_line(
        call("finetune", tmp_path / "no"), "expected a folder that `topwork train` wrote; it has no recipe"
    )


def test_a_disk_that_fills_up_leaves_the_run(frozen: Path, tmp_path: Path) -> None:
    """Activations fit, the checkpoint doesn't: a clear error, and the classifier as it was."""
    from topwork.tuning.checkpoint import State, load_state, save_state

    path = tmp_path / "no" / "checkpoint.npz"
    state = State(3, 1, [np.zeros(3)], [np.zeros(3)], [], [np.zeros(3)], ())
    with pytest.raises(TopworkError, match=r"can't be written \(No such file.*continue with --resume"):
        save_state(state, path, digest="a")
    path.parent.mkdir()
    save_state(state, path, digest="a")
    assert load_state(path, digest="b") is None
    found: Any = load_state(path, digest="a")
    assert (found.epochs, found.step, found.history) == (3, 1, ())
    path.write_bytes(path.read_bytes()[:-40])
    assert load_state(path, digest="a") is None
    Classifier.load(frozen)


def test_advice_by_the_command(shapes: Path, call: Topwork) -> None:
    code, out, _ = call("advise", shapes, "--size", 32, "--json")
    plain = json.loads(out)
    assert code == 0
    assert plain["advice"] in ("head", "tail", "full")
    assert len(plain["sentences"]) == 3
    code, out, _ = call("advise", shapes, "--size", 32)
    assert code == 0
    assert all(sentence in out for sentence in plain["sentences"][:1])
    one_line(call("advise", shapes / "none"), "none")
    one_line(call("advise", shapes, "--group-by", "patient"), "patient")


def test_auto_where_there_are_too_few_to_tell(recipe: Recipe, tmp_path: Path) -> None:
    photos = write_shapes(tmp_path / "photos", 8)
    for path in sorted((photos / "circle").iterdir())[1:]:
        path.unlink()
    told = Listener()
    auto = dataclasses.replace(recipe, finetune=dataclasses.replace(QUICK, mode="auto"))
    run = train(photos, tmp_path / "run", recipe=auto, watch=told)
    assert run.finetuned is None
    assert any("no advice, so the frozen network stays: " in text for text in told.said)


def test_auto_follows_the_advice(shapes: Path, recipe: Recipe, tmp_path: Path) -> None:
    told = Listener()
    auto = dataclasses.replace(recipe, finetune=dataclasses.replace(QUICK, mode="auto", epochs=1))
    run = train(shapes, tmp_path / "run", recipe=auto, watch=told)
    assert run.advice is not None
    assert (run.finetuned is None) == (run.advice.mode == "head")
    assert set(run.advice.sentences) <= set(told.said)


def test_without_keras_it_says_what_to_install(
    run: Run, call: Topwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topwork.jobs.finetune.find_spec", lambda name: None)
    code, out, err = call("finetune", run.path)
    assert (code, out) == (2, "")
    assert err.endswith('tuning a network needs an optional part: pip install "topwork[finetune]"\n')
