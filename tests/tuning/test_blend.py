"""A tuned network beside the frozen one: one graph and one linear head that say what both say."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

from exact import in_f32
from topwork.backbones.backbone import LAST, TUNED, Backbone, load_backbone
from topwork.backbones.engine import Engine
from topwork.classifiers.classifier import Classifier
from topwork.graphs import features as graphs
from topwork.graphs.cuts import cut_named, find_cuts, only_last, split_at
from topwork.graphs.trainable.layer import GraphLayer, patch
from topwork.heads.head import Head, Layer, fit_temperature, softmax
from topwork.jobs.export import export
from topwork.jobs.train import Run
from topwork.tuning.blend import assembled, best_blend, blended_head, can_blend, head_alone
from topwork.tuning.loop import score
from topwork.tuning.start import LossReduction

Array = np.ndarray[Any, Any]


def voices(seed: int = 0) -> tuple[Array, Array, Array]:
    """Two classifiers that err independently, each right in about 80 of 100; and the truth."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, 3, 600)
    truth = np.eye(3)[targets]
    one, two = (2.2 * truth + random.normal(0, 1.4, truth.shape) for _ in range(2))
    return one / fit_temperature(one, targets), 7 * two, targets


def test_two_that_err_apart_are_better_together() -> None:
    frozen, tuned, targets = voices()
    blend = best_blend(frozen, tuned, targets, np.ones(600))
    alone = best_blend(None, tuned, targets, np.ones(600))
    assert blend.share == 0.5
    assert alone.share == 1
    assert blend.score.loss < 0.8 * min(alone.score.loss, score(frozen, targets, np.ones(600))[0])
    assert blend.score.accuracy > max(alone.score.accuracy, (frozen.argmax(1) == targets).mean())
    expected, _ = score(blend.logits / blend.temperature, targets, np.ones(600))
    assert blend.score.loss == pytest.approx(expected)
    nearby = [score(blend.logits / t, targets, np.ones(600))[0] for t in (0.9, 1.1)]
    assert blend.score.loss <= min(nearby) + 1e-3


def test_one_that_knows_nothing_is_left_out() -> None:
    _, tuned, targets = voices()
    noise = np.random.default_rng(1).normal(0, 1e-3, tuned.shape)
    assert best_blend(noise, tuned, targets, np.ones(600)).share in (0.75, 1.0)
    assert best_blend(tuned / 7, tuned, targets, np.ones(600)).share == 1  # the same answers: nothing is won


def test_how_sure_less_loss_is() -> None:
    """By draws anew of the images: the bootstrap, and not the formula."""
    frozen, tuned, targets = voices()
    weights = np.random.default_rng(3).choice([0.33, 1.0], 600)
    saved = LossReduction.of(frozen, frozen + tuned / 7, targets, weights)
    each = [
        score(frozen[rows], targets[rows], weights[rows])[0]
        - score((frozen + tuned / 7)[rows], targets[rows], weights[rows])[0]
        for rows in np.random.default_rng(4).integers(0, 600, (2000, 600))
    ]
    assert saved.loss == pytest.approx(np.mean(each), rel=0.02)
    assert saved.error == pytest.approx(np.std(each), rel=0.06)
    assert saved.clear
    assert str(saved) == f"loss {saved.loss:.4f} lower (standard error {saved.error:.4f})"


def test_less_loss_within_its_error_is_not_clear() -> None:
    frozen, _, targets = voices()
    none = LossReduction.of(frozen, frozen, targets, np.ones(600))
    assert (none.loss, none.error, none.clear) == (0, 0, False)
    shaken = frozen + np.random.default_rng(5).normal(0, 0.3, frozen.shape)
    assert not LossReduction.of(frozen, shaken, targets, np.ones(600)).clear
    # Of two images, one is told better and the other one worse.
    doubtful = LossReduction.of(np.zeros((2, 2)), np.array([[3, 0], [0, 1]]), np.array([0, 0]), np.ones(2))
    assert 0 < doubtful.loss < doubtful.error
    assert not doubtful.clear


def test_its_head_adds_up_both_heads() -> None:
    random = np.random.default_rng(2)
    frozen = Head(
        "linear", (Layer(*map(np.float32, (random.normal(size=(5, 3)), random.normal(size=3)))),), 1.7
    )
    tuned = Layer(*map(np.float32, (random.normal(size=(4, 3)), random.normal(size=3))))
    logits, targets = random.normal(size=(50, 3)), random.integers(0, 3, 50)
    blend = dataclasses.replace(best_blend(None, logits, targets, np.ones(50)), share=0.25, temperature=0.8)
    x, y = np.float32(random.normal(size=(7, 5))), np.float32(random.normal(size=(7, 4)))
    expected = (
        0.75 * frozen.logits(x) / 1.7 + 0.25 * head_alone(tuned, blend).logits(y) / blend.tuned_temperature
    )
    found = blended_head(frozen, tuned, blend)
    np.testing.assert_allclose(found.logits(np.concatenate([x, y], 1)), expected, rtol=1e-4, atol=1e-5)
    assert found.temperature == 0.8


