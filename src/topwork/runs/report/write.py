"""Write a run's `report.html`: read its content, and make thumbnails and attention maps."""

from __future__ import annotations

from pathlib import Path

from topwork.backbones.backbone import LAST
from topwork.classifiers.attention import AttentionMapper, overlay
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

MAPS = 60  # mistakes with an attention map


def report(run: str | Path, data: Dataset | str | Path | None = None, *, watch: Watch | None = None) -> Path:
    """Write a run's `report.html`, replacing an existing one.

    Args:
        run: a folder that `train` wrote.
        data: its photos; None for their original location. Missing photos are shown by name.
        watch: receives progress.

    Raises:
        InputError: it is not a run, or its photos can't be found.
        TopworkError: the page can't be written.
    """
    folder, watch = Path(run), watch or Silent()
    classifier = Classifier.load(folder)
    if data is None:
        data = source_of(folder, f"give them: topwork report {folder} DATA")
    return write_page(folder, classifier, data if isinstance(data, Dataset) else load(data), watch)


def write_page(folder: Path, classifier: Classifier, dataset: Dataset, watch: Watch) -> Path:
    """Like `report`, for a loaded classifier and dataset."""
    content = content_of(folder)
    of_id = {example.id: example for example in dataset}
    wanted = [of_id[image_id] for image_id in content.picture_ids() if image_id in of_id]
    mistakes = _mistakes(content)
    with watch.bar("report", len(wanted) + len(mistakes)) as progress:
        pictures = dict(made(small, wanted, progress))
        mapper = AttentionMapper(classifier)
        facts = classifier.backbone.facts

        def looked(example: Example) -> tuple[str, bytes] | None:
            try:
                pixels = decode(example.image.read(), facts.size_px, fit=facts.fit)
            except (ImageError, OSError):
                return None
            number = classifier.classes.index(mistakes[example.id])
            return example.id, jpeg(overlay(pixels, mapper.map(pixels, number)))

        shown = [of_id[image_id] for image_id in mistakes if image_id in of_id] if mapper.possible else []
        maps = dict(made(looked, shown, progress))
    with writing(folder):
        path = folder / PAGE
        path.write_text(render(content, pictures, maps), encoding="utf-8", errors="backslashreplace")
    return path


def write_neighbours(folder: Path, classifier: Classifier, part: Features) -> None:
    """Write thumbnails of training photos, of which the page of `topwork serve` shows the nearest."""

    def picture(row: int) -> bytes | None:
        found = small(part.dataset[row])
        return found[1] if found else None

    columns = classifier.backbone.facts.columns((LAST,))
    labels = [example.label or "" for example in part.dataset]
    found = make_neighbours(part.rows((LAST,)), columns, labels, part.keys, picture)
    with writing(folder):
        found.save(folder / NEIGHBOURS)


def _mistakes(content: Content) -> dict[str, str]:
    """The most confident mistakes: image id → predicted class."""
    wrong = [shot for shot in content.shots if shot.wrong][:MAPS]
    return {shot.id: shot.prediction for shot in wrong}


write_report = report
