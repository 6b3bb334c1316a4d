"""Fitting a head to features and splits; features and settings are chosen on held-out images alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topwork.backbones.backbone import LAST, LAST_ROOTED
from topwork.data.dataset import Dataset
from topwork.data.groups import group_numbers
from topwork.data.split import Splits, folds
from topwork.errors import InputError
from topwork.features.extract import Features
from topwork.heads.choose import STRENGTHS, Step
from topwork.heads.design import EXACT
from topwork.heads.head import Head, fit_temperature, softmax
from topwork.heads.kernel import fit_kernel
from topwork.heads.linear import LinearFit, Solved, fit_linear, probe_linear
from topwork.heads.mlp import EpochLog, StepLog, fit_mlp
from topwork.parallel import one_blas_thread
from topwork.progress import Watch
from topwork.recipe import Recipe

PROBED = 1500  # training images on which features are chosen, of more than can be solved exactly
WORTH_THREADS = 1000  # images from which on two heads are fitted at once
STEPS = len(STRENGTHS)
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A set of features that was tried, with its held-out scores."""

    features: str
    width: int
    strength: float
    held_out_loss: float
    held_out_accuracy: float
    images: int  # training images that it was tried on


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted head and how it was chosen."""

    head: Head
    blocks: tuple[str, ...]  # the features that it uses
    candidates: tuple[Candidate, ...]  # from which it was chosen, best first
    held_out: str  # how the held-out images were chosen; empty if nothing was chosen
    unseen: Dataset | None = None  # the held-out images, if any
    unseen_probabilities: Array | None = None  # of `unseen`, float32 (M, K), by heads not trained on them
    fold_of: Array | None = None  # int64 (M,), the folds of `unseen`, if any
    solved: Solved | None = None  # the images as a linear or kernel head was solved on them


def fit_head(
    features: Features, splits: Splits, recipe: Recipe, *, tensorboard: Path, watch: Watch
) -> Fitted:
    """Fit the head that `recipe.head` names on the training part; the test part is not used.

    Raises:
        InputError: too few training images for the head.
    """
    if recipe.head.kind in ("linear", "kernel"):
        return _fit_path(features, splits, recipe, watch)
    if recipe.head.kind == "mlp":
        return _fit_mlp(features, splits, recipe, tensorboard, watch)
    return _fit_centroid(features, splits, recipe)


def sample_weights(targets: Array, given: Array, class_count: int, *, balanced: bool) -> Array:
    """The images' own weights; if balanced, scaled to equal class sums with the same mean."""
    if not balanced:
        return given
    totals = np.bincount(targets, given, minlength=class_count)
    return np.asarray(given * (given.sum() / np.count_nonzero(totals) / totals[targets]))


def _fit_path(features: Features, splits: Splits, recipe: Recipe, watch: Watch) -> Fitted:
    train, validation = splits.train, splits.validation
    if not len(validation):
        _fold_count(train, recipe)  # fail before the work
    choices = {"last": (LAST,), "stages": _stages(features)}
    wanted = list(choices) if recipe.head.features == "auto" else [recipe.head.features]
    if choices["stages"] == choices["last"]:
        wanted = ["last"]
    few, few_held = train, validation
    if (
        len(wanted) > 1 and len(train) > EXACT
    ):  # one choice is made on some images, and its head fitted on all
        few, few_held = _some(train, recipe), _some(validation, recipe)
    steps = len(wanted) * STEPS + (STEPS if few is not train else 0)
    fit_along = fit_kernel if recipe.head.kind == "kernel" else fit_linear
    # The limit lies around the threads: each would set it back for the others when it ends.
    with watch.bar("head", steps) as progress, one_blas_thread():

        def fit(name: str) -> tuple[Candidate, LinearFit | None, Array | None]:
            problem = _problem(features, choices[name], few, few_held, recipe)
            if few is not train and recipe.head.kind == "linear":
                probed = probe_linear(**problem, progress=progress)
                return _candidate(features, choices[name], name, few, probed), None, None
            found = fit_along(**problem, progress=progress)
            return _candidate(features, choices[name], name, few, found), found, problem["folds"]

        # Few images leave little to do at once: Python itself would be what two threads wait for.
        with ThreadPoolExecutor(len(wanted) if len(few) >= WORTH_THREADS else 1) as pool:
            fits = sorted(pool.map(fit, wanted), key=lambda one: one[0].held_out_loss)
        chosen, best, fold_of = fits[0]
        if best is None or few is not train:
            problem = _problem(features, choices[chosen.features], train, validation, recipe)
            best, fold_of = fit_along(**problem, progress=progress), problem["folds"]
            chosen = _candidate(features, choices[chosen.features], chosen.features, train, best)
    held_out = (
        f"{int(fold_of.max()) + 1}-fold cross-validation" if fold_of is not None else "the validation images"
    )
    return Fitted(
        best.head,
        choices[chosen.features],
        (chosen, *(candidate for candidate, _, _ in fits[1:])),
        held_out,
        unseen=validation if fold_of is None else train,
        unseen_probabilities=softmax(best.held_out_logits, best.head.temperature).astype(np.float32),
        fold_of=fold_of,
        solved=best.solved,
    )


def _problem(
    features: Features, blocks: tuple[str, ...], train: Dataset, validation: Dataset, recipe: Recipe
) -> dict[str, Any]:
    """What `fit_linear` and its like take: some blocks of the training images, and what is held out."""
    targets, weights = _learnt(train, recipe)
    fold_of, held = None, None
    if len(validation):
        held = (features.part(validation).rows(blocks), *_learnt(validation, recipe))
    else:
        fold_of = folds(train, _fold_count(train, recipe), seed=recipe.split.seed)
    return {
        "x": features.part(train).rows(blocks),
        "targets": targets,
        "class_count": len(train.classes),
        "weights": weights,
        "folds": fold_of,
        "validation": held,
    }


