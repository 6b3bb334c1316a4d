"""Read this first: from labelled photos to a tested classifier, top to bottom."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from topwork.backbone import load_backbone
from topwork.classifier import DESCRIPTION, GRAPH, HEAD, WEIGHTS, Classifier, Scored, score
from topwork.data.dataset import Dataset, Problem
from topwork.data.sources import load
from topwork.data.split import Splits, splits_of
from topwork.errors import InputError, TopworkError
from topwork.evaluation import Evaluation
from topwork.features import Features, extract, open_store
from topwork.heads.fitting import Fitted, fit_head
from topwork.recipe import Recipe
from topwork.watch import Silent, Watch

SPLITS, RECIPE, REPORT, TENSORBOARD = "splits.csv", "recipe.toml", "report.json", "tensorboard"
FILES = (DESCRIPTION, GRAPH, WEIGHTS, HEAD, SPLITS, RECIPE, REPORT)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What a training gives: the folder it wrote, the classifier in it, and how good that is.

    `test` is None where no image could be spared for it. `problems` are images left out, with the reason.
    `computed` counts the images whose features were not stored before.
    """

    path: Path
    classifier: Classifier
    test: Evaluation | None
    fitted: Fitted
    splits: dict[str, int]
    problems: tuple[Problem, ...]
    computed: int
    seconds: dict[str, float]


