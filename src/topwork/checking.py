"""What `train` does for its number to be believed: copies on one side, doubts told, a rule for what it never saw."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from topwork.backbone import LAST
from topwork.calibration import Calibration, calibration_of
from topwork.checks.duplicates import Group
from topwork.checks.findings import Audit
from topwork.checks.inspection import (
    copies,
    fold_count,
    inspect,
    keep_together,
    unseen_probabilities,
)
from topwork.checks.looks import Looks, look_at
from topwork.classifier import Classifier
from topwork.data.dataset import Dataset, Problem
from topwork.data.grouping import group_numbers
from topwork.data.split import Splits, folds, splits_of
from topwork.errors import InputError
from topwork.features import Features
from topwork.heads.fitting import Fitted, fit_head
from topwork.novelty import fit_novelty
from topwork.recipe import FeatureChoice, Recipe
from topwork.significance import Interval, wilson
from topwork.watch import Silent

LEAST = 20  # images, before labels are doubted

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """Features whose data set has its copies in groups; how the pictures look; the groups; the features of before."""

    features: Features
    looks: Looks
    groups: tuple[Group, ...]
    before: Features


@dataclass(frozen=True, slots=True)
class Leak:
    """What a split that knows nothing of copies would have done.

    `images` of its `tested` test images have a copy, or another of their group, among the training images; `accuracy`
    is what it would have claimed, with its 95 % `interval`.
    """

    images: int
    tested: int
    accuracy: float
    interval: Interval


def check(features: Features, progress: Callable[[int], None]) -> Checked:
    """Look at the pictures, and keep those that are one picture together."""
    looks = look_at(features.dataset, features.keys, progress=progress)
    groups = copies(features, looks)
    return Checked(keep_together(features, groups), looks, groups, features)


def calibrate(features: Features, splits: Splits, fitted: Fitted, recipe: Recipe) -> Calibration | None:
    """The rule for "none of these", from the training images; scores for sets of classes, from held-out ones."""
    from threadpoolctl import threadpool_limits

    novelty = None
    train = splits.train.with_split(None)
    if recipe.head.reject > 0 and max(group_numbers(train)) > 0:
        x = features.part(splits.train).matrix((LAST,))
        # On a busy machine, threads that wait for each other made this twenty times slower.
        with threadpool_limits(1, user_api="blas"):
            novelty = fit_novelty(
                x,
                train.targets(),
                folds(train, fold_count(train, recipe), seed=recipe.split.seed),
                class_count=len(train.classes),
                rate=recipe.head.reject,
            )
    if fitted.unseen is None or fitted.unseen_probabilities is None:
        if novelty is None:
            return None
        return Calibration(novelty, np.zeros(0, np.float32), 0)
    return calibration_of(novelty, fitted.unseen.targets(), fitted.unseen_probabilities)


def audited(
    checked: Checked,
    classifier: Classifier,
    splits: Splits,
    fitted: Fitted,
    recipe: Recipe,
    problems: tuple[Problem, ...],
) -> Audit:
    """The audit of a training's images, from what the training has computed anyway."""
    features = checked.features
    if fitted.fold_of is not None and fitted.unseen_probabilities is not None:
        # What learnt from none of the test images may judge them; the training images, each fold's own head.
        seen = classifier.probabilities(features.matrix(classifier.blocks)).astype(np.float64)
        rows = {e.id: i for i, e in enumerate(features.dataset)}
        seen[[rows[e.id] for e in splits.train]] = fitted.unseen_probabilities
    elif len(features.dataset) >= LEAST:
        seen = unseen_probabilities(features, recipe)
    else:  # too few for folds: nothing is doubted
        seen = np.eye(len(classifier.classes))[features.dataset.targets()]
    findings = inspect(features, checked.looks, checked.groups, seen, problems)
    dataset = features.dataset
    together = tuple(tuple(dataset[row].id for row in group.rows) for group in checked.groups)
    return Audit(dataset.name, len(dataset), dataset.class_counts(), findings, together, {})


def leaked(checked: Checked, splits: Splits, fitted: Fitted, recipe: Recipe) -> Leak | None:
    """What a split blind to groups would have leaked and claimed; None where nothing would have leaked.

    Its head is of the same kind, on the same features, its strength chosen anew.
    """
    dataset = checked.before.dataset
    grouped = checked.features.dataset
    if {e.split for e in dataset} != {None} or all(e.group is None for e in grouped):
        return None
    bare = Dataset(tuple(dataclasses.replace(e, group=None) for e in dataset), dataset.classes, dataset.name)
    wanted = recipe.split
    naive = splits_of(bare, test=wanted.test, validation=wanted.validation, seed=wanted.seed)
    number = dict(zip((e.id for e in grouped), group_numbers(grouped), strict=True))
    learnt = {number[e.id] for part in (naive.train, naive.validation) for e in part}
    caught = sum(number[e.id] in learnt for e in naive.test)
    if not caught or fitted.head.kind not in ("linear", "kernel"):
        return None
    features = replace(checked.before, dataset=bare)
    choice: FeatureChoice = "last" if fitted.blocks == (LAST,) else "stages"
    same = replace(recipe, head=replace(recipe.head, features=choice))
    try:
        again = fit_head(features, naive, same, tensorboard=Path(), watch=Silent())
    except InputError:
        return None
    tested = features.part(naive.test)
    right = again.head.logits(tested.matrix(again.blocks)).argmax(axis=1) == naive.test.targets()
    return Leak(caught, len(right), float(right.mean()), wilson(float(right.sum()), len(right)))
