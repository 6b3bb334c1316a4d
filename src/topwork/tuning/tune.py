"""Fine-tuning from top to bottom: from a frozen classifier to a tuned one, kept only if it is better.

Tuned and frozen weights are interpolated with the share that does best on validation images (WiSE-FT: Wortsman et
al. 2022, "Robust fine-tuning of zero-shot models"), and so are the logits of the two networks (`blend`).
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.backbones.backbone import LAST, BackboneFacts
from topwork.classifiers.classifier import Classifier
from topwork.data.dataset import Dataset
from topwork.data.groups import group_numbers
from topwork.data.split import Splits
from topwork.errors import InputError
from topwork.features.extract import Features
from topwork.graphs import features as graphs
from topwork.graphs.cuts import Cut, depths, only_last, split_at
from topwork.graphs.trainable.layer import patch
from topwork.heads.head import softmax
from topwork.progress import Watch
from topwork.recipe import Recipe
from topwork.tuning.activations import store_activations
from topwork.tuning.blend import assembled, best_blend, can_blend, head_alone
from topwork.tuning.checkpoint import CHECKPOINT, Epoch, State, load_state
from topwork.tuning.choice import affordable_epochs
from topwork.tuning.data import TuningData, digest_of, held_apart, tuning_data
from topwork.tuning.inputs import Pictures, Stored
from topwork.tuning.learner import Body, Learner, Start, graph_body
from topwork.tuning.loop import fit, logits_of, step_seconds, steps_an_epoch
from topwork.tuning.native import native_backbone, native_body
from topwork.tuning.start import HeldScore, LossReduction, frozen_logits, head_layer, solve_start
from topwork.tuning.trial import Chosen, Tried, choose_cut

if TYPE_CHECKING:
    import openvino as ov

Array = np.ndarray[Any, Any]
MIXES = (0.25, 0.5, 0.75, 1.0)  # shares of the tuned weights that are tried
ACTIVATIONS, NATIVE = "activations", "native"


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """The result of a tuning."""

    classifier: Classifier
    better: bool  # whether its validation loss is clearly lower than the frozen features'
    before: HeldScore  # frozen features on the validation images
    after: HeldScore  # `classifier` on them
    saved: LossReduction  # from `before` to `after`
    mix: float  # share of the tuned weights in the tuned network, 0 to 1
    share: float  # of the tuned network in the logits; 1: the frozen one is not run beside it
    cut: Cut | None  # where the tail begins; None: the whole network was tuned
    tried: tuple[Tried, ...]  # the cuts of a trial, if there was one
    history: tuple[Epoch, ...]
    epochs: int  # planned
    learn: Dataset  # the training images
    held: Dataset  # the validation images
    held_probabilities: Array  # of `classifier` for them, float (M, K)
    seconds: dict[str, float]


def tune(
    frozen: Classifier, features: Features, splits: Splits, recipe: Recipe, *, folder: Path, watch: Watch
) -> Tuned:
    """Tune a classifier's network on its training images; no test image is used.

    The tuned network's head uses the last layer's features alone. Square roots of all stages' features, on which
    frozen heads do best, are steep near 0: networks hardly learn through them (docs/notes/elpv.md).

    Args:
        frozen: the classifier to start from and to compare with.
        features: its features for all images of `splits`.
        splits: the training part and, if any, the validation part: readable images.
        recipe: `finetune` has the settings.
        folder: for activations, checkpoint and curves.
        watch: receives progress.

    Raises:
        InputError: too few images, no such cut, or too little disk space allowed.
        TopworkError: the disk is full, or an operator can't be trained.
    """
    began = time.perf_counter()
    settings, facts, seed = recipe.finetune, frozen.backbone.facts, recipe.split.seed
    learn, held = held_apart(splits, recipe)
    both = learn.concatenate(held)
    pictures = Pictures(both, facts.size_px, facts.fit, settings.augment, seed)
    data = tuning_data(pictures, learn, held, features=features, frozen=frozen, recipe=recipe)
    folder.mkdir(parents=True, exist_ok=True)
    held_targets, weights = data.targets[data.held], data.weights[data.held]
    as_frozen = frozen_logits(
        features,
        learn,
        held,
        recipe,
        targets=held_targets,
        weights=weights,
        tensorboard=folder / "tensorboard",
    )
    before = HeldScore.of(as_frozen, held_targets, weights)
    watch.say(f"frozen features on {len(held)} validation images: {before}")
    single = graphs.single_view(frozen.backbone.graph)
    prefix, tail, chosen = None, only_last(single), Chosen(None, ())
    if settings.mode == "tail":
        chosen = choose_cut(
            frozen.backbone,
            single,
            data,
            both,
            recipe,
            folder=folder,
            digest=digest_of(single, data, recipe),
            watch=watch,
        )
        assert chosen.cut is not None
        watch.say(
            f"tuning the layers after {chosen.cut.name}: {100 * chosen.cut.tail_share:.0f} % of the network's work; "
            f"those before run once, for {settings.views} views of {len(both)} images"
        )
        prefix, tail = split_at(single, chosen.cut, last=True)
        data = dataclasses.replace(data, source=_store(both, prefix, facts, recipe, folder, watch))
    watch.say("solving the initial head")
    start = solve_start(tail, data, seed=seed)
    body = native_body(facts) if settings.native else graph_body(tail, settings, depth=depths(single))
    learner, state, first = _learn(body, start, data, recipe, tail, folder, began, watch)
    mix, logits = _mix(learner, data, first, state)
    blend = best_blend(
        None if settings.native or not can_blend(frozen.head) else as_frozen, logits, held_targets, weights
    )
    watch.say(f"the tuned network on them: {HeldScore.of(logits, held_targets, weights)}")
    if blend.share < 1:
        watch.say(f"blended with {100 - 100 * blend.share:.0f} % of the frozen one: {blend.score}")
    layer = head_layer(start, *(np.asarray(w) for w in learner.weights()[-2:]))
    if settings.native:
        backbone = native_backbone(body, facts, folder / NATIVE)
        classifier = Classifier(frozen.classes, backbone, (LAST,), head_alone(layer, blend))
    else:
        classifier = assembled(frozen, single, prefix, patch(tail, body.layer), chosen.cut, layer, blend)
    groups = np.array(group_numbers(held))
    saved = LossReduction.of(as_frozen, blend.logits / blend.temperature, held_targets, weights, groups)
    watch.say(f"against frozen features: {saved}")
    return Tuned(
        classifier=classifier,
        better=saved.clear,
        before=before,
        after=blend.score,
        saved=saved,
        mix=mix,
        share=blend.share,
        cut=chosen.cut,
        tried=chosen.tried,
        history=state.history,
        epochs=state.epochs,
        learn=learn,
        held=held,
        held_probabilities=softmax(blend.logits, blend.temperature),
        seconds={"total": round(time.perf_counter() - began, 3)},
    )


def _store(
    both: Dataset, prefix: ov.Model, facts: BackboneFacts, recipe: Recipe, folder: Path, watch: Watch
) -> Stored:
    settings = recipe.finetune
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
    return Stored(stored)


def _learn(
    body: Body,
    start: Start,
    data: TuningData,
    recipe: Recipe,
    tail: ov.Model,
    folder: Path,
    began: float,
    watch: Watch,
) -> tuple[Learner, State, list[Array]]:
    import keras

    settings, seed = recipe.finetune, recipe.split.seed
    keras.utils.set_random_seed(seed)
    digest = digest_of(tail, data, recipe)
    a_epoch = steps_an_epoch(len(data.learn), settings.batch)
    learner = Learner(body, start=start, recipe=settings, steps=settings.epochs * a_epoch)
    first = learner.weights()
    epochs = _planned(folder / CHECKPOINT, digest)
    if epochs is None:
        epoch_s = a_epoch * step_seconds(learner, data, settings)
        spent_s = time.perf_counter() - began
        epochs = affordable_epochs(settings, epoch_s=epoch_s, spent_s=spent_s)
        if epochs < settings.epochs:
            watch.say(
                f"an epoch takes {epoch_s:.0f} s, and {spent_s / 60:.1f} of {settings.minutes:g} minutes are used: "
                f"{epochs} of {settings.epochs} epochs"
            )
    learner.steps = epochs * a_epoch
    state = fit(
        learner,
        data,
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
    """How many epochs an interrupted tuning had planned; None if there is none."""
    state = load_state(checkpoint, digest=digest)
    if state is None and checkpoint.exists():
        raise InputError(
            f"{checkpoint}: expected the checkpoint of this tuning; it has other settings or photos, or is damaged: "
            "omit the settings to resume that tuning, or omit --resume to start over"
        )
    return state.epochs if state else None


def _mix(learner: Learner, data: TuningData, first: list[Array], state: State) -> tuple[float, Array]:
    """Set the learner to the best mix of initial and tuned weights; return its share and its validation logits.

    Each mix is judged by its validation log-loss at its own best temperature, so that underconfidence caused by
    label smoothing doesn't count against it.
    """
    targets, weights = data.targets[data.held], data.weights[data.held]

    def tried(share: float) -> tuple[float, float, float, Array]:
        learner.set_weights([(1 - share) * a + share * b for a, b in zip(first, state.best, strict=True)])
        logits = logits_of(learner, data.source, data.held)
        held = HeldScore.of(logits, targets, weights)
        return held.loss, -held.accuracy, share, logits

    best = min((tried(share) for share in MIXES), key=lambda t: t[:3])
    tried(best[2])
    return best[2], best[3]
