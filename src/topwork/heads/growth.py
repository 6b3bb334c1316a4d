"""The effect of more photos: a learning curve from stored features, and the class that would benefit most."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from topwork.evaluation.learning_curve import LearningCurve, fit_curve
from topwork.heads.fit import Fitted
from topwork.heads.linear import Solved
from topwork.parallel import one_blas_thread

SHARES = (0.125, 0.25, 0.5)  # of the training images; the full set is known from cross-validation
REPEATS = 3  # folds in which each share is tried;
MOST_WEIGHTS = 1 << 18  # only one, where a head has more
STEPS = len(SHARES) * REPEATS  # of the progress, at most
LEAST = 40  # fewest training images for a curve
WORTHWHILE = 0.002  # smallest gain in accuracy for which more photos of a class are suggested
MOST = 2.0  # times as many photos as a class has: the limit of the forecast

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Growth:
    """The learning curve, and the class for which more photos would help most."""

    curve: LearningCurve
    name: str | None  # of that class; None if no class stands out
    more: int  # how many more photos of it
    gain: float  # forecast rise of the overall accuracy, 0 to 1, by the class's share of errors and the curve's rate

    @property
    def sentences(self) -> tuple[str, ...]:
        """The result in words."""
        n = self.curve.sizes[-1]
        now, then = (100 * (1 - self.curve.error(size)) for size in (n, 2 * n))
        first = (
            f"Twice as many photos would bring about {then - now:.1f} points "
            f"({now:.1f} % with {n} training images, about {then:.1f} % with {2 * n}): an extrapolation."
        )
        if self.name is None:
            return (first, "No single class stands out as the one to photograph next.")
        return (
            first,
            f"About {self.more} more photos of {self.name!r} would help most: {100 * self.gain:.1f} points.",
        )


def growth(fitted: Fitted, progress: Callable[[int], None]) -> Growth | None:
    """Fit heads on parts of the training images and extrapolate; None with too few images or without folds.

    The curve is that of `learning_curve.fit_curve`. The penalty is the chosen head's, at all sizes.
    """
    unseen, said, fold_of = fitted.unseen, fitted.unseen_probabilities, fitted.fold_of
    if unseen is None or said is None or fold_of is None or len(unseen) < LEAST or fitted.solved is None:
        return None
    targets = unseen.targets()
    wrong = said.argmax(axis=1) != targets
    with one_blas_thread():
        points = _points(fitted.solved, fold_of, progress)
    learnt = round(len(unseen) * (1 - 1 / (int(fold_of.max()) + 1)))
    curve = fit_curve((*points, learnt), (*points.values(), float(wrong.mean())))
    # The curve is meant for all training images, though each fold's head was trained on slightly fewer.
    curve = LearningCurve(curve.sizes, curve.errors, curve.floor, curve.scale, curve.rate)
    name, more, gain = _neediest(unseen.classes, targets, wrong, curve)
    return Growth(curve, name, more, gain)


def _points(solved: Solved, fold_of: Array, progress: Callable[[int], None]) -> dict[int, float]:
    """The mean error for each mean number of training images; the coordinates are those of all images."""
    random, targets = np.random.default_rng(0), solved.targets
    classes = len(np.unique(targets))
    errors: dict[float, list[tuple[int, float]]] = {}
    repeats = REPEATS if classes * solved.images.coordinates.shape[1] <= MOST_WEIGHTS else 1
    for fold in range(min(repeats, int(fold_of.max()) + 1)):
        held = np.flatnonzero(fold_of == fold)
        rest = random.permutation(np.flatnonzero(fold_of != fold))
        for share in SHARES:
            rows = np.sort(rest[: max(classes, math.ceil(share * len(rest)))])
            progress(1)
            if len(np.unique(targets[rows])) < 2:
                continue
            said = solved.along(rows).logits(solved.images.coordinates[held])
            errors.setdefault(share, []).append(
                (len(rows), float((said.argmax(axis=1) != targets[held]).mean()))
            )
    return {
        round(float(np.mean([n for n, _ in pairs]))): float(np.mean([e for _, e in pairs]))
        for pairs in errors.values()
    }


def _neediest(
    classes: tuple[str, ...], targets: Array, wrong: Array, curve: LearningCurve
) -> tuple[str | None, int, float]:
    """The class that gains most per photo, if its errors fall along the curve with its own number of photos."""
    best: tuple[float, str | None, int, float] = (0.0, None, 0, 0.0)
    if curve.scale <= 0:
        return None, 0, 0.0
    reducible = 1 - curve.floor / max(curve.errors[-1], 1e-12)
    for i, name in enumerate(classes):
        own = targets == i
        count = int(own.sum())
        if not count:
            continue
        share = float((wrong & own).sum()) / len(targets) * max(0.0, reducible)
        more = min(math.ceil((MOST ** (1 / curve.rate) - 1) * count), math.ceil((MOST - 1) * count))
        gain = share * (1 - (count / (count + more)) ** curve.rate)
        if gain >= WORTHWHILE and gain / more > best[0]:
            best = (gain / more, name, _rounded(more), gain)
    return best[1:]


def _rounded(count: int) -> int:
    """Rounded to multiples of 5 in the second digit, as in 'about 40'."""
    size = 10 ** max(0, len(str(count)) - 2)
    return max(1, round(count / (5 * size)) * 5 * size) if count >= 10 else count
