"""Grouping of near-duplicates, so that a split keeps them on one side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from topwork.backbones.backbone import LAST
from topwork.checks.copies import Group, duplicate_groups
from topwork.checks.looks import Looks, looks_of
from topwork.data.groups import joined
from topwork.features.extract import Features
from topwork.features.store import Store

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """Features of a checked data set."""

    features: Features  # with near-duplicates grouped in the data set
    looks: Looks
    groups: tuple[Group, ...]
    before: Features  # without this grouping


def check(features: Features, store: Store, progress: Callable[[int], None]) -> Checked:
    """Group near-duplicates.

    Args:
        features: of the pictures.
        store: their measurements, made with the features.
        progress: called with the number of pictures that were newly compared with the others.
    """
    looks = looks_of(store, features.dataset, features.keys)
    groups = copies(features, looks, progress)
    return Checked(keep_together(features, groups), looks, groups, features)


def copies(features: Features, looks: Looks, progress: Callable[[int], None]) -> tuple[Group, ...]:
    """The groups of near-duplicates."""
    return duplicate_groups(
        features.keys,
        features.rows((LAST,)),
        looks.thumbnails,
        of=features.store.fingerprint,
        progress=progress,
    )


def keep_together(features: Features, groups: tuple[Group, ...]) -> Features:
    """The same features, with each group of near-duplicates as one group of the data set."""
    return replace(features, dataset=joined(features.dataset, [group.rows for group in groups]))
