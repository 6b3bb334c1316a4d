"""A SavedModel that learns by its own training mode, from its run to its run."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from photos import write_shapes
from topwork import Classifier, FinetuneRecipe, InputError, finetune
from topwork.jobs.train import train
from topwork.recipe import BackboneRecipe, Recipe, SplitRecipe

SIDE = 32
TUNING = FinetuneRecipe(mode="full", native=True, epochs=2, batch=8, rate=1e-2, minutes=100, validation=0.3)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """(N, 32, 32, 3) in [0, 1] to (N, 16): two convolutions, a batch norm whose statistics move, and dropout."""
    tf = pytest.importorskip("tensorflow")

    class Network(tf.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            random = np.random.default_rng(0)
            self.first = tf.Variable(random.normal(0, 0.3, (3, 3, 3, 8)).astype(np.float32), name="first")
            self.second = tf.Variable(random.normal(0, 0.2, (3, 3, 8, 16)).astype(np.float32), name="second")
            self.gamma = tf.Variable(tf.ones(16), name="gamma")
            self.beta = tf.Variable(tf.zeros(16), name="beta")
            self.mean = tf.Variable(tf.zeros(16), trainable=False, name="mean")
            self.variance = tf.Variable(tf.ones(16), trainable=False, name="variance")

        def features(self, x: object, training: bool) -> object:
            x = tf.nn.relu(tf.nn.conv2d(x, self.first, 2, "SAME"))
            x = tf.nn.conv2d(x, self.second, 2, "SAME")
            mean, variance = self.mean.value(), self.variance.value()
            if training:
                mean, variance = tf.nn.moments(x, [0, 1, 2])
                self.mean.assign(0.9 * self.mean + 0.1 * mean)
                self.variance.assign(0.9 * self.variance + 0.1 * variance)
            x = tf.nn.batch_normalization(x, mean, variance, self.beta, self.gamma, 1e-3)
            x = tf.reduce_mean(tf.nn.relu(x), [1, 2])
            return tf.nn.dropout(x, 0.1) if training else x

    network = Network()
    picture = tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32, name="inputs")
    outer = tf.train.Checkpoint()
    outer.inner = network
    outer.__call__ = tf.function(lambda inputs, training=False: network.features(inputs, training))
    for training in (True, False):
        outer.__call__.get_concrete_function(picture, training=training)
    outer.trainable_variables = [network.first, network.second, network.gamma, network.beta]
    outer.variables = [*outer.trainable_variables, network.mean, network.variance]
    serve = tf.function(
        lambda inputs: {"features": network.features(inputs, False)}, input_signature=[picture]
    )
    folder = tmp_path_factory.mktemp("module") / "saved"
    tf.saved_model.save(outer, str(folder), signatures={"serving_default": serve})
    return folder


@pytest.fixture(scope="module")
def frozen(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    photos = write_shapes(tmp_path_factory.mktemp("photos") / "shapes", 24)
    backbone = BackboneRecipe(handle=str(saved), size_px=SIDE, precision="f32", pixels="0..1", views="flip")
    recipe = Recipe(backbone=backbone, split=SplitRecipe(test=0.25))
    return train(photos, tmp_path_factory.mktemp("runs") / "run", recipe=recipe).path


def test_it_learns_with_its_batch_statistics_and_becomes_a_graph(frozen: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(frozen, run)
    result = finetune(run, recipe=TUNING)
    tuned = result.tuned
    assert np.isfinite([epoch.held_loss for epoch in tuned.history]).all()
    facts = tuned.classifier.backbone.facts
    before = Classifier.load(frozen).backbone.facts
    assert (facts.handle, facts.pixels, facts.source) == (before.handle, before.pixels, before.source)
    assert facts.tuned == "whole, natively"
    assert facts.fingerprint != before.fingerprint
    # Statistics that stayed 0 and 1 would show in the graph's features: they would be the frozen network's scale.
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert report["finetune"]["kept"] == result.kept
    there = Classifier.load(run)  # without any framework's help
    assert there.backbone.facts.tuned == ("whole, natively" if result.kept else "")


def test_its_statistics_move_and_are_kept_in_checkpoints(frozen: Path) -> None:
    from topwork.tuning.native import native_backbone, native_body

    facts = Classifier.load(frozen).backbone.facts
    body = native_body(facts)
    assert [tuple(v.shape) for v in body.weights].count((16,)) == 4  # gamma, beta and both statistics
    pictures = np.random.default_rng(0).uniform(0, 255, (8, SIDE, SIDE, 3)).astype(np.float32)
    before = [np.array(v.numpy()) for v in body.weights]
    body.layer(pictures, training=True)
    moved = [not np.array_equal(a, v.numpy()) for a, v in zip(before, body.weights, strict=True)]
    assert sum(moved) == 2  # the statistics, and nothing that learns by its slope
    folder = frozen.parent / "native"
    backbone = native_backbone(body, facts, folder)  # compares the two itself
    assert backbone.facts.views == facts.views


def test_what_is_no_saved_model(run: object, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="expected a SavedModel to tune natively; this is not one"):
        finetune(copy, recipe=TUNING)


def test_it_goes_with_full_only() -> None:
    with pytest.raises(InputError, match=r"finetune\.native .* goes with the mode full only; got tail"):
        Recipe(finetune=dataclasses.replace(TUNING, mode="tail"))