def train(
    data: Dataset | str | Path,
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Train a classifier and write it, its test score and its settings to the folder `out`.

    Features are computed once for each image and kept; the head and its settings are chosen on held-out training
    images; the test images are looked at once, at the end.

    Args:
        data: a dataset, or what `topwork.load` takes: a folder with one sub-folder a class, a manifest, an archive.
        out: the run's folder: new, or empty.
        recipe: the settings; None for the defaults.
        overwrite: replace the run that `out` holds.
        watch: told of the progress.

    Raises:
        InputError: the data, the folder or a setting is wrong.
        TopworkError: the disk is full or can't be written.

    >>> run = train("photos", "run")  # doctest: +SKIP
    >>> run.test.accuracy  # doctest: +SKIP
    0.93
    """
    recipe, watch, clock, out = recipe or Recipe(), watch or Silent(), _Clock(), Path(out)
    _check_folder(out, overwrite=overwrite)

    with clock.time("load"):
        dataset = data if isinstance(data, Dataset) else load(data)
        settings = recipe.backbone
        backbone = load_backbone(
            settings.handle,
            size_px=settings.size_px,
            fit=settings.fit,
            views=settings.views,
            precision=settings.precision,
            pixels=settings.pixels,
            progress=watch.download(settings.handle),
            say=watch.say,
        )
        _splits(dataset, recipe)  # what is wrong with them is told before the work, not after
        _make_folder(out)
    with open_store(backbone.facts) as store:
        with clock.time("features"), watch.bar("features", len(dataset)) as progress:
            features = extract(dataset, backbone, store=store, strict=recipe.strict, progress=progress)
        if store.set_aside is not None:
            watch.say(f"the feature store was damaged; it is now {store.set_aside}, and a new one was begun")

        with clock.time("head"):
            splits = _splits(features.dataset, recipe)
            fitted = fit_head(features, splits, recipe, tensorboard=out / TENSORBOARD, watch=watch)
            classifier = Classifier(features.dataset.classes, backbone, fitted.blocks, fitted.head)

        with clock.time("test"):
            majority = Counter(splits.train.labels()).most_common(1)[0][0]
            scored = (
                score(classifier, features.part(splits.test), majority=majority) if len(splits.test) else None
            )

        with clock.time("save"), _writing(out):
            problems = (*dataset.skipped, *features.problems)
            out.mkdir(parents=True, exist_ok=True)
            # Without it the folder is no run, until all is written.
            (out / DESCRIPTION).unlink(missing_ok=True)
            write_splits(out / SPLITS, classifier, features, splits)
            (out / RECIPE).write_text(recipe.to_toml(), encoding="utf-8")
            report = _report(dataset, fitted, splits, scored, problems)
            (out / REPORT).write_text(json.dumps(report, indent=2, ensure_ascii=False), encoding="utf-8")
            classifier.save(out)

    return Run(
        path=out,
        classifier=classifier,
        test=scored.evaluation if scored else None,
        fitted=fitted,
        splits=_sizes(splits),
        problems=problems,
        computed=features.computed,
        seconds=clock.seconds(),
    )


def write_splits(path: Path, classifier: Classifier, features: Features, splits: Splits) -> None:
    """One row an image: its part, label, SHA-256, and what the classifier says of it.

    On training images a classifier flatters itself: only the rows of `test` tell how good it is.
    """
    part_of = {e.id: name for name in _PARTS for e in getattr(splits, name)}
    probabilities = classifier.probabilities(features.matrix(classifier.blocks))
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "split", "label", "prediction", "probability", "sha256"])
        for example, key, p in zip(features.dataset, features.keys, probabilities, strict=True):
            best = int(p.argmax())
            rows.writerow(
                [
                    example.id,
                    part_of[example.id],
                    example.label,
                    classifier.classes[best],
                    f"{p[best]:.6f}",
                    key.hex(),
                ]
            )


def trained_on(folder: Path) -> frozenset[bytes]:
    """The SHA-256 of each image that the run in `folder` learned from: its training and validation parts.

    Raises:
        InputError: the run's list of images is missing, or damaged.
    """
    try:
        with (folder / SPLITS).open(newline="", encoding="utf-8") as file:
            return frozenset(
                bytes.fromhex(row["sha256"]) for row in csv.DictReader(file) if row["split"] != "test"
            )
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{folder / SPLITS}: expected the list of the images that the run learned from; it can't be read "
            f"({error}); copy the run's folder whole"
        ) from None


_PARTS = ("train", "validation", "test")


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
    return {name: len(getattr(splits, name)) for name in _PARTS}


def _report(
    dataset: Dataset, fitted: Fitted, splits: Splits, scored: Scored | None, problems: tuple[Problem, ...]
) -> dict[str, Any]:
    return {
        "data": dataset.name,
        "splits": _sizes(splits),
        "test": scored.evaluation.to_dict() if scored else None,
        "held_out": fitted.held_out,
        "candidates": [asdict(candidate) for candidate in fitted.candidates],
        "left_out": [asdict(problem) for problem in problems],
    }


def _check_folder(out: Path, *, overwrite: bool) -> None:
    """Nothing that lies in the way is lost: a folder is used if it is new, empty, or a run to be replaced."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a folder to write the run to; it is a file; choose another --out")
    held = {path.name for path in out.iterdir()} if out.exists() else set()
    if DESCRIPTION in held and not overwrite:
        raise InputError(
            f"{out}: holds a run already; choose another --out, or add --overwrite to replace it"
        )
    if DESCRIPTION not in held and held - {
        TENSORBOARD,
        *FILES,
    }:  # what a broken-off training left may be there
        raise InputError(f"{out}: expected a new or empty folder; it holds other files; choose another --out")


def _make_folder(out: Path) -> None:
    """Make the folder, and take away the curves of the run that is to be replaced."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if (out / DESCRIPTION).exists():
            for path in out.glob(f"{TENSORBOARD}/*/events.out.tfevents*"):
                path.unlink()
    except OSError as error:
        raise TopworkError(f"{out}: can't be made ({error.strerror}); choose another --out") from None


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # the second is what OpenVINO makes of a full disk
        raise TopworkError(
            f"{out}: the run can't be written ({error}); free some space, or choose another --out. The features "
            "are kept: the same command goes on from there"
        ) from error


class _Clock:
    """Seconds by the name of a step, and in total since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._steps: dict[str, float] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._steps[name] = time.perf_counter() - began

    def seconds(self) -> dict[str, float]:
        total = time.perf_counter() - self._began
        return {name: round(s, 3) for name, s in {"total": total, **self._steps}.items()}
