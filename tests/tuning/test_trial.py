"""Which cut: what the time and the disk allow, and what a short trial finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from photos import Listener
from topwork.backbones.backbone import Backbone
from topwork.data.sources import load
from topwork.graphs import features as graphs
from topwork.graphs.cuts import Cut, cut_named, find_cuts, split_at
from topwork.images.framing import Framing
from topwork.recipe import FinetuneRecipe, Recipe
from topwork.tuning.choice import APART, TRIED, affordable_cuts, thinned
from topwork.tuning.data import TuningData
from topwork.tuning.inputs import Pictures
from topwork.tuning.trial import _before, _kept_choice, choose_cut

CUTS = tuple(Cut(f"b{i}", (8, 4, 4), 0, share, i) for i, share in enumerate((0.9, 0.7, 0.5, 0.4, 0.2, 0.1)))


def names(cuts: tuple[Cut, ...]) -> list[str]:
    return [cut.name for cut in cuts]


def test_more_time_allows_larger_tails() -> None:
    def allowed(minutes: float) -> list[str]:
        recipe = FinetuneRecipe(mode="tail", minutes=minutes)
        return names(affordable_cuts(CUTS, recipe, images=1000, forward_s=0.01))

    assert allowed(1000) == ["b1", "b2", "b3", "b4", "b5"]  # the first would be almost the whole network
    assert allowed(0.01) == ["b5"]  # nothing fits: the cheapest
    counts = [len(allowed(minutes)) for minutes in (1, 2, 4, 8, 16)]
    assert counts == sorted(counts)
    assert len(set(counts)) > 2


def test_those_that_are_tried_differ() -> None:
    assert names(thinned(CUTS[1:])) == ["b1", "b3", "b4"]
    assert names(thinned(CUTS[:1])) == ["b0"]
    assert TRIED == 3
    assert APART < 1


@pytest.fixture(scope="module")
def data(shapes: Path) -> TuningData:
    dataset = load(shapes)
    rows = np.random.default_rng(0).permutation(len(dataset))
    return TuningData(
        source=Pictures(dataset, 32, Framing("stretch"), FinetuneRecipe().augment, 0),
        learn=rows[:40],
        held=rows[40:],
        targets=dataset.targets(),
        weights=dataset.weights(),
        folds=np.arange(len(dataset)) % 5,
        class_count=3,
        images="",
    )


def test_a_trial_decides_and_is_remembered(
    backbone: Backbone, shapes: Path, data: TuningData, tmp_path: Path
) -> None:
    pytest.importorskip("keras")
    recipe = Recipe(finetune=FinetuneRecipe(mode="tail", minutes=60, batch=4, rate=1e-3))
    single = graphs.single_view(backbone.graph)

    def chosen(digest: str, told: Listener) -> object:
        return choose_cut(
            backbone,
            single,
            data,
            load(shapes),
            recipe,
            folder=tmp_path,
            digest=digest,
            watch=told,
        )

    told = Listener()
    first = chosen("a", told)
    assert len(first.tried) == TRIED  # type: ignore[attr-defined]
    best = min(first.tried, key=lambda one: one.loss)  # type: ignore[attr-defined]
    assert first.cut.name == best.cut  # type: ignore[attr-defined]
    assert any("validation loss after the same short time" in text for text in told.said)
    assert [path.name for path in tmp_path.iterdir()] == ["cut.json"]  # its activations are gone
    again = Listener()
    assert chosen("a", again) == first
    assert not again.said
    assert _kept_choice(tmp_path / "cut.json", "another tuning") is None
    (tmp_path / "cut.json").write_text("{")
    assert _kept_choice(tmp_path / "cut.json", "a") is None


def test_what_stays_in_a_trial(backbone: Backbone) -> None:
    """The weights of a smaller tail are those after its cut, and no others."""
    pytest.importorskip("keras")
    from topwork.tuning.learner import graph_body

    single = graphs.single_view(backbone.graph)
    cuts = find_cuts(single, backbone.facts.blocks)
    large, small = cut_named(cuts, "block9"), cut_named(cuts, "block13")
    tail = split_at(single, large, last=True)[1]
    body = graph_body(tail, FinetuneRecipe(), fixed=_before(small, large, single, tail))
    learning = sorted(int(np.prod(v.shape)) for v in body.layer.trainable_variables)
    alone = graph_body(split_at(single, small, last=True)[1], FinetuneRecipe())
    assert learning == sorted(int(np.prod(v.shape)) for v in alone.layer.trainable_variables)
    assert len(learning) < len(body.weights)