def _candidate(
    features: Features, blocks: tuple[str, ...], name: str, train: Dataset, found: LinearFit | Step
) -> Candidate:
    width = sum(b.stop - b.start for b in features.facts.blocks if b.name in blocks)
    return Candidate(name, width, found.strength, found.held_out_loss, found.held_out_accuracy, len(train))


def _some(part: Dataset, recipe: Recipe) -> Dataset:
    """About `PROBED` images of a part, whole groups, of each class its share."""
    if len(part) <= PROBED:
        return part
    fold_of = folds(part.with_split(None), -(-len(part) // PROBED), seed=recipe.split.seed)
    return part.select(np.flatnonzero(fold_of == 0))


def _fit_mlp(features: Features, splits: Splits, recipe: Recipe, tensorboard: Path, watch: Watch) -> Fitted:
    from topwork.storage.tensorboard import scalars

    blocks = _one_choice(features, recipe)
    train, validation = splits.train, splits.validation
    if not len(validation):  # the validation curve and the temperature need held-out images
        fold_of = folds(train, _fold_count(train, recipe), seed=recipe.split.seed)
        train, validation = train.select(np.flatnonzero(fold_of)), train.select(np.flatnonzero(fold_of == 0))
    held_x = features.part(validation).matrix(blocks)
    held_targets, held_weights = _learnt(validation, recipe)
    targets, weights = _learnt(train, recipe)
    # Products of 32 rows are too small to share: threads cost more by waiting for each other than they save.
    with one_blas_thread(), scalars(tensorboard) as log:

        def on_step(step: StepLog) -> None:
            watch.say(f"step {step.step:5d}  loss {step.loss:.4f}  accuracy {step.accuracy:.4f}")
            log.train(step.step, loss=step.loss, accuracy=step.accuracy)

        def on_epoch(epoch: EpochLog) -> None:
            watch.say(
                f"epoch {epoch.epoch:2d}  validation loss {epoch.validation_loss:.4f}  "
                f"accuracy {epoch.validation_accuracy:.4f}"
            )
            log.validation(epoch.step, loss=epoch.validation_loss, accuracy=epoch.validation_accuracy)

        fit = fit_mlp(
            features.part(train).matrix(blocks),
            targets,
            class_count=len(train.classes),
            weights=weights,
            validation=(held_x, held_targets, held_weights),
            on_step=on_step,
            on_epoch=on_epoch,
        )
    head = _calibrated(fit.head, held_x, held_targets, held_weights)
    return Fitted(head, blocks, (), "", unseen=validation, unseen_probabilities=head.probabilities(held_x))


def _fit_centroid(features: Features, splits: Splits, recipe: Recipe) -> Fitted:
    from topwork.heads.centroid import fit_centroid

    blocks = _one_choice(features, recipe)
    targets, weights = _learnt(splits.train, recipe)
    x = features.part(splits.train).matrix(blocks)
    return Fitted(
        fit_centroid(x, targets, class_count=len(splits.train.classes), weights=weights), blocks, (), ""
    )


def _one_choice(features: Features, recipe: Recipe) -> tuple[str, ...]:
    """The blocks for a head that tries only one choice: "auto" is then the last layer, as in the textbook."""
    if recipe.head.features == "stages":
        return _stages(features)
    return (LAST,)


def _stages(features: Features) -> tuple[str, ...]:
    """All blocks, with the last layer only in its rooted form, if it has one."""
    names = tuple(b.name for b in features.facts.blocks)
    return tuple(name for name in names if name != LAST) if LAST_ROOTED in names else names


def _learnt(part: Any, recipe: Recipe) -> tuple[Array, Array]:
    targets = part.targets()
    balanced = recipe.head.class_weight == "balanced"
    return targets, sample_weights(targets, part.weights(), len(part.classes), balanced=balanced)


def _calibrated(head: Head, x: Array, targets: Array, weights: Array) -> Head:
    smoothing = 1 / (len(targets) + 2)  # Laplace's rule: a few correct images don't prove certainty
    return Head(
        head.kind, head.layers, fit_temperature(head.logits(x), targets, weights, smoothing=smoothing)
    )


def _fold_count(train: Dataset, recipe: Recipe) -> int:
    n, groups = len(train), max(group_numbers(train)) + 1
    if n >= 4 and groups < 2:
        raise InputError(
            f"expected training images of at least two groups to choose settings by cross-validation; all {n} are of "
            "one: add images of another, or use --head centroid, which has no settings"
        )
    if n < 4:
        raise InputError(
            f"expected at least 4 training images to choose settings by cross-validation; got {n}: "
            "add photos, or use --head centroid, which has no settings"
        )
    return min(recipe.split.folds, n // 2, groups)


def cross_validated(fitted: Fitted) -> tuple[float, ...]:
    """The accuracy in each fold, 0 to 1; empty without folds. Their spread shows the effect of sampling.

    Slightly optimistic as a score, since the penalty was chosen on the same images.
    """
    if fitted.fold_of is None or fitted.unseen is None or fitted.unseen_probabilities is None:
        return ()
    right = fitted.unseen_probabilities.argmax(axis=1) == fitted.unseen.targets()
    return tuple(float(right[fitted.fold_of == f].mean()) for f in range(int(fitted.fold_of.max()) + 1))


def fold_count(dataset: Dataset, recipe: Recipe) -> int:
    """The number of folds: as in the recipe, but at most one per group and half the images."""
    return max(2, min(recipe.split.folds, len(dataset) // 2, max(group_numbers(dataset)) + 1))
