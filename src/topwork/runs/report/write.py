"""Write a run's `report.html`: gather what its folder says, make the pictures small, say where the network looked."""

from __future__ import annotations

from pathlib import Path

from topwork.backbones.backbone import LAST
from topwork.classifiers.attention import Looker, overlay
from topwork.classifiers.classifier import Classifier
from topwork.classifiers.neighbours import NEIGHBOURS, make_neighbours
from topwork.data.dataset import Dataset, Example
from topwork.data.sources import load
from topwork.errors import ImageError
from topwork.features.extract import Features
from topwork.images.decode import decode
from topwork.progress import Silent, Watch
from topwork.runs.folder import PAGE, writing
from topwork.runs.record import source_of
from topwork.runs.report.content import Content, content_of
from topwork.runs.report.page import render
from topwork.runs.report.thumbnails import jpeg, made, small

MAPS = 60  # mistakes of which it is shown where the network looked


def report(run: str | Path, data: Dataset | str | Path | None = None, *, watch: Watch | None = None) -> Path:
    """Write `report.html` into a run's folder; what is there is replaced.

    Args:
        run: a folder that `train` wrote.
        data: its photos; None for where they were. Those that are not there are shown by name.
        watch: told of the progress.

    Raises:
        InputError: no run, or its photos are nowhere to be found.
        TopworkError: the page can't be written.
    """
    folder, watch = Path(run), watch or Silent()
    classifier = Classifier.load(folder)
    if data is None:
        data = source_of(folder, f"name them: topwork report {folder} DATA")
    return write_page(folder, classifier, data if isinstance(data, Dataset) else load(data), watch)


def write_page(folder: Path, classifier: Classifier, dataset: Dataset, watch: Watch) -> Path:
    """The same for a classifier and a data set that are at hand."""
    content = content_of(folder)
    of_id = {example.id: example for example in dataset}
    wanted = [of_id[id] for id in content.picture_ids() if id in of_id]
    mistakes = _mistakes(content)
    with watch.bar("report", len(wanted) + len(mistakes)) as progress:
        pictures = dict(made(small, wanted, progress))
        looker = Looker(classifier)
        facts = classifier.backbone.facts

        def looked(example: Example) -> tuple[str, bytes] | None:
            try:
                pixels = decode(example.image.read(), facts.size_px, fit=facts.fit)
            except (ImageError, OSError):
                return None
            number = classifier.classes.index(mistakes[example.id])
            return example.id, jpeg(overlay(pixels, looker.map(pixels, number)))

        shown = [of_id[id] for id in mistakes if id in of_id] if looker.possible else []
        maps = dict(made(looked, shown, progress))
    with writing(folder):
        path = folder / PAGE
        path.write_text(render(content, pictures, maps), encoding="utf-8", errors="backslashreplace")
    return path


def write_neighbours(folder: Path, classifier: Classifier, part: Features) -> None:
    """Write the training pictures that the page of `topwork serve` shows beside others."""

    def picture(row: int) -> bytes | None:
        found = small(part.dataset[row])
        return found[1] if found else None

    columns = classifier.backbone.facts.columns((LAST,))
    labels = [example.label or "" for example in part.dataset]
    found = make_neighbours(part.matrix((LAST,)), columns, labels, part.keys, picture)
    with writing(folder):
        found.save(folder / NEIGHBOURS)


def _mistakes(content: Content) -> dict[str, str]:
    """The surest mistakes, and what each was called."""
    wrong = [shot for shot in content.shots if shot.wrong][:MAPS]
    return {shot.id: shot.prediction for shot in wrong}


write_report = report
