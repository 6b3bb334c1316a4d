"""Whether the doubt that a classifier states is true: calibration, sets of classes, strangers.

    python -m benchmarks.accuracy.doubt [--work FOLDER] [--size 128]

Each dataset is cut into four parts, groups whole; four classifiers are trained, each on three of them, and what they
say of the part left out is put together: so every picture is asked once, of a classifier that has not seen it. The
calibration error is a mean of absolute differences, and so above 0 for the best of classifiers: beside it stands what
it would be if the labels were drawn by the very probabilities that were stated (2,000 draws). The share of sets that
hold the truth has two intervals: the binomial one, and one by groups, since pictures of one font or one animal are
right or wrong together. Needs what benchmarks/data/packaged.py needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.packaged import write_dataset
from benchmarks.options import WORK, shared_options
from topwork.backbones.backbone import LAST, load_backbone
from topwork.classifiers.calibrate import calibrate
from topwork.classifiers.classifier import Classifier
from topwork.classifiers.novelty import Novelty
from topwork.data.groups import group_numbers
from topwork.data.sources import load
from topwork.data.split import Splits, folds
from topwork.evaluation.metrics import auroc, calibration_bins, expected_calibration_error
from topwork.evaluation.significance import wilson
from topwork.features.extract import Features, extract, open_store
from topwork.heads.fit import fit_head
from topwork.progress import Silent
from topwork.recipe import BackboneRecipe, Recipe

JUDGED = ("elpv-mono", "digits", "textures", "emoji-animals", "letters")
PARTS, DRAWS, COVERAGE = 4, 2000, 0.9

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What was said of the pictures of a dataset, each by the classifier that had not seen it.

    `targets`, `groups` int64 (N,); `probabilities` float (N, K); `least` (N,), how probable a class must be to be in
    the set; `novelty` (N,), above 1 for "none of these". `rules`: the rules of the four classifiers.
    """

    targets: Array
    groups: Array
    probabilities: Array
    least: Array
    novelty: Array
    rules: tuple[Novelty, ...]


def main() -> None:
    options = shared_options(__doc__, work=WORK, size=128).parse_args()
    recipe = Recipe(backbone=BackboneRecipe(size_px=options.size, precision="f32"))
    backbone = load_backbone(recipe.backbone.handle, size_px=options.size, precision="f32")
    with open_store(backbone.facts) as store:
        features = {
            name: extract(load(write_dataset(name, options.work)).with_split(None), backbone, store=store)
            for name in JUDGED
        }
        said = {name: ask(part, recipe, backbone) for name, part in features.items()}
        last = {name: part.matrix((LAST,)) for name, part in features.items()}
    print(
        "| data | pictures | right | calibration error | of a perfect one: mean (95 %) | sets of 90 % held the truth "
        "(95 % of 0.9) | the same, by groups | classes in a set | known pictures rejected (1 %) | AUROC against the "
        "other sets: mean, least |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for name, own in said.items():
        strange = [areas(own, last[other]) for other in JUDGED if other != name]
        print(row(name, own, strange), flush=True)


def ask(features: Features, recipe: Recipe, backbone: Any) -> Said:
    """Four classifiers, and what they say of the parts that they have not seen."""
    dataset = features.dataset
    part_of = folds(dataset, PARTS, seed=0)
    said: list[tuple[Array, ...]] = []
    rules = []
    for part in range(PARTS):
        learnt, asked = (dataset.select(np.flatnonzero(rows)) for rows in (part_of != part, part_of == part))
        splits = Splits(learnt, dataset.select([]), asked)
        fitted = fit_head(features, splits, recipe, tensorboard=Path(), watch=Silent())
        calibration = calibrate(features, splits, fitted, recipe)
        classifier = Classifier(dataset.classes, backbone, fitted.blocks, fitted.head, calibration)
        assert classifier.novelty is not None
        held = features.part(asked)
        novelty = classifier.novelty.score(held.matrix((LAST,)))
        least = np.full(len(asked), classifier.least_probability(COVERAGE))
        probabilities = classifier.probabilities(held.matrix(classifier.blocks))
        said.append(
            (
                asked.targets(),
                part * len(dataset) + np.array(group_numbers(asked)),
                probabilities,
                least,
                novelty,
            )
        )
        rules.append(classifier.novelty)
    joined = (np.concatenate(values) for values in zip(*said, strict=True))
    return Said(*joined, tuple(rules))


def areas(own: Said, strange: Array) -> float:
    """How well another set's pictures are told from the known ones: the mean over the four rules."""
    found = []
    for rule in own.rules:
        both = np.concatenate([own.novelty, rule.score(strange)])
        found.append(auroc(np.arange(len(both)) >= len(own.novelty), both) or 0.0)
    return float(np.mean(found))


def calibration_error(right: Array, sure: Array) -> float:
    return expected_calibration_error(calibration_bins(right, sure))


def perfect(sure: Array) -> Array:
    """The calibration error of draws from a world where what is said is true, float (DRAWS,)."""
    random = np.random.default_rng(0)
    return np.array([calibration_error(random.random(len(sure)) < sure, sure) for _ in range(DRAWS)])


def by_groups(values: Array, groups: Array) -> tuple[float, float]:
    """A 95 % interval of a mean whose terms come in groups: the standard error of a ratio of sums over groups."""
    of = np.unique(groups, return_inverse=True)[1]
    error = 1.96 * np.sqrt((np.bincount(of, values - values.mean()) ** 2).sum()) / len(values)
    return float(values.mean() - error), float(values.mean() + error)


def row(name: str, said: Said, strange: list[float]) -> str:
    n = len(said.targets)
    sure = said.probabilities.max(axis=1).astype(np.float64)
    right = said.probabilities.argmax(axis=1) == said.targets
    ideal = perfect(sure)
    low, high = np.quantile(ideal, (0.025, 0.975))
    own = said.probabilities[np.arange(n), said.targets]
    inside = own >= said.least
    least, most = wilson(COVERAGE * n, n)
    fewest, largest = by_groups(inside.astype(np.float64), said.groups)
    size = (said.probabilities >= said.least[:, None]).sum(axis=1).mean()
    return (
        f"| {name} | {n} | {100 * right.mean():.1f} % | {calibration_error(right, sure):.3f} | {ideal.mean():.3f} "
        f"({low:.3f} to {high:.3f}) | {inside.mean():.3f} ({least:.3f} to {most:.3f}) | {fewest:.3f} to "
        f"{largest:.3f} | {size:.2f} | {100 * (said.novelty > 1).mean():.1f} % | {np.mean(strange):.3f}, "
        f"{min(strange):.3f} |"
    )


if __name__ == "__main__":
    main()
