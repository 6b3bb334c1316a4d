"""The score that a split ignoring near-duplicates would have reported."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path

from topwork.backbones.backbone import LAST
from topwork.checks.groups import Checked
from topwork.data.dataset import Dataset
from topwork.data.groups import group_numbers
from topwork.data.split import Splits, splits_of
from topwork.errors import InputError
from topwork.evaluation.significance import Interval, wilson
from topwork.heads.fit import Fitted, fit_head
from topwork.progress import Silent
from topwork.recipe import FeatureChoice, Recipe


@dataclass(frozen=True, slots=True)
class Leak:
    """The leakage of a split that ignores near-duplicates and groups."""

    images: int  # test images with a copy, or another image of their group, among the training images
    tested: int  # test images
    accuracy: float  # that it would have reported
    interval: Interval  # of `accuracy`, 95 %


def leaked(checked: Checked, splits: Splits, fitted: Fitted, recipe: Recipe) -> Leak | None:
    """Evaluate a split that ignores groups; None if nothing would have leaked.

    Its head is of the same kind, on the same features, with the penalty chosen again.
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
