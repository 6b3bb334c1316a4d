"""bf16: what it may cost, and what becomes of a run that learned in it where there is none."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from photos import SIZE_PX, Listener, Topwork, shape
from topwork.backbones.backbone import Backbone, load_backbone, precision_note
from topwork.backbones.engine import Engine
from topwork.classifiers.classifier import Classifier
from topwork.data.sources import load
from topwork.features.extract import open_store
from topwork.graphs.compile import precision_here
from topwork.jobs.evaluate import score_dataset
from topwork.jobs.train import Run, train
from topwork.recipe import BackboneRecipe, Recipe

PX = 96


@pytest.mark.parametrize("has_it", [True, False])
def test_bf16_becomes_f32_only_where_there_is_none(has_it: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topwork.graphs.compile.computes_in_bf16", lambda: has_it)
    assert precision_here("f32") == "f32"
    assert precision_here("bf16") == ("bf16" if has_it else "f32")
    facts = load_backbone("efficientnet-lite0", size_px=SIZE_PX, precision="bf16").facts
    assert facts.precision == "bf16"
    assert (precision_note(facts) is None) == has_it
    with open_store(facts) as own:
        assert (facts.fingerprint in own.path.name) == has_it


def _features(backbone: Backbone) -> np.ndarray:
    infer = Engine(backbone)
    return np.stack([infer(np.asarray(shape("circle", n).resize((PX, PX)))) for n in range(8)])


def test_bf16_moves_features_a_little(bf16_processor: None) -> None:
    """bf16 keeps 8 bits: 0.4 % for each rounding; some 50 layers of them move features by a few per cent."""
    exact, near = (
        _features(load_backbone("efficientnet-lite0", size_px=PX, precision=kind)) for kind in ("f32", "bf16")
    )
    away = np.linalg.norm(near - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert 1e-4 < away.max() < 0.1


@pytest.fixture(scope="module")
def run_in_bf16(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained with `--precision bf16`, in what this processor has."""
    recipe = Recipe(backbone=BackboneRecipe(size_px=SIZE_PX, precision="bf16"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("topwork.graphs.compile.computes_in_bf16", lambda: True)
        return train(shapes, tmp_path_factory.mktemp("runs") / "bf16", recipe=recipe)


def test_a_run_of_bf16_where_there_is_none(run_in_bf16: Run, fresh: Path) -> None:
    """Here the processor has none, as far as this process knows: f32 is computed, stored apart, and said."""
    classifier = Classifier.load(run_in_bf16.path)
    facts = dataclasses.replace(classifier.backbone.facts, precision="f32")
    exact = dataclasses.replace(classifier, backbone=Backbone(facts, classifier.backbone.graph))
    here, there = (
        np.stack([p.probabilities for p in c.predict(str(fresh)) if p.probabilities is not None])
        for c in (classifier, exact)
    )
    np.testing.assert_array_equal(here, there)
    told = Listener()
    scored = score_dataset(classifier, load(fresh), watch=told)
    assert scored.evaluation.accuracy >= 0.8
    assert told.said == [precision_note(classifier.backbone.facts)]
    assert "this processor has no bf16, so it runs in f32" in told.said[0]


def test_predict_says_so(run_in_bf16: Run, fresh: Path, tmp_path: Path, call: Topwork) -> None:
    for extra in (["--json"], ["--csv", tmp_path / "out.csv", "--json"]):
        code, out, err = call("predict", run_in_bf16.path, fresh, *extra)
        assert code == 0
        assert json.loads(out)
        assert "this processor has no bf16, so it runs in f32" in " ".join(err.split())
