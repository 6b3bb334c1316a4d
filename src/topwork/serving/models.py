"""The classifiers that are served: loaded, warmed up, and swapped for newer ones while requests run."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.attention import Looker
from topwork.backbone import LAST
from topwork.classifier import CALIBRATION, DESCRIPTION, GRAPH, HEAD, WEIGHTS, Classifier, Prediction
from topwork.engine import Engine
from topwork.errors import InputError, TopworkError
from topwork.runfolder import REPORT
from topwork.serving.faults import Fault, starting
from topwork.serving.settings import Source

if TYPE_CHECKING:
    from topwork.neighbours import Neighbours

PARTS = (DESCRIPTION, GRAPH, WEIGHTS, HEAD, CALIBRATION)
Array = np.ndarray[Any, np.dtype[Any]]
Stamp = tuple[tuple[int, int] | None, ...]  # each file's time of change and size


@dataclass(frozen=True, slots=True)
class Tested:
    """What a run's test found."""

    accuracy: float
    interval: tuple[float, float]
    images: int


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A classifier ready to answer, from any number of threads at once. Never changed: a newer one takes its place.

    `version`: the first 12 hexadecimal digits of the SHA-256 of its description.
    """

    name: str
    version: str
    classifier: Classifier
    engine: Engine
    looker: Looker
    neighbours: Neighbours | None
    tested: Tested | None

    @property
    def has_sets(self) -> bool:
        """Whether sets of classes of a chosen coverage can be told."""
        calibration = self.classifier.calibration
        return calibration is not None and calibration.images > 0

    def see(self, pixels: Array) -> tuple[Prediction, Array]:
        """uint8 (S, S, 3) → what `Classifier.predict` says of them, to the bit; and all features, float32 (D,)."""
        classifier = self.classifier
        facts, rule = classifier.backbone.facts, classifier.novelty
        features = self.engine(pixels)
        rows = features[None]  # (1, D)
        far = float(rule.score(rows[:, facts.columns((LAST,))])[0]) if rule else None
        probabilities = classifier.probabilities(rows[:, facts.columns(classifier.blocks)])[0]
        return Prediction("", classifier.classes, probabilities, novelty=far), features


def load(source: Source, workers: int) -> Served:
    """Load a run and let it answer one picture.

    The files are copied first, and loaded from the copy: the weights stay mapped from their file, and one that is
    written over in place would end the process. The copy's name is gone once it is loaded.

    Raises:
        InputError: no run is there, a file of it is damaged, or its answer makes no sense.
    """
    with tempfile.TemporaryDirectory(prefix="topwork-", ignore_cleanup_errors=True) as place:
        copy = Path(place)
        try:
            for name in PARTS:
                if (source.folder / name).is_file():
                    shutil.copyfile(source.folder / name, copy / name)
            classifier = Classifier.load(copy)
        except InputError as error:
            raise InputError(str(error).replace(place, str(source.folder))) from None
        except (OSError, RuntimeError) as error:  # the second is OpenVINO's, of a graph that it can't read
            raise InputError(
                f"{source.folder}: expected a run; it can't be loaded ({error}); train it again"
            ) from None
        version = hashlib.sha256((copy / DESCRIPTION).read_bytes()).hexdigest()[:12]
        served = Served(
            source.name,
            version,
            classifier,
            Engine(classifier.backbone, workers=workers),
            Looker(classifier),
            _neighbours(source.folder),
            _tested(source.folder),
        )
        _warm_up(served, source)
    return served


def stamp(folder: Path) -> Stamp:
    """What changes when a run is written anew: all its files, for the description may be copied before the rest."""
    found: list[tuple[int, int] | None] = []
    for name in PARTS:
        try:
            facts = (folder / name).stat()
            found.append((facts.st_mtime_ns, facts.st_size))
        except OSError:
            found.append(None)
    return tuple(found)


class Registry:
    """The classifiers by name, and what their folders looked like when they were loaded."""

    def __init__(self, sources: tuple[Source, ...], workers: int, note: Callable[[str, bool], None]) -> None:
        self.sources, self._workers, self._note = sources, workers, note
        self._served: dict[str, Served] = {}
        self._tried: dict[str, Stamp] = {}
        self._seen: dict[str, Stamp] = {}

    @property
    def complete(self) -> bool:
        """Whether each run was loaded."""
        return len(self._served) == len(self.sources)

    def all(self) -> list[Served]:
        """In the order that they were given."""
        return [self._served[source.name] for source in self.sources if source.name in self._served]

    def find(self, name: str | None) -> Served:
        """The classifier of that name; the first one for None.

        Raises:
            Fault: 404, or 503 while none is loaded.
        """
        if not self.complete:
            raise starting()
        found = self._served.get(self.sources[0].name if name is None else name)
        if found is None:
            known = ", ".join(source.name for source in self.sources)
            raise Fault(404, "unknown_model", f"expected a model of this server: {known}; got another name")
        return found

    def load_all(self) -> None:
        """At the start; blocks. Raises what `load` raises."""
        for source in self.sources:
            self._tried[source.name] = self._seen[source.name] = stamp(source.folder)
            self._served[source.name] = load(source, self._workers)

    def refresh(self, *, force: bool = False) -> list[str]:
        """Load what has changed, and swap it in where it is sound; a line for each that isn't. Blocks.

        A run that is being written is left alone until two looks find it the same.
        """
        troubles = []
        for source in self.sources:
            now = stamp(source.folder)
            settled, self._seen[source.name] = now == self._seen[source.name], now
            if not force and (now == self._tried[source.name] or not settled):
                continue
            self._tried[source.name] = now
            try:
                self._served[source.name] = load(source, self._workers)
            except TopworkError as error:
                troubles.append(
                    f"{source.name}: not loaded again; the one of before goes on serving: {error}"
                )
                self._note(source.name, False)
            else:
                self._note(source.name, True)
        return troubles


def _warm_up(served: Served, source: Source) -> None:
    size = served.classifier.backbone.facts.size_px
    try:
        prediction, _ = served.see(np.full((size, size, 3), 128, np.uint8))
    except (RuntimeError, ValueError, IndexError) as error:
        raise InputError(
            f"{source.folder}: expected a classifier that answers; it fails on a grey picture ({error})"
        ) from None
    p = prediction.probabilities
    if p is None or p.shape != (len(served.classifier.classes),) or not abs(float(p.sum()) - 1) < 1e-3:
        raise InputError(f"{source.folder}: expected probabilities that sum to 1; got others; train it again")


def _neighbours(folder: Path) -> Neighbours | None:
    from topwork.neighbours import load_neighbours

    try:
        return load_neighbours(folder)
    except TopworkError:
        return None


def _tested(folder: Path) -> Tested | None:
    try:
        test = json.loads((folder / REPORT).read_text("utf-8"))["test"]
        low, high = test["interval"]
        return Tested(float(test["accuracy"]), (float(low), float(high)), int(test["n"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