@pytest.mark.parametrize("name", ["block9", None])
@pytest.mark.parametrize("views", ["one", "flip"])
def test_one_graph_gives_what_both_give(
    name: str | None, views: Any, backbone: Backbone, tmp_path: Path
) -> None:
    """The frozen features are the frozen network's, the tuned ones those of the patched tail; saved and loaded."""
    single = backbone.graph
    prefix, tail, cut = None, only_last(single), None
    if name is not None:
        cut = cut_named(find_cuts(single, backbone.facts.blocks), name)
        prefix, tail = split_at(single, cut, last=True)
    layer = GraphLayer(tail)
    for weight in layer.trainable_variables:
        weight.assign(1.1 * weight.numpy())
    tail = patch(tail, layer)
    random = np.random.default_rng(3)
    width = tail.outputs[0].shape[1]
    facts = dataclasses.replace(backbone.facts, views=views)
    seen = (LAST,)
    head = Head(
        "linear", (Layer(np.float32(random.normal(0, 0.1, (width, 2))), np.zeros(2, np.float32)),), 2.0
    )
    frozen = Classifier(("a", "b"), Backbone(facts, graphs.average_views(single, views)), seen, head)
    logits, targets = random.normal(size=(50, 2)), random.integers(0, 2, 50)
    blend = dataclasses.replace(best_blend(None, logits, targets, np.ones(50)), share=0.5)
    tuned = Layer(np.float32(random.normal(0, 0.1, (width, 2))), np.ones(2, np.float32))
    made = assembled(frozen, single, prefix, tail, cut, tuned, blend)
    alone = assembled(frozen, single, prefix, tail, cut, tuned, dataclasses.replace(blend, share=1.0))
    assert made.blocks == (LAST, TUNED)
    side = facts.size_px
    pixels = random.integers(0, 256, (side, side, 3)).astype(np.uint8)
    both, first, second = (Engine(c.backbone)(pixels) for c in (made, frozen, alone))
    np.testing.assert_allclose(both[: len(first)], first, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(both[len(first) :], second, rtol=1e-4, atol=1e-5)
    assert not np.allclose(second, first[facts.columns((LAST,))], rtol=0.01)
    one = frozen.head.logits(first[None, facts.columns(seen)]) / 2
    two = alone.head.logits(second[None]) / alone.head.temperature
    expected = softmax((one + two) / 2, blend.temperature)
    columns = made.backbone.facts.columns(made.blocks)
    np.testing.assert_allclose(made.probabilities(both[None, columns]), expected, atol=1e-5)
    made.save(tmp_path)
    there = Classifier.load(tmp_path)
    assert there.backbone.facts == made.backbone.facts
    np.testing.assert_allclose(Engine(there.backbone)(pixels), both, rtol=1e-4, atol=1e-5)
    whole = in_f32(ov.Core().read_model(tmp_path / "model.xml"))
    np.testing.assert_allclose(whole(pixels[None])["probabilities"], expected, atol=1e-4)


def test_maps_of_two_side_by_side() -> None:
    """They tell what the tuned network says: its head's share of the slope, at each of its places."""
    from topwork.classifiers.attention import AttentionMapper

    backbone = load_backbone("efficientnet-lite0", size_px=64, precision="f32")
    single = backbone.graph
    random = np.random.default_rng(4)
    width = backbone.facts.columns((LAST,)).size

    def layer() -> Layer:
        return Layer(np.float32(random.normal(0, 0.1, (width, 2))), np.zeros(2, np.float32))

    frozen = Classifier(("a", "b"), backbone, (LAST,), Head("linear", (layer(),)))
    logits, targets = random.normal(size=(50, 2)), random.integers(0, 2, 50)
    blend = dataclasses.replace(best_blend(None, logits, targets, np.ones(50)), share=0.5)
    tuned = layer()
    made = assembled(frozen, single, None, only_last(single), None, tuned, blend)
    alone = assembled(
        frozen, single, None, only_last(single), None, tuned, dataclasses.replace(blend, share=1.0)
    )
    side = backbone.facts.size_px
    pixels = random.integers(0, 256, (side, side, 3)).astype(np.uint8)
    both, one = (AttentionMapper(c) for c in (made, alone))
    half = 0.5 / blend.tuned_temperature
    np.testing.assert_allclose(both.logit_slopes(pixels, 1), half * one.logit_slopes(pixels, 1), atol=1e-5)


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't:DeprecationWarning"
)  # Keras' use of NumPy 2
@pytest.mark.parametrize("format", ["openvino", "onnx", "keras"])
def test_both_are_in_an_export(format: Any, run: Run, tmp_path: Path) -> None:
    """`export` itself compares the file with the run, and fails where they differ."""
    frozen = Classifier.load(run.path)
    single = frozen.backbone.graph
    cut = cut_named(find_cuts(single, frozen.backbone.facts.blocks), "block13")
    prefix, tail = split_at(single, cut, last=True)
    random = np.random.default_rng(5)
    width, classes = tail.outputs[0].shape[1], len(frozen.classes)
    tuned = Layer(np.float32(random.normal(0, 0.1, (width, classes))), np.zeros(classes, np.float32))
    logits, targets = random.normal(size=(50, classes)), random.integers(0, classes, 50)
    blend = dataclasses.replace(best_blend(None, logits, targets, np.ones(50)), share=0.5)
    made = assembled(frozen, single, prefix, tail, cut, tuned, blend)
    shutil.copytree(run.path, tmp_path / "run")
    dataclasses.replace(made, calibration=frozen.calibration).save(tmp_path / "run")
    assert TUNED in Classifier.load(tmp_path / "run").blocks
    done = export(tmp_path / "run", tmp_path / "file", format=format)
    assert done.parity is not None
    assert done.parity.images > 10
    assert done.parity.agreement == 1


def test_what_can_be_added_up() -> None:
    layer = Layer(np.ones((2, 2), np.float32), np.zeros(2, np.float32))
    assert can_blend(Head("linear", (layer,)))
    assert not can_blend(Head("mlp", (layer, layer)))
