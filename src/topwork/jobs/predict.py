"""Predictions of any number of images in the same memory: one by one, or into a CSV file that is gone on with."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from topwork.backbones.backbone import precision_note
from topwork.backbones.engine import Engine
from topwork.classifiers.classifier import DESCRIPTION, Classifier, Prediction
from topwork.data.dataset import Dataset, Problem
from topwork.data.layout import not_an_image
from topwork.data.listing import Found, list_images
from topwork.errors import InputError, Stopped
from topwork.jobs.predictions_csv import Plan, Rows, appending, csv_cells, csv_columns, side_of
from topwork.parallel import stream
from topwork.progress import Silent, Watch
from topwork.storage.digests import Digests

NOVELTY = "novelty"  # the file's last column
COUNTING_S = 10.0  # the longest that images are counted for the sake of "time left"


@dataclass(frozen=True, slots=True)
class Bulk:
    """What a CSV file holds: `images` rows, of which `failed` have an error; `new` ones came now, in `seconds`."""

    csv: Path
    images: int
    failed: int
    new: int
    seconds: float


def predict(run: str | Path, images: str | Path | list[str] | Dataset) -> list[Prediction]:
    """What a run says of photos: the command `predict`.

    Args:
        run: a folder that `train` wrote.
        images: files, folders or glob patterns; or a dataset, whose labels don't matter.

    Raises:
        InputError: no run, or no images.

    >>> predict("run", "new/*.jpg")[0].top()  # doctest: +SKIP
    [('rose', 0.98)]
    """
    return list(Classifier.load(run).predict(images))


def predictions(
    classifier: Classifier, found: Iterable[Found], *, strict: bool = False, watch: Watch | None = None
) -> Generator[Prediction, None, None]:
    """A prediction for each of what was found, in its order; `found` is read only a little ahead.

    A problem becomes a prediction with an error.

    Raises:
        InputError: with `strict`, an image can't be read, or a path leads nowhere. A file beside the images that
            isn't one doesn't count.
    """
    if watch and (note := precision_note(classifier.backbone.facts)):
        watch.say(note)
    infer = Engine(classifier.backbone)

    def look(item: Found) -> Prediction:
        if isinstance(item, Problem):
            return Prediction(item.id, classifier.classes, None, item.reason)
        return classifier.predict_image(item.image, infer)

    with closing(stream(look, found, workers=infer.workers)) as results:
        for prediction in results:
            error = prediction.error
            if strict and error is not None and error != not_an_image(prediction.image).reason:
                raise InputError(f"{prediction.image}: {error}; mend or remove it, or run without --strict")
            yield prediction


def predict_to_csv(
    run: Path,
    paths: Iterable[str],
    out: Path,
    *,
    top: int = 1,
    coverage: float | None = None,
    overwrite: bool = False,
    retry_failed: bool = False,
    strict: bool = False,
    count: bool = False,
    watch: Watch | None = None,
) -> Bulk:
    """A row an image into the CSV file `out`, those that can't be read too; on from where another call ended.

    Columns: those of `printing.csv_columns`, then `novelty`. An image is known by its path as it was given or
    found; what is in the file already, failed or not, isn't predicted again. Rows come in the order of
    `list_images`, so that a file that was gone on with is the same, byte for byte, as one made at once. Memory
    grows by about 25 bytes an image, for the digests of those that are done.

    Args:
        run: a folder that `topwork train` wrote.
        paths: files, folders, glob patterns.
        top: how many classes to name.
        coverage: also name the classes that hold the truth in such a share of pictures, in a column `set`.
        overwrite: begin the file anew, if it is one of these.
        retry_failed: predict again what failed before.
        strict: stop at an image that can't be read; the rows before it are kept.
        count: count the images first, where `paths` is a sequence, so that `watch` can tell the time left.

    Raises:
        InputError: as `Classifier.load` and `rowfile.appending` do; with `strict`, as `predictions` does.
        TopworkError: the file can't be written; it can be gone on with.
        Stopped: with a text that says how to go on.

    >>> predict_to_csv(Path("run"), ["photos"], Path("out.csv"))  # doctest: +SKIP
    Bulk(csv=PosixPath('out.csv'), images=100000, failed=3, new=100000, seconds=91.2)
    """
    began, watch = time.perf_counter(), watch or Silent()
    classifier = Classifier.load(run)
    least = None if coverage is None else classifier.least_probability(coverage)
    columns = (*csv_columns(top=top, sets=least is not None), NOVELTY)
    sha256 = hashlib.sha256((run / DESCRIPTION).read_bytes()).hexdigest()
    plan, before = Plan(columns, sha256, top, coverage), 0
    rows: Rows | None = None
    try:
        with appending(out, plan, overwrite=overwrite, retry_failed=retry_failed, say=watch.say) as rows:
            before = rows.rows
            total = _count(paths, rows.done) if count and isinstance(paths, Sequence) else None
            found = _unseen(list_images(paths), rows)
            with (
                watch.bar("predict", total) as advance,
                closing(predictions(classifier, found, strict=strict, watch=watch)) as results,
            ):
                for prediction in results:
                    novelty = "" if prediction.novelty is None else f"{prediction.novelty:.6f}"
                    cells = [*csv_cells(prediction, top=top, least=least), novelty]
                    rows.add(cells, failed=prediction.error is not None)
                    advance(1)
    except Stopped:
        there = f"{rows.rows:,} images are in {out}" if rows else f"{out} is as it was"
        raise Stopped(f"stopped; {there}: the same command goes on from there") from None
    return Bulk(out, rows.rows, rows.failed, rows.rows - before, time.perf_counter() - began)


def once(found: Iterable[Found]) -> Iterator[Found]:
    """What was found, without what came before under the same name."""
    seen = Digests()
    return (item for item in found if seen.add(_name(item)))


def problems_last(found: Iterable[Found]) -> Iterator[Found]:
    """The images as they come, then the problems."""
    problems = []
    for item in found:
        if isinstance(item, Problem):
            problems.append(item)
        else:
            yield item
    yield from problems


def _unseen(found: Iterable[Found], rows: Rows) -> Iterator[Found]:
    """What isn't in the file. Raises `InputError` where a name can't be told from another folder's."""
    here = os.getcwd()  # noqa: PTH109 (text, as in the file's description)
    own = {os.path.realpath(path) for path in (rows.path, side_of(rows.path))}
    for item in found:
        name = _name(item)
        if here != rows.folder and not os.path.isabs(name):  # noqa: PTH117 (quicker than a Path)
            raise InputError(
                f"{name}: the paths in {rows.path} are relative to {rows.folder}; run the command there, give whole "
                "paths, or choose another --csv"
            )
        if isinstance(item, Problem) and os.path.realpath(name) in own:
            continue  # it lies among the images
        if rows.done.add(name):
            yield item


def _count(paths: Sequence[str], done: Digests) -> int | None:
    """How many images are to be predicted; None where that can't be said soon."""
    until, number = time.monotonic() + COUNTING_S, 0
    for item in list_images(paths):
        number += _name(item) not in done
        if time.monotonic() > until:
            return None
    return number


def _name(item: Found) -> str:
    """What its row calls it."""
    return item.id if isinstance(item, Problem) else str(item.image)
