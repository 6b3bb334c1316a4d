"""Inspection of a data set: from features, looks and labels to findings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from topwork.backbones.backbone import LAST
from topwork.checks.copies import Group
from topwork.checks.findings import KINDS, Audit, Finding, Suggestion
from topwork.checks.groups import Checked
from topwork.checks.labels import doubted_labels
from topwork.checks.looks import Looks
from topwork.checks.oddities import Oddity, odd_pictures, outliers
from topwork.data.dataset import Dataset, Problem
from topwork.data.groups import group_numbers, joined
from topwork.data.split import Splits, folds
from topwork.features.extract import Features
from topwork.heads.choose import choose
from topwork.heads.design import Rows, images_of
from topwork.heads.fit import Fitted, fold_count
from topwork.heads.head import softmax
from topwork.parallel import one_blas_thread
from topwork.recipe import Recipe
from topwork.storage.results import remembered

FEW = 10  # a class with fewer pictures is reported as too small
# Penalties of the head that finds mislabelled images: strong, so that it doesn't memorise wrong labels.
STRENGTHS = (0.1, 0.0316, 0.01, 3.16e-3, 1e-3)
TOLERANCE = 1e-4  # a label stands out by far more than the last steps change
AGAIN = 2  # how often the head is fitted: the second time without the labels that seemed wrong
Array = np.ndarray[Any, np.dtype[Any]]
METHOD = 3  # of `unseen_probabilities`; increase it whenever its results may change
LEAST = 20  # fewest images for finding mislabelled ones


def unseen_probabilities(features: Features, recipe: Recipe) -> Array:
    """Out-of-fold probabilities of each image, float64 (N, K), by a head not trained on it or its group.

    A linear head by cross-validation, on all stages. It is fitted a second time without the labels that seemed wrong,
    since those pull the decision boundary towards themselves.
    """
    dataset = features.dataset.with_split(None)
    every = tuple(block.name for block in features.facts.blocks)
    targets, weights = dataset.targets(), dataset.weights()
    fold_of = folds(dataset, fold_count(dataset, recipe), seed=recipe.split.seed)

    def compute() -> dict[str, Array]:
        x = features.rows(every)
        return {"probabilities": _out_of_fold(x, targets, weights, fold_of, len(dataset.classes))}

    settings = f"{METHOD} {features.store.fingerprint} {every} {STRENGTHS} {AGAIN} {len(dataset.classes)}"
    parts: tuple[bytes | str, ...] = (
        settings,
        targets.tobytes(),
        weights.tobytes(),
        fold_of.tobytes(),
        *features.keys,
    )
    return remembered("unseen", parts, compute)["probabilities"]


def _out_of_fold(x: Rows, targets: Array, weights: Array, fold_of: Array, class_count: int) -> Array:
    with one_blas_thread():
        images = images_of(x, weights)  # the same for each turn
        for turn in range(AGAIN):
            chosen = choose(
                images,
                targets,
                class_count=class_count,
                weights=weights,
                folds=fold_of,
                validation=None,
                strengths=STRENGTHS,
                tolerance=TOLERANCE,
            )
            probabilities = softmax(chosen.held_out_logits, chosen.temperature)
            doubted = [doubt.row for doubt in doubted_labels(targets, probabilities)]
            if not doubted or turn + 1 == AGAIN:
                break
            weights = weights.copy()
            weights[doubted] *= 1e-6  # in effect left out, but the folds need every image
    return probabilities


def inspect(
    features: Features,
    looks: Looks,
    groups: tuple[Group, ...],
    probabilities: Array,
    problems: tuple[Problem, ...],
) -> tuple[Finding, ...]:
    """All findings, in the order of `KINDS`, the worst of a kind first.

    Args:
        features: of every readable image.
        looks: of these images.
        groups: their near-duplicates (`copies`).
        probabilities: float (N, K), out-of-fold.
        problems: the files that were left out.
    """
    dataset = features.dataset
    found = [Finding("unreadable", (p.id,), (None,), "look", p.reason) for p in problems]
    found += _copied(dataset, groups)
    found += _doubted(dataset, probabilities)
    numbers = np.array(group_numbers(joined(dataset, [group.rows for group in groups])))
    odd = list(odd_pictures(looks))
    told = {oddity.row for oddity in odd}
    odd += [o for o in outliers(features.rows((LAST,)), numbers) if o.row not in told]
    found += [_odd(dataset, oddity) for oddity in odd]
    found += _small(dataset)
    place = {name: i for i, name in enumerate(KINDS)}
    return tuple(sorted(found, key=lambda f: (place[f.kind], -f.score)))


def _copied(dataset: Dataset, groups: tuple[Group, ...]) -> Iterator[Finding]:
    for group in groups:
        examples = [dataset[row] for row in group.rows]
        ids, labels = tuple(e.id for e in examples), tuple(e.label for e in examples)
        same = (
            "their files are equal" if group.exact else f"their correlation is at least {group.likeness:.2f}"
        )
        if len(sides := {e.split for e in examples}) > 1:
            yield Finding(
                "leak", ids, labels, "look", f"in {' and '.join(sorted(map(str, sides)))}; {same}", 1
            )
        if len(set(labels)) > 1:
            named = " and ".join(map(repr, sorted(map(str, set(labels)))))
            yield Finding("conflict", ids, labels, "look", f"called {named}; {same}", group.likeness)
        else:
            suggestion: Suggestion = "keep one" if group.exact else "look"
            kind = "duplicate" if group.exact else "near_duplicate"
            yield Finding(kind, ids, labels, suggestion, same, group.likeness)


def _doubted(dataset: Dataset, probabilities: Array) -> Iterator[Finding]:
    targets = dataset.targets()
    for doubt in doubted_labels(targets, probabilities):
        example, instead = dataset[doubt.row], dataset.classes[doubt.instead]
        p, q = probabilities[doubt.row, doubt.instead], probabilities[doubt.row, targets[doubt.row]]
        note = f"{instead!r} has a probability of {100 * p:.0f} %, {example.label!r} of {100 * q:.0f} %"
        yield Finding("mislabelled", (example.id,), (example.label,), "look", note, doubt.margin, instead)


def _odd(dataset: Dataset, oddity: Oddity) -> Finding:
    example = dataset[oddity.row]
    suggestion: Suggestion = "leave out" if oddity.kind == "blank" else "look"
    return Finding(oddity.kind, (example.id,), (example.label,), suggestion, oddity.note)


def _small(dataset: Dataset) -> Iterator[Finding]:
    for name, count in dataset.class_counts().items():
        if count < FEW:
            doubt = 100 / math.sqrt(max(count, 1))
            note = f"{name!r} has {count}: its score is uncertain by {doubt:.0f} points or more"
            yield Finding("small_class", (), (name,), "look", note, FEW - count)


def audited(
    checked: Checked,
    said: Array,
    splits: Splits,
    fitted: Fitted,
    recipe: Recipe,
    problems: tuple[Problem, ...],
) -> Audit:
    """The audit of a training's images, from results that the training has already computed.

    `said`: the classifier's probabilities for all images, float (N, K).
    """
    features = checked.features
    dataset = features.dataset
    learnt = _of_learnt(splits.train, fitted, recipe)
    if learnt is not None:
        # The classifier was not trained on the other images.
        seen = said.astype(np.float64)
        rows = {e.id: i for i, e in enumerate(dataset)}
        seen[[rows[e.id] for e in splits.train]] = learnt
    elif len(dataset) >= LEAST:
        seen = unseen_probabilities(features, recipe)
    else:  # too few for folds: every label is trusted
        seen = np.eye(len(dataset.classes))[dataset.targets()]
    findings = inspect(features, checked.looks, checked.groups, seen, problems)
    together = tuple(tuple(dataset[row].id for row in group.rows) for group in checked.groups)
    return Audit(dataset.name, len(dataset), dataset.class_counts(), findings, together, {})


def _of_learnt(train: Dataset, fitted: Fitted, recipe: Recipe) -> Array | None:
    """Out-of-fold probabilities of the training images, float (M, K); None if the head has to be fitted for them."""
    if fitted.fold_of is not None:
        return fitted.unseen_probabilities
    if fitted.solved is None or len(train) < LEAST:
        return None
    solved = fitted.solved
    chosen = choose(
        solved.images,
        solved.targets,
        class_count=solved.class_count,
        weights=solved.weights,
        folds=folds(train, fold_count(train, recipe), seed=recipe.split.seed),
        validation=None,
        strengths=(*(s for s in STRENGTHS[::2] if s > solved.strength), solved.strength),
        tolerance=TOLERANCE,
    )
    return np.asarray(softmax(chosen.held_out_logits, chosen.temperature))
