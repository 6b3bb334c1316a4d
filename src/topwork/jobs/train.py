"""Training from labelled photos to a tested classifier, top to bottom. Read this file first."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from topwork.backbones.backbone import Backbone
from topwork.checks.findings import Audit
from topwork.checks.fixes import apply_fixes, write_audit
from topwork.checks.inspect import audited
from topwork.checks.leak import Leak, leaked
from topwork.classifiers.calibrate import calibrate
from topwork.classifiers.classifier import DESCRIPTION, Classifier
from topwork.classifiers.score import Scored, probabilities_of, score
from topwork.data.dataset import Dataset, Example, FileImage, Problem
from topwork.data.split import Splits, splits_of
from topwork.errors import InputError, MissingExtra, Stopped
from topwork.evaluation.evaluate import Evaluation
from topwork.features.extract import Features, open_store
from topwork.heads.fit import Fitted, cross_validated, fit_head
from topwork.heads.growth import STEPS as CURVE_STEPS
from topwork.heads.growth import growth
from topwork.jobs.advise import advise_on
from topwork.jobs.clock import Clock
from topwork.jobs.finetune import FROZEN, Finetuned, check_framework, finetune
from topwork.jobs.prepare import backbone_for, dataset_of, features_of
from topwork.progress import Silent, Watch
from topwork.recipe import FinetuneRecipe, Recipe
from topwork.runs.folder import (
    FIXES,
    PARTS,
    RECIPE,
    TENSORBOARD,
    WORK,
    check_folder,
    make_folder,
    writing,
)
from topwork.runs.record import images_for, write_images, write_report_json
from topwork.runs.report.write import write_neighbours, write_page
from topwork.tuning.advice.advice import Advice

AUDIT_STEPS = 2  # of its progress


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """The result of a training."""

    path: Path  # the run's folder
    classifier: Classifier
    test: Evaluation | None  # None if no image could be spared for testing
    fitted: Fitted
    splits: dict[str, int]  # images in each part
    problems: tuple[Problem, ...]  # images left out, with the reason
    computed: int  # images whose features were not stored before
    seconds: dict[str, float]
    advice: Advice | None = None  # with the mode "auto"
    finetuned: Finetuned | None = None  # if the network was tuned
    audit: Audit | None = None  # None if the data wasn't audited
    leak: Leak | None = None  # effect of near-duplicates across a naive split; None if there are none
    cross_validated: tuple[float, ...] = ()


def train(
    data: Dataset | str | Path,
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    fixes: str | Path | None = None,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Train a classifier and write it, its test score and its settings to the folder `out`.

    Features are computed once for each image and stored; the head and its settings are chosen on held-out training
    images; the test images are used once, at the end. Near-duplicates, and the user's groups, stay on one side of
    every split. `recipe.finetune.mode` decides whether the network is then fine-tuned (see
    `topwork.jobs.finetune.finetune`): always ("tail", "full"), if advised ("auto"), or not ("head").

    Args:
        data: a dataset, or anything that `topwork.load` takes: a folder with one sub-folder per class, a manifest, an
            archive.
        out: the run's folder, new or empty.
        recipe: the settings; None for the defaults.
        fixes: an audit's fixes.csv, edited by the user: pictures to leave out or relabel.
        overwrite: replace the run in `out`.
        watch: receives progress.

    Raises:
        InputError: the data, the folder or a setting is invalid.
        TopworkError: the disk is full or not writable.

    >>> run = train("photos", "run")  # doctest: +SKIP
    >>> run.test.accuracy  # doctest: +SKIP
    0.93
    """
    recipe, watch, clock, out = recipe or Recipe(), watch or Silent(), Clock(), Path(out)
    check_folder(out, overwrite=overwrite)
    if recipe.finetune.mode in ("tail", "full"):
        check_framework()

    with clock.time("load"):
        dataset = dataset_of(data, recipe)
        if fixes is not None:
            dataset = apply_fixes(dataset, Path(fixes))
        backbone = backbone_for(dataset, recipe, watch)
        _splits(dataset, recipe)  # fail before the work
        make_folder(out)
    with features_of(dataset, backbone, recipe, watch, clock) as (features, checked):
        with clock.time("head"):
            splits = _splits(features.dataset, recipe)
            fitted = fit_head(features, splits, recipe, tensorboard=out / TENSORBOARD, watch=watch)
            calibration = calibrate(features, splits, fitted, recipe)
            classifier = Classifier(
                features.dataset.classes, backbone, fitted.blocks, fitted.head, calibration
            )

        with clock.time("test"), watch.bar("predictions", len(features.dataset)) as progress:
            said = probabilities_of(classifier, features, progress)
            rows = {e.id: i for i, e in enumerate(features.dataset)}
            tested = features.part(splits.test)
            scored = None
            if len(splits.test):
                scored = score(
                    classifier,
                    tested,
                    majority=Counter(splits.train.labels()).most_common(1)[0][0],
                    probabilities=said[[rows[e.id] for e in splits.test]],
                )
        if scored:
            low, high = scored.evaluation.interval
            accuracy = scored.evaluation.accuracy
            watch.say(
                f"test accuracy {100 * accuracy:.1f} % (95 %: {100 * low:.1f} to {100 * high:.1f}); the audit, the "
                "report and the files follow"
            )

        problems = (*dataset.skipped, *features.problems)
        audit, leak = None, None
        if checked:
            with clock.time("audit"), watch.bar("audit", AUDIT_STEPS) as progress:
                audit = audited(checked, said, splits, fitted, recipe, problems)
                progress(1)
                leak = leaked(checked, splits, fitted, recipe)
                progress(1)
        with clock.time("curve"), watch.bar("learning curve", CURVE_STEPS) as progress:
            grown = growth(fitted, progress)

        with clock.time("save"), writing(out):
            out.mkdir(parents=True, exist_ok=True)
            for name in (FROZEN, WORK):  # of the run that is replaced
                shutil.rmtree(out / name, ignore_errors=True)
            # Without its description, the folder is not a run until everything is written.
            (out / DESCRIPTION).unlink(missing_ok=True)
            write_images(out, images_for(classifier, features, splits, said))
            (out / RECIPE).write_text(recipe.to_toml(), encoding="utf-8")
            report = _report(dataset, fitted, splits, scored, problems, _source(data), clock.seconds())
            report["leak"] = asdict(leak) if leak else None
            report["curve"] = asdict(grown.curve) if grown else None
            report["growth"] = grown.sentences if grown else ()
            report["fixes"] = str(fixes) if fixes is not None else None
            write_report_json(out, report)
            if audit:
                write_audit(out, audit, FIXES)
            classifier.save(out)
            write_neighbours(out, classifier, features.part(splits.train))

    with clock.time("report"):
        write_page(out, classifier, dataset, watch)
    advice, finetuned = None, None
    if recipe.finetune.mode != "head":
        advice, tuning = _tuning(features, splits, backbone, recipe, out, watch)
        if tuning.mode != "head" and (finetuned := _finetuned(out, dataset, tuning, advice, watch)):
            clock.add(finetuned.seconds)
            if finetuned.kept:
                classifier, scored = finetuned.tuned.classifier, finetuned.test
    return Run(
        path=out,
        classifier=classifier,
        test=scored.evaluation if scored else None,
        fitted=fitted,
        splits=_sizes(splits),
        problems=problems,
        computed=features.computed,
        seconds=clock.seconds(),
        advice=advice,
        finetuned=finetuned,
        audit=audit,
        leak=leak,
        cross_validated=cross_validated(fitted),
    )


