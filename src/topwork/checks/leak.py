"""What a split that ignores copies would have claimed."""

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
    """What a split that knows nothing of copies would have done.

    `images` of its `tested` test images have a copy, or another of their group, among the training images; `accuracy`
    is what it would have claimed, with its 95 % `interval`.
    """

    images: int
    tested: int
    accuracy: float
    interval: Interval


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
