"""Fine-tune a run's network: `finetune` replaces the run's classifier only if the tuned one is better.

The frozen classifier stays in `frozen/`. Validation images decide which of the two the run keeps; the test images
are used once more, to compare both.
"""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.backbones.backbone import TUNED
from topwork.classifiers.calibration import Calibration, calibration_of
from topwork.classifiers.classifier import CALIBRATION, DESCRIPTION, GRAPH, HEAD, WEIGHTS, Classifier
from topwork.classifiers.neighbours import NEIGHBOURS
from topwork.classifiers.novelty import novelty_beyond
from topwork.classifiers.score import Scored, score, targets_for
from topwork.data.dataset import Dataset
from topwork.data.groups import group_numbers
from topwork.data.sources import load
from topwork.errors import MissingExtra, TopworkError
from topwork.features.extract import Features, extract, open_store
from topwork.jobs.clock import Clock
from topwork.jobs.resume import check_settings, stoppable, tuning_of, working
from topwork.progress import Silent, Watch
from topwork.recipe import FinetuneRecipe, Recipe
from topwork.runs.folder import RECIPE, WORK, recipe_of, writing
from topwork.runs.images import as_before
from topwork.runs.record import images_for, read_report, source_of, write_images, write_report_json
from topwork.runs.report.write import write_neighbours, write_page
from topwork.storage.cache import clear

if TYPE_CHECKING:
    from topwork.evaluation.verdict import Verdict
    from topwork.tuning.tune import Tuned

FROZEN = "frozen"
MODEL = (
    GRAPH,
    WEIGHTS,
    HEAD,
    CALIBRATION,
    DESCRIPTION,
)  # the description last: it marks the folder as complete


@dataclass(frozen=True, slots=True, eq=False)
class Finetuned:
    """The result of fine-tuning a run."""

    path: Path
    kept: bool  # whether the run now holds the tuned classifier; else its classifier is unchanged
    tuned_before: bool  # whether the run already held the result of an earlier tuning
    tuned: Tuned
    verdict: Verdict | None  # frozen against tuned on the test images; None if there are none
    frozen: Scored | None  # the frozen classifier's test scores
    test: Scored | None  # the tuned classifier's test scores
    seconds: dict[str, float]


def finetune(
    run: str | Path,
    data: Dataset | str | Path | None = None,
    *,
    recipe: FinetuneRecipe | None = None,
    resume: bool = False,
    watch: Watch | None = None,
) -> Finetuned:
    """Fine-tune a run's network on the run's training images.

    Args:
        run: a folder that `train` wrote.
        data: the same photos; None for where they were.
        recipe: the settings; None for the run's own or, with `resume`, those of the interrupted tuning. A mode of
            "head" or "auto" means "tail" here.
        resume: continue an interrupted tuning, if there is one.
        watch: receives progress.

    Raises:
        InputError: not a run, other photos, an invalid setting, or a different one from the interrupted tuning's.
        TopworkError: the disk is full, or an operator can't be trained. The run is unchanged.
        MissingExtra: no framework is installed.

    >>> finetune("run").verdict.sentence  # doctest: +SKIP
    '+5.2 points (95 % 3.1 to 7.3), 14 times the time: kept'
    """
    with stoppable(Path(run)):
        return _finetune(Path(run), data, recipe, resume, watch or Silent())


