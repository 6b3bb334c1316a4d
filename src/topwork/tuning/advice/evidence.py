"""Measurements of a frozen network's features on a dataset, on which the advice is based.

Everything is measured by cross-validation on training images; the test part is not used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from topwork.backbones.backbone import LAST, LAST_ROOTED
from topwork.data.dataset import Dataset
from topwork.data.split import Splits, folds
from topwork.errors import InputError
from topwork.evaluation.learning_curve import LearningCurve, fit_curve
from topwork.evaluation.significance import Interval, wilson
from topwork.features.extract import Features
from topwork.heads.linear import LinearFit, fit_linear
from topwork.progress import Advance
from topwork.recipe import Recipe
from topwork.tuning.advice.geometry import class_separation, neighbour_share

Array = np.ndarray[Any, np.dtype[Any]]

LIMIT = 4000  # most images used: more would change the evidence less than its own uncertainty
PROBE_LIMIT = 1500  # for the probes of single blocks, of which only the gaps matter
EARLY = 2 / 3  # the depth up to which a block counts as early
PLACES = 6  # probed blocks, evenly spaced from the first to the last
STRENGTHS = (1.0, 0.1, 0.01, 1e-3, 1e-4)  # of a head's penalty: a coarser path than in training
SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)  # of the training images, for the learning curve
REPEATS = 2  # folds that the learning curve holds out, one at a time
STEPS = PLACES + 4  # progress steps of `evidence`


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear head on the features of one block alone."""

    block: str
    depth: float  # 0 first, 1 last
    accuracy: float  # on held-out images


@dataclass(frozen=True, slots=True)
class Evidence:
    """The measurements. Accuracies are shares, 0 to 1, on held-out images."""

    images: int  # training and validation images
    classes: int
    smallest_class: int  # images of the rarest class
    probed: int  # images used
    chance: float  # share of the most frequent class
    last: float  # a linear head's accuracy on the last layer
    stages: float  # and on all stages
    interval: Interval  # of the better one, 95 %
    probes: tuple[Probe, ...]  # on the same images; the last layer's at the end
    separation: float  # distance of class means over the spread within classes (last layer)
    neighbours: float  # share of images whose nearest neighbour by cosine has the same class (last layer)
    curve: LearningCurve  # of the better features

    @property
    def accuracy(self) -> float:
        """The better frozen head's accuracy."""
        return max(self.last, self.stages)

    @property
    def headroom(self) -> float:
        """The better frozen head's error rate: the most that tuning can gain."""
        return 1 - self.accuracy

    @property
    def stage_gap(self) -> float:
        """By how much all stages beat the last layer: large if the pictures are unlike the pretraining data."""
        return self.stages - self.last

    @property
    def early_gap(self) -> float:
        """By how much the best single block of the first two thirds beats the last layer, on the same images."""
        last = self.probes[-1].accuracy
        early = [probe.accuracy for probe in self.probes if probe.depth <= EARLY]
        return max(early, default=last) - last


def evidence(
    features: Features, splits: Splits, recipe: Recipe, *, progress: Advance | None = None
) -> Evidence:
    """Measure a frozen network's features on the training and validation images of `splits`.

    Probing block by block follows Alain and Bengio, "Understanding intermediate layers using linear classifier
    probes", 2016. Lower blocks transfer better the less the pictures resemble the pretraining data: Yosinski et
    al., "How transferable are features in deep neural networks?", 2014.

    Args:
        features: of at least those images.
        splits: the parts; `splits.test` is not used.
        recipe: for the number of folds and the seed.
        progress: called after each of `STEPS` steps.

    Raises:
        InputError: fewer than two classes, two images of a class, or two groups.
    """
    from threadpoolctl import threadpool_limits

    learnt = _learnt(splits)
    _check(learnt)
    # Many small products: on a busy machine, threads cost more by waiting for each other than they save.
    with threadpool_limits(1, user_api="blas"):
        return _measure(features, learnt, recipe, progress or (lambda n: None))


def _measure(features: Features, learnt: Dataset, recipe: Recipe, step: Advance) -> Evidence:
    targets = learnt.targets()
    random = np.random.default_rng(recipe.split.seed)
    seen = learnt if len(learnt) <= LIMIT else learnt.select(_nested(targets, random)[:LIMIT])
    validator = _CrossValidator(features, seen, recipe)
    step(1)
    last_fit = validator.fit((LAST,))
    step(1)
    names = tuple(block.name for block in features.facts.blocks)
    every = tuple(n for n in names if n != LAST) if LAST_ROOTED in names else names
    stages_fit = validator.fit(every) if every != (LAST,) else last_fit
    step(1)
    last, stages = _accuracy(last_fit), _accuracy(stages_fit)
    few = _CrossValidator(features, seen.select(_nested(validator.targets, random)[:PROBE_LIMIT]), recipe)
    probes = []
    for name, depth in _places(names):
        probes.append(Probe(name, depth, _accuracy(few.fit((name,)))))
        step(1)
    step(PLACES + 1 - len(probes))
    x = validator.matrix((LAST,))
    counts = np.bincount(targets)
    return Evidence(
        images=len(learnt),
        classes=len(counts),
        smallest_class=int(counts.min()),
        probed=len(seen),
        chance=float(counts.max() / counts.sum()),
        last=last,
        stages=stages,
        interval=wilson(max(last, stages) * len(seen), len(seen)),
        probes=tuple(probes),
        separation=class_separation(x, validator.targets),
        neighbours=neighbour_share(x, validator.targets, validator.groups),
        curve=validator.curve((LAST,) if last > stages else every, random),
    )


