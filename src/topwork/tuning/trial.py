"""A short trial of a few cuts on some of the images: which tail learns most in the same time?"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.backbones.backbone import Backbone
from topwork.graphs.cuts import Cut, cut_named, depths, find_cuts, split_at
from topwork.tuning.activations import store_activations
from topwork.tuning.choice import affordable_cuts, forward_seconds, thinned, trial_seconds
from topwork.tuning.data import TuningData
from topwork.tuning.inputs import Stored
from topwork.tuning.learner import Learner, graph_body
from topwork.tuning.loop import logits_of
from topwork.tuning.start import HeldScore, solve_start

if TYPE_CHECKING:
    import openvino as ov

    from topwork.backbones.backbone import BackboneFacts
    from topwork.data.dataset import Dataset
    from topwork.progress import Watch
    from topwork.recipe import FinetuneRecipe, Recipe

Array = np.ndarray[Any, Any]
IMAGES, HELD = 640, 320  # the most training and validation images of a trial
STEPS = (
    24  # of the largest tail; a smaller one gets more, as its steps are cheaper, up to `MOST` times as many
)
MOST = 3.0
TIME_SHARE = 0.12  # of the time allowed: a trial that would take longer is skipped
CHOICE, TRIAL = "cut.json", "trial"


@dataclass(frozen=True, slots=True)
class Tried:
    """A cut and its tail's validation loss in the trial."""

    cut: str
    loss: float  # at its own best temperature


@dataclass(frozen=True, slots=True)
class Chosen:
    """Where the tail begins, and the trial's results, if there was one."""

    cut: Cut | None
    tried: tuple[Tried, ...]


def choose_cut(
    backbone: Backbone,
    single: ov.Model,
    data: TuningData,
    both: Dataset,
    recipe: Recipe,
    *,
    folder: Path,
    digest: str,
    watch: Watch,
) -> Chosen:
    """The requested cut; otherwise the affordable cut that a trial finds best.

    The choice depends on this machine's speed, so it is saved in `folder` for resuming a tuning with the same
    `digest`. The other arguments are those of `try_cuts`.

    Raises:
        InputError: there is no such cut, or none fits the allowed disk space.
    """
    settings, facts = recipe.finetune, backbone.facts
    cuts = find_cuts(single, facts.blocks)
    if settings.cut:
        return Chosen(cut_named(cuts, settings.cut), ())
    kept = _kept_choice(folder / CHOICE, digest)
    if kept is not None:
        return Chosen(cut_named(cuts, kept[0]), kept[1])
    one_view = Backbone(dataclasses.replace(facts, views="one"), single)
    forward_s = forward_seconds(one_view)
    allowed = thinned(affordable_cuts(cuts, settings, images=len(both), forward_s=forward_s))
    seconds = trial_seconds(allowed, settings, forward_s=forward_s, steps=STEPS)
    cut, tried = allowed[0], tuple[Tried, ...]()
    if len(allowed) > 1 and seconds <= TIME_SHARE * 60 * settings.minutes:
        tried = try_cuts(
            allowed,
            single,
            facts,
            data,
            both,
            settings,
            folder=folder / TRIAL,
            seed=recipe.split.seed,
            watch=watch,
        )
        best = min(tried, key=lambda one: one.loss)
        cut = cut_named(cuts, best.cut)
        told = ", ".join(f"{one.loss:.3f} after {one.cut}" for one in tried)
        watch.say(f"validation loss after the same short time: {told}")
    plain = {"digest": digest, "cut": cut.name, "tried": [dataclasses.asdict(one) for one in tried]}
    (folder / CHOICE).write_text(json.dumps(plain), encoding="utf-8")
    return Chosen(cut, tried)


def _kept_choice(path: Path, digest: str) -> tuple[str, tuple[Tried, ...]] | None:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain["digest"] != digest:
            return None
        return str(plain["cut"]), tuple(Tried(**one) for one in plain["tried"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def try_cuts(
    cuts: Sequence[Cut],
    graph: ov.Model,
    facts: BackboneFacts,
    data: TuningData,
    dataset: Dataset,
    recipe: FinetuneRecipe,
    *,
    folder: Path,
    seed: int,
    watch: Watch,
) -> tuple[Tried, ...]:
    """Train each tail for about the same time and compare the validation losses.

    All are parts of the largest tail with its lower layers frozen, so one set of activations is enough. Choosing
    the layers to tune by trial: Kaplun et al. 2023, "Less is more: selective layer finetuning with SubTuning".

    Args:
        cuts: largest tail first.
        graph: image to features, one view.
        facts: the network's.
        data: the training and validation rows of `dataset`; its source is not used.
        dataset: all images.
        recipe: the settings of the tuning.
        folder: for temporary activations.
        seed: of all randomness.
        watch: receives progress.
    """
    import keras

    random = np.random.default_rng([seed, 0x7415])
    learn, held = (
        np.sort(random.permutation(rows)[:most]) for rows, most in ((data.learn, IMAGES), (data.held, HELD))
    )
    rows = np.concatenate([learn, held])
    prefix, tail = split_at(graph, cuts[0], last=True)
    try:
        with watch.bar("activations of some", len(rows)) as progress:
            stored = store_activations(
                dataset.select(rows.tolist()),
                prefix,
                size_px=facts.size_px,
                fit=facts.fit,
                precision=facts.precision,
                recipe=recipe.augment,
                views=1,
                seed=seed,
                folder=folder,
                budget_bytes=int(recipe.disk_gb * 1e9),
                progress=progress,
            )
        some = dataclasses.replace(
            data,
            source=Stored(stored),
            learn=np.arange(len(learn)),
            held=np.arange(len(learn), len(rows)),
            targets=data.targets[rows],
            weights=data.weights[rows],
            folds=data.folds[rows],
        )
        start = solve_start(tail, some, seed=seed)
        steps = [round(STEPS * min(MOST, cuts[0].tail_share / cut.tail_share)) for cut in cuts]
        tried = []
        with watch.bar("trying cuts", sum(steps) * recipe.batch) as progress:
            for cut, count in zip(cuts, steps, strict=True):
                keras.utils.set_random_seed(seed)
                fixed = _before(cut, cuts[0], graph, tail)
                body = graph_body(tail, recipe, depth=depths(graph), fixed=fixed)
                learner = Learner(body, start=start, recipe=recipe, steps=count)
                for batch in _batches(some.learn, recipe.batch, count, seed):
                    inputs = some.source.plain(batch)
                    learner.learn(inputs, some.one_hot(batch), some.weights[batch].astype(np.float32))
                    progress(len(batch))
                learner.set_weights(learner.average)
                logits = logits_of(learner, some.source, some.held)
                held_score = HeldScore.of(logits, some.targets[some.held], some.weights[some.held])
                tried.append(Tried(cut.name, round(held_score.loss, 5)))
        return tuple(tried)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _before(cut: Cut, largest: Cut, graph: ov.Model, tail: ov.Model) -> frozenset[str]:
    """The names of the nodes of the largest tail that come before `cut`."""
    if cut == largest:
        return frozenset()
    _, after = split_at(graph, cut, last=True)
    names = [{node.get_friendly_name() for node in some.get_ordered_ops()} for some in (tail, after)]
    return frozenset(names[0] - names[1])


def _batches(rows: Array, size: int, count: int, seed: int) -> list[Array]:
    random = np.random.default_rng([seed, 0x7416])
    size = min(size, len(rows))
    order = np.concatenate([random.permutation(rows) for _ in range(-(-count * size // len(rows)))])
    return [order[i * size : (i + 1) * size] for i in range(count)]