def _finetune(
    folder: Path, data: Dataset | str | Path | None, recipe: FinetuneRecipe | None, resume: bool, watch: Watch
) -> Finetuned:
    clock, tuned_before = Clock(), (folder / FROZEN / DESCRIPTION).exists()
    frozen = Classifier.load(folder / FROZEN if tuned_before else folder)
    settings, report = _settings(folder, recipe or tuning_of(folder, resume=resume)), read_report(folder)
    check_framework()
    if resume:
        check_settings(folder / WORK, settings)
    dataset = (
        data
        if isinstance(data, Dataset)
        else load(
            data if data is not None else source_of(folder, f"name them: topwork finetune {folder} DATA")
        )
    )
    from topwork.evaluation.verdict import judge
    from topwork.tuning.tune import tune  # loads the framework, so only after the quick checks

    with open_store(frozen.backbone.facts) as store:
        with watch.bar("features", len(dataset)) as progress:
            features = extract(dataset, frozen.backbone, store=store, progress=progress)
        features, splits = as_before(features, folder, frozen.classes, watch)
        before = score(frozen, features.part(splits.test)) if len(splits.test) else None
        work = working(folder / WORK, settings, anew=not resume)
        with work, clock.time("tune"), writing(folder, kinds=(OSError,)):
            tuned = tune(frozen, features, splits, settings, folder=folder / WORK, watch=watch)
    classifier, everything = tuned.classifier, features.dataset
    with open_store(classifier.backbone.facts) as store:
        with clock.time("score"), watch.bar("scoring", len(everything)) as progress:
            seen = extract(everything, classifier.backbone, store=store, progress=progress)
        calibration = _calibration(tuned, seen, frozen, settings)
        if tuned.better and frozen.novelty and not calibration.novelty:
            watch.say(
                f'too few validation images ({len(tuned.held)}) for a "none of these" rule: the run has none'
            )
        classifier = dataclasses.replace(classifier, calibration=calibration)
        tuned = dataclasses.replace(tuned, classifier=classifier)
        after = score(classifier, seen.part(splits.test)) if len(splits.test) else None
        verdict = None
        if before and after:
            verdict = judge(
                targets_for(classifier, splits.test),
                before.probabilities,
                after.probabilities,
                weights=splits.test.weights(),
                groups=np.array(group_numbers(splits.test)),
                seconds_before=report.get("seconds", {}).get("total", 0.0),
                seconds_after=clock.seconds()["total"],
                kept=tuned.better,
            )
        with writing(folder):
            if tuned.better:
                _replace(folder, classifier)
                write_neighbours(folder, classifier, seen.part(splits.train))
                write_images(folder, images_for(classifier, seen, splits))
            if tuned.better or not tuned_before:  # else keep the recipe and report of the earlier tuning
                (folder / RECIPE).write_text(settings.to_toml(), encoding="utf-8")
            report["finetune" if tuned.better or not tuned_before else "finetune_not_kept"] = _told(
                tuned, verdict, clock
            )
            if after and tuned.better:
                report["test"] = after.evaluation.to_dict()
            write_report_json(folder, report)
            shutil.rmtree(folder / WORK, ignore_errors=True)
    if tuned.better:
        write_page(folder, classifier, everything, watch)
    else:
        with suppress(TopworkError):  # these features are not needed again
            clear(fingerprint=classifier.backbone.facts.fingerprint)
    return Finetuned(folder, tuned.better, tuned_before, tuned, verdict, before, after, clock.seconds())


def check_framework() -> None:
    """Raise `MissingExtra` if no framework is installed to tune a network with."""
    if find_spec("keras") is None:
        raise MissingExtra("tuning a network", "finetune")


def _settings(folder: Path, tuning: FinetuneRecipe) -> Recipe:
    if tuning.mode in ("head", "auto"):
        tuning = dataclasses.replace(tuning, mode="tail")
    return dataclasses.replace(recipe_of(folder), finetune=tuning)


def _calibration(tuned: Tuned, seen: Features, frozen: Classifier, recipe: Recipe) -> Calibration:
    """Fit the "none of these" rule and the scores for prediction sets on the validation images.

    If the frozen network runs beside the tuned one, its rule stays valid. Otherwise a new rule is fitted; its
    threshold comes from validation images, since a network's own training images lie too close together.
    """
    novelty = frozen.novelty
    if TUNED not in tuned.classifier.blocks and novelty is not None:
        learnt, held = (seen.part(part) for part in (tuned.learn, tuned.held))
        blocks = tuned.classifier.blocks
        novelty = novelty_beyond(
            learnt.matrix(blocks),
            targets_for(tuned.classifier, tuned.learn),
            held.matrix(blocks),
            class_count=len(frozen.classes),
            rate=recipe.head.reject,
        )
    return calibration_of(novelty, targets_for(tuned.classifier, tuned.held), tuned.held_probabilities)


def _replace(folder: Path, classifier: Classifier) -> None:
    """Replace the run's classifier by the tuned one; the frozen one is moved to `frozen/` unless that exists."""
    fresh, old = folder / WORK / "tuned", folder / FROZEN
    fresh.mkdir(parents=True, exist_ok=True)
    classifier.save(fresh)
    if not (old / DESCRIPTION).exists():
        old.mkdir(exist_ok=True)
        for name in MODEL:
            if (folder / name).exists():
                shutil.copy2(folder / name, old / name)
    (folder / NEIGHBOURS).unlink(missing_ok=True)  # of the frozen network's features
    (folder / DESCRIPTION).unlink(missing_ok=True)
    (folder / CALIBRATION).unlink(missing_ok=True)
    for name in MODEL:
        if (fresh / name).exists():
            (fresh / name).replace(folder / name)


def _told(tuned: Tuned, verdict: Verdict | None, clock: Clock) -> dict[str, Any]:
    return {
        "kept": tuned.better,
        "cut": tuned.cut.name if tuned.cut else None,
        "tried": [dataclasses.asdict(one) for one in tuned.tried],
        "mix": tuned.mix,
        "share": tuned.share,
        "planned_epochs": tuned.epochs,
        "history": [dataclasses.asdict(epoch) for epoch in tuned.history],
        "verdict": verdict.to_dict() if verdict else None,
        "seconds": clock.seconds(),
    }
