"""Predict whether fine-tuning would pay: the command `advise`."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from topwork.backbones.backbone import Backbone
from topwork.backbones.engine import Engine, Pixels
from topwork.data.dataset import Dataset
from topwork.data.split import Splits, splits_of
from topwork.errors import ImageError, TopworkError
from topwork.features.extract import Features
from topwork.images.decode import decode
from topwork.jobs.clock import Clock
from topwork.jobs.prepare import backbone_for, dataset_of, features_of
from topwork.parallel import stream
from topwork.progress import Silent, Watch
from topwork.recipe import Recipe
from topwork.tuning.advice.advice import Advice, advice_from
from topwork.tuning.advice.evidence import STEPS, evidence

TIMED = 16  # images on which the network's speed is measured
TIMED_S = 1.0  # seconds that this takes, after compilation
VIEWS = {"one": 1, "flip": 2, "dihedral": 8}


def advise(data: Dataset | str | Path, *, recipe: Recipe | None = None, watch: Watch | None = None) -> Advice:
    """Advise whether to fine-tune: keep the network frozen, tune its tail, or tune all of it.

    The features are computed once and stored, so a later training reuses them. The test part is not used.

    Args:
        data: a dataset, or anything that `topwork.load` takes.
        recipe: the settings of the training; None for the defaults.
        watch: receives progress.

    Raises:
        InputError: the data or a setting is invalid, or there are too few images.
        TopworkError: the features can't be stored.

    >>> advice = advise("photos")  # doctest: +SKIP
    >>> advice.mode, advice.forecast("tail").gain  # doctest: +SKIP
    ('tail', 2.1)
    """
    recipe, watch = recipe or Recipe(), watch or Silent()
    wanted, clock = recipe.split, Clock()
    dataset = dataset_of(data, recipe)
    splits_of(
        dataset, test=wanted.test, validation=wanted.validation, seed=wanted.seed
    )  # fail before the work
    backbone = backbone_for(dataset, recipe, watch)
    with features_of(dataset, backbone, recipe, watch, clock) as (features, _):  # split as in training
        splits = splits_of(features.dataset, test=wanted.test, validation=wanted.validation, seed=wanted.seed)
        return advise_on(features, splits, backbone, recipe=recipe, watch=watch)


def advise_on(
    features: Features, splits: Splits, backbone: Backbone, *, recipe: Recipe, watch: Watch
) -> Advice:
    """`advise`, for images that are already split and have features.

    Args:
        features: of all images of `splits`, in an open store.
        splits: the training part and, if any, the validation part; the test part is not used.
        backbone: the network.
        recipe: the settings of the training.
        watch: receives progress.

    Raises:
        InputError: there are too few images.
    """
    with watch.bar("evidence", STEPS) as progress:
        began = time.perf_counter()
        seen = evidence(features, splits, recipe, progress=progress)
        head_s = time.perf_counter() - began
    return advice_from(
        seen,
        measure_speed(backbone, splits.train),
        tuning=recipe.finetune,
        views=VIEWS[backbone.facts.views],
        head_s=head_s,
        data=features.dataset.name,
        backbone=str(backbone.facts),
    )


def measure_speed(backbone: Backbone, dataset: Dataset) -> float:
    """Forward passes per second of the engine on this machine, in f32, one view each; decoding excluded."""
    pixels = _some_pixels(backbone, dataset)
    infer = Engine(replace(backbone, facts=replace(backbone.facts, precision="f32")))
    infer(pixels[0])  # compile
    done, began = 0, time.perf_counter()
    while not done or time.perf_counter() - began < TIMED_S:
        with closing(stream(infer, pixels, workers=infer.workers)) as results:
            done += sum(1 for _ in results)
    return done * VIEWS[backbone.facts.views] / (time.perf_counter() - began)


def _some_pixels(backbone: Backbone, dataset: Dataset) -> list[Pixels]:
    facts, found = backbone.facts, []
    for example in dataset:
        try:
            found.append(decode(example.image.read(), facts.size_px, fit=facts.fit))
        except (ImageError, OSError):  # removed since its features were computed
            continue
        if len(found) == TIMED:
            break
    if not found:
        raise TopworkError(
            f"{dataset.name}: no image can be read any more; expected those read before: put the images back"
        )
    return found
