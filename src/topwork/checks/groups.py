"""What `train` does for its number to be believed: copies on one side, doubts told, a rule for what it never saw."""

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
    """Features whose data set has its copies in groups; how the pictures look; the groups; the features of before."""

    features: Features
    looks: Looks
    groups: tuple[Group, ...]
    before: Features


def check(features: Features, progress: Callable[[int], None]) -> Checked:
    """Look at the pictures, and keep those that are one picture together."""
    looks = look_at(features.dataset, features.keys, progress=progress)
    groups = copies(features, looks)
    return Checked(keep_together(features, groups), looks, groups, features)


def copies(features: Features, looks: Looks) -> tuple[Group, ...]:
    """The groups of pictures that are one picture."""
    return duplicate_groups(
        features.keys, features.matrix((LAST,)), looks.thumbnails, of=features.store.fingerprint
    )


def keep_together(features: Features, groups: tuple[Group, ...]) -> Features:
    """The same features, their data set's copies in one group each."""
    return replace(features, dataset=joined(features.dataset, [group.rows for group in groups]))
