"""The score that a split ignoring near-duplicates would have reported."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from topwork.checks.groups import Checked
from topwork.data.dataset import Dataset
from topwork.data.groups import group_numbers
from topwork.data.split import Splits, splits_of
from topwork.evaluation.significance import Interval, wilson
from topwork.heads.design import placed
from topwork.heads.fit import Fitted
from topwork.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Leak:
    """The leakage of a split that ignores near-duplicates and groups."""

    images: int  # test images with a copy, or another image of their group, among the training images
    tested: int  # test images
    accuracy: float  # that it would have reported
    interval: Interval  # of `accuracy`, 95 %


def leaked(checked: Checked, splits: Splits, fitted: Fitted, recipe: Recipe) -> Leak | None:
    """Evaluate a split that ignores groups; None if nothing would have leaked.

    Its head is of the same kind, on the same features, with the same penalty.
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
    if not caught or fitted.solved is None:
        return None
    if len(np.unique(naive.train.targets())) < len(bare.classes):
        return None
    solved, features = fitted.solved, checked.before
    x = features.part(naive.train).rows(fitted.blocks)
    again = solved.again(x, naive.train.targets(), naive.train.weights())
    tested = placed(solved.place, features.part(naive.test).rows(fitted.blocks))
    right = again.logits(tested).argmax(axis=1) == naive.test.targets()
    return Leak(caught, len(right), float(right.mean()), wilson(float(right.sum()), len(right)))