def _tuning(
    features: Features, splits: Splits, backbone: Backbone, recipe: Recipe, out: Path, watch: Watch
) -> tuple[Advice | None, FinetuneRecipe]:
    """The tuning settings: as requested or as advised; the mode "head" if there are too few images for advice."""
    if recipe.finetune.mode != "auto":
        return None, recipe.finetune
    try:
        with open_store(backbone.facts) as store:
            there = dataclasses.replace(features, store=store)
            advice = advise_on(there, splits, backbone, recipe=recipe, watch=watch)
    except InputError as error:
        watch.say(f"no advice, so the frozen network stays: {error}")
        return None, dataclasses.replace(recipe.finetune, mode="head")
    except Stopped:
        told = f"stopped; {out} has its classifier; to tune the network: topwork finetune {out}"
        raise Stopped(told) from None
    for sentence in advice.sentences:
        watch.say(sentence)
    return advice, dataclasses.replace(recipe.finetune, mode=advice.mode)


def _finetuned(
    out: Path, dataset: Dataset, tuning: FinetuneRecipe, advice: Advice | None, watch: Watch
) -> Finetuned | None:
    """Fine-tune the run; None if tuning was only advised and is not possible."""
    try:
        return finetune(out, dataset, recipe=tuning, watch=watch)
    except (InputError, MissingExtra) as error:
        if advice is None:
            raise
        watch.say(f"the frozen network stays: {error}")
        return None


def _splits(dataset: Dataset, recipe: Recipe) -> Splits:
    wanted = recipe.split
    splits = splits_of(dataset, test=wanted.test, validation=wanted.validation, seed=wanted.seed)
    taught = set(splits.train.labels())
    for name in dataset.classes:
        if name not in taught:
            raise InputError(
                f"{dataset.name}: expected training images of every class; {name!r} has none that can be read: "
                "add some, or leave the class out"
            )
    return splits


def _sizes(splits: Splits) -> dict[str, int]:
    return {name: len(getattr(splits, name)) for name in PARTS}


def _source(data: Dataset | str | Path) -> str | None:
    """Where the images can be found again; None for a dataset made in Python from scattered files."""
    if isinstance(data, Dataset):
        roots = {_root(example) for example in data}
        return roots.pop() if len(roots) == 1 else None
    return str(Path(data).absolute()) if Path(data).exists() else str(data)


def _root(example: Example) -> str | None:
    """The folder that the example's id is relative to, if there is one."""
    path, tail = str(example.image), f"/{example.id}"
    found = isinstance(example.image, FileImage) and Path(path).as_posix().endswith(tail)
    return str(Path(path).absolute())[: -len(tail)] if found else None


def _report(
    dataset: Dataset,
    fitted: Fitted,
    splits: Splits,
    scored: Scored | None,
    problems: tuple[Problem, ...],
    source: str | None,
    seconds: dict[str, float],
) -> dict[str, Any]:
    return {
        "data": dataset.name,
        "source": source,
        "splits": _sizes(splits),
        "test": scored.evaluation.to_dict() if scored else None,
        "held_out": fitted.held_out,
        "cross_validated": cross_validated(fitted),
        "candidates": [asdict(candidate) for candidate in fitted.candidates],
        "left_out": [asdict(problem) for problem in problems],
        "seconds": seconds,
    }
