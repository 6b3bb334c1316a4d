"""Grouping of near-duplicates, so that a split keeps them on one side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from topwork.backbones.backbone import LAST
from topwork.checks.copies import Group, duplicate_groups
from topwork.checks.looks import Looks, look_at
from topwork.data.groups import joined
from topwork.features.extract import Features

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """Features of a checked data set."""

    features: Features  # with near-duplicates grouped in the data set
    looks: Looks
    groups: tuple[Group, ...]
    before: Features  # without this grouping


def check(features: Features, progress: Callable[[int], None]) -> Checked:
    """Measure the pictures and group near-duplicates."""
    looks = look_at(features.dataset, features.keys, progress=progress)
    groups = copies(features, looks)
    return Checked(keep_together(features, groups), looks, groups, features)


def copies(features: Features, looks: Looks) -> tuple[Group, ...]:
    """The groups of near-duplicates."""
    return duplicate_groups(
        features.keys, features.matrix((LAST,)), looks.thumbnails, of=features.store.fingerprint
    )


def keep_together(features: Features, groups: tuple[Group, ...]) -> Features:
    """The same features, with each group of near-duplicates as one group of the data set."""
    return replace(features, dataset=joined(features.dataset, [group.rows for group in groups]))
