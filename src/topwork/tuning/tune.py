"""How a network is tuned, top to bottom: from a frozen classifier to the better of it and its tuned self.

Tuned and frozen weights are mixed as validation images like best (WiSE-FT: Wortsman et al. 2022, "Robust
fine-tuning of zero-shot models"); where they like the frozen ones, those stay.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork import graph as graphs
from topwork.backbone import Backbone, retuned
from topwork.classifier import Classifier, targets_for
from topwork.data.dataset import Dataset
from topwork.data.split import Splits, split
from topwork.errors import InputError
from topwork.heads.head import Head, fit_temperature
from topwork.recipe import Recipe
from topwork.tuning.activations import store_activations
from topwork.tuning.checkpoint import Epoch, State, load_state
from topwork.tuning.choice import affordable_epochs, choose_cut, forward_seconds
from topwork.tuning.cuts import Cut, cut_named, find_cuts, join, split_at
from topwork.tuning.learner import Learner
from topwork.tuning.loop import Lesson, fit, logits_of, score, step_seconds, steps_an_epoch
from topwork.tuning.sources import Pictures, Stored
from topwork.tuning.start import head_layer, solve_start
from topwork.tuning.trainable import patch
from topwork.watch import Watch

if TYPE_CHECKING:
    import openvino as ov

Array = np.ndarray[Any, Any]
MIXES = (0.25, 0.5, 0.75, 1.0)  # shares of the tuned weights that are tried
CHECKPOINT, ACTIVATIONS = "checkpoint.npz", "activations"


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """What came of a tuning.

    `better`: whether validation images prefer `classifier` to the frozen one. `mix`: the share of the tuned
    weights, 0 to 1. `cut`: where the tail begins; None where the whole network learnt. `epochs`: how many were
    planned.
    """

    classifier: Classifier
    better: bool
    mix: float
    cut: Cut | None
    history: tuple[Epoch, ...]
    epochs: int
    seconds: dict[str, float]


def tune(frozen: Classifier, splits: Splits, recipe: Recipe, *, folder: Path, watch: Watch) -> Tuned:
    """Tune the network of a classifier on the images it learnt from; look at no test image.

    Args:
        frozen: what it begins with, and is measured against.
        splits: train, and, where there is one, validation: images that can be read.
        recipe: `finetune` has the settings.
        folder: for what is kept while it runs: activations, checkpoint, curves.
        watch: told of the progress.

    Raises:
        InputError: too few images, no such cut, or too little disk for what was asked.
        TopworkError: the disk is full; an operator that can't be trained.
    """
    began = time.perf_counter()
    settings, facts = recipe.finetune, frozen.backbone.facts
    learn, held = _parts(splits, recipe)
    both = learn.concatenate(held)
    lesson_rows = np.arange(len(both))
    single = graphs.single_view(frozen.backbone.graph)
    one_view = Backbone(dataclasses.replace(facts, views="one"), single)
    prefix, cut = None, None
    folder.mkdir(parents=True, exist_ok=True)
    if settings.mode == "full":
        tail = single
        source: Any = Pictures(both, facts.size_px, facts.fit, settings.augment, recipe.split.seed)
    else:
        cuts = find_cuts(single, facts.blocks)
        if settings.cut:
            cut = cut_named(cuts, settings.cut)
        else:
            forward_s = forward_seconds(one_view)
            cut = choose_cut(cuts, settings, images=len(both), forward_s=forward_s)
        watch.say(
            f"tuning what comes after {cut.name}: {100 * cut.tail_share:.0f} % of the network's work; what comes "
            f"before is run once, for {settings.views} views of {len(both)} images"
        )
        prefix, tail = split_at(single, cut)
        with watch.bar("activations", len(both)) as progress:
            stored = store_activations(
                both,
                prefix,
                size_px=facts.size_px,
                fit=facts.fit,
                precision=facts.precision,
                recipe=settings.augment,
                views=settings.views,
                seed=recipe.split.seed,
                folder=folder / ACTIVATIONS,
                budget_bytes=int(settings.disk_gb * 1e9),
                progress=progress,
            )
        source = Stored(stored)
    lesson = Lesson(
        source=source,
        learn=lesson_rows[: len(learn)],
        held=lesson_rows[len(learn) :],
        targets=targets_for(frozen, both),
        weights=both.weights(),
        class_count=len(frozen.classes),
    )
    columns = facts.columns(frozen.blocks)
    watch.say("solving the head that the tuning begins with")
    start = solve_start(tail, lesson, columns, seed=recipe.split.seed)
    learner, state, first = _learn(tail, cut, start, lesson, recipe, folder, began, watch)
    mix, better, logits = _mix(learner, lesson, first, state)
    kernel, bias = (np.asarray(w) for w in learner.weights()[-2:])
    graph = patch(tail, learner.layer)
    whole = graph if prefix is None else join(prefix, graph)
    whole.output(0).set_names({"features"})
    backbone = retuned(frozen.backbone, graphs.average_views(whole, facts.views))
    targets, weights = lesson.targets[lesson.held], lesson.weights[lesson.held]
    head = Head("linear", (head_layer(start, kernel, bias),), fit_temperature(logits, targets, weights))
    classifier = Classifier(frozen.classes, backbone, frozen.blocks, head)
    seconds = {"total": round(time.perf_counter() - began, 3)}
    return Tuned(
        classifier=classifier,
        better=better,
        mix=mix,
        cut=cut,
        history=state.history,
        epochs=state.epochs,
        seconds=seconds,
    )


def _parts(splits: Splits, recipe: Recipe) -> tuple[Dataset, Dataset]:
    if len(splits.validation):
        return splits.train, splits.validation
    unmarked = [dataclasses.replace(example, split=None) for example in splits.train]
    train = Dataset(tuple(unmarked), splits.train.classes, splits.train.name)
    parts = split(train, test=recipe.finetune.validation, seed=recipe.split.seed)
    if not len(parts.test):
        raise InputError(
            f"{train.name}: expected some images of each class to choose by while tuning; {len(train)} training "
            "images leave none: add photos, or keep the frozen network (--finetune head)"
        )
    return parts.train, parts.test


def _learn(
    tail: ov.Model,
    cut: Cut | None,
    start: Any,
    lesson: Lesson,
    recipe: Recipe,
    folder: Path,
    began: float,
    watch: Watch,
) -> tuple[Learner, State, list[Array]]:
    import keras

    settings, seed = recipe.finetune, recipe.split.seed
    keras.utils.set_random_seed(seed)
    digest = _digest(tail, lesson, recipe)
    a_epoch = steps_an_epoch(len(lesson.learn), settings.batch)
    learner = Learner(
        tail,
        early=cut.early if cut else 0,
        start=start,
        recipe=settings,
        steps=settings.epochs * a_epoch,
    )
    first = learner.weights()
    epochs = _planned(folder / CHECKPOINT, digest)
    if epochs is None:
        epoch_s = a_epoch * step_seconds(learner, lesson, settings)
        epochs = affordable_epochs(settings, epoch_s=epoch_s, spent_s=time.perf_counter() - began)
        if epochs < settings.epochs:
            watch.say(
                f"{settings.epochs} epochs would take {settings.epochs * epoch_s / 60:.0f} minutes: {epochs} in "
                f"the {settings.minutes:g} allowed"
            )
    learner.steps = epochs * a_epoch
    state = fit(
        learner,
        lesson,
        settings,
        epochs=epochs,
        seed=seed,
        checkpoint=folder / CHECKPOINT,
        digest=digest,
        curves=folder.parent / "tensorboard",
        watch=watch,
    )
    return learner, state, first


def _planned(checkpoint: Path, digest: str) -> int | None:
    state = load_state(checkpoint, digest=digest)
    return state.epochs if state else None


def _digest(tail: ov.Model, lesson: Lesson, recipe: Recipe) -> str:
    """All that the outcome depends on: the graph, the images, their labels and weights, the settings."""
    total = hashlib.sha256(graphs.digest(tail).encode())
    total.update(json.dumps(dataclasses.asdict(recipe), sort_keys=True).encode())
    for array in (lesson.learn, lesson.held, lesson.targets, lesson.weights):
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _mix(learner: Learner, lesson: Lesson, first: list[Array], state: State) -> tuple[float, bool, Array]:
    """Give the learner the best mix of first and best weights; its share, whether it beats the first, its logits.

    Each is judged on validation images by its log-loss at its own best temperature: smoothed labels make a network
    less sure than it should be, which is no fault. To beat the first, it must be as accurate, too.
    """
    targets, weights = lesson.targets[lesson.held], lesson.weights[lesson.held]

    def tried(share: float) -> tuple[float, float, float, Array]:
        learner.set_weights([(1 - share) * a + share * b for a, b in zip(first, state.best, strict=True)])
        logits = logits_of(learner, lesson.source, lesson.held)
        loss, right = score(logits / fit_temperature(logits, targets, weights), targets, weights)
        return loss, -right, share, logits

    frozen = tried(0.0)
    best = min((tried(share) for share in MIXES), key=lambda t: t[:3])
    tried(best[2])
    return best[2], best[0] < frozen[0] and best[1] <= frozen[1], best[3]