class _CrossValidator:
    """Some images with their folds; fits heads on blocks of their features."""

    def __init__(self, features: Features, dataset: Dataset, recipe: Recipe) -> None:
        self._features = features.part(dataset)
        self.targets = dataset.targets()
        self.groups = _groups(dataset)
        self._weights = dataset.weights()
        self._classes = len(dataset.classes)
        count = min(recipe.split.folds, len(dataset) // 2, int(self.groups.max()) + 1)
        self._folds = folds(dataset, count, seed=recipe.split.seed)

    def matrix(self, blocks: tuple[str, ...]) -> Array:
        """float32 (N, D)"""
        return self._features.matrix(blocks)

    def fit(self, blocks: tuple[str, ...]) -> LinearFit:
        """Fit a head on some blocks, with its cross-validated accuracy."""
        return fit_linear(
            self.matrix(blocks),
            self.targets,
            class_count=self._classes,
            weights=self._weights,
            folds=self._folds,
            strengths=STRENGTHS,
        )

    def curve(self, blocks: tuple[str, ...], random: np.random.Generator) -> LearningCurve:
        """The penalty is chosen on the held-out images at every size alike, as only the curve's shape matters."""
        x = self.matrix(blocks)
        errors: dict[float, list[tuple[int, float]]] = {}
        for repeat in range(min(REPEATS, int(self._folds.max()) + 1)):
            held, rest = np.flatnonzero(self._folds == repeat), np.flatnonzero(self._folds != repeat)
            rest = rest[_nested(self.targets[rest], random)]
            validation = (x[held], self.targets[held], self._weights[held])
            for share in SHARES:
                rows = rest[: min(len(rest), max(self._classes, math.ceil(share * len(rest))))]
                fit = fit_linear(
                    x[rows],
                    self.targets[rows],
                    class_count=self._classes,
                    weights=self._weights[rows],
                    validation=validation,
                    strengths=STRENGTHS,
                )
                errors.setdefault(share, []).append((len(rows), 1 - _accuracy(fit)))
        points = {
            round(float(np.mean([n for n, _ in pairs]))): float(np.mean([e for _, e in pairs]))
            for pairs in errors.values()
        }
        return fit_curve(tuple(points), tuple(points.values()))


def _accuracy(fit: LinearFit) -> float:
    return next(step.held_out_accuracy for step in fit.steps if step.strength == fit.strength)


def _learnt(splits: Splits) -> Dataset:
    """Training and validation images; classes without images are dropped."""
    dataset = splits.train.with_split(None)
    if len(splits.validation):
        dataset = dataset.concatenate(splits.validation.with_split(None))
    return dataset


def _check(dataset: Dataset) -> None:
    counts = dataset.class_counts()
    if len(counts) < 2:
        raise InputError(
            f"{dataset.name}: expected at least two classes; got {len(counts)}: "
            "put each class's images into a folder of its own"
        )
    for name, count in counts.items():
        if count < 2:
            raise InputError(
                f"{dataset.name}: expected at least 2 training images of every class, one to train on and one to "
                f"hold out; {name!r} has {count} that can be read: add some, or leave the class out"
            )
    if len(set(_groups(dataset).tolist())) < 2:
        raise InputError(
            f"{dataset.name}: expected training images of at least two groups, so that one can be held out; "
            f"all {len(dataset)} are of one group: add images of another, or train without groups"
        )


def _groups(dataset: Dataset) -> Array:
    """Each image's group as a number from 0, int64 (N,); an image without a group is its own group."""
    numbers: dict[tuple[str, str], int] = {}
    return np.array(
        [
            numbers.setdefault(("id", e.id) if e.group is None else ("group", e.group), len(numbers))
            for e in dataset
        ],
        np.int64,
    )


def _nested(targets: Array, random: np.random.Generator) -> Array:
    """An order of all rows: one of each class first; after that, every prefix has the classes' proportions."""
    order = random.permutation(len(targets))
    place = np.empty(len(targets))
    for k in np.unique(targets):
        mine = order[targets[order] == k]
        place[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
        place[mine[0]] = 0.0
    return np.asarray(order[np.argsort(place[order], kind="stable")])


def _places(names: tuple[str, ...]) -> list[tuple[str, float]]:
    """Evenly spaced blocks and their depths, the last layer at the end."""
    before = [name for name in names if name not in (LAST, LAST_ROOTED)]
    at = sorted({round(i) for i in np.linspace(0, len(before) - 1, min(PLACES, len(before))).tolist()})
    return [*((before[i], i / len(before)) for i in at), (LAST, 1.0)]
