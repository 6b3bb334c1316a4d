"""The runs that are served: loaded, looked at, and loaded anew when their folders change."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topwork.backbones.backbone import precision_note
from topwork.backbones.engine import Engine
from topwork.classifiers.attention import Looker
from topwork.classifiers.classifier import (
    CALIBRATION,
    DESCRIPTION,
    GRAPH,
    HEAD,
    WEIGHTS,
    Classifier,
    Prediction,
)
from topwork.classifiers.neighbours import NEIGHBOURS, Neighbours, load_neighbours
from topwork.errors import ImageError, InputError, one_of
from topwork.images.decode import decode, size_of
from topwork.runs.record import read_report

Stamp = tuple[tuple[int, int] | None, ...]
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Look:
    """One picture as the network saw it, uint8 (S, S, 3); its features, float32 (D,); what is said of it."""

    pixels: Array
    features: Array
    prediction: Prediction


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A run in memory. Nothing is read from its folder any more. Call it from any thread."""

    name: str
    version: str
    classifier: Classifier
    test: dict[str, Any] | None
    infer: Engine
    looker: Looker
    neighbours: Neighbours | None

    def look(self, data: bytes, *, most_pixels: int) -> Look:
        """A picture file's bytes → what the classifier says of it.

        Raises:
            ImageError: these bytes give no picture, or one of more than `most_pixels`.
        """
        width, height = size_of(data)
        if width * height > most_pixels:
            raise ImageError(f"the image has {width} x {height} pixels; the limit is {most_pixels:,}")
        facts = self.classifier.backbone.facts
        return self.look_at(decode(data, facts.size_px, fit=facts.fit))

    def look_at(self, pixels: Array) -> Look:
        """uint8 (S, S, 3) → what the classifier says of it."""
        features = self.infer(pixels)
        return Look(pixels, features, self.classifier.predict_features(features))


class Registry:
    """The runs by name; `refresh` loads those anew whose folders have changed, if they are whole."""

    def __init__(self, runs: Sequence[str], *, workers: int) -> None:
        self._workers = workers
        self._folders: dict[str, Path] = {}
        for given in runs:
            name, _, path = given.rpartition("=")
            folder = Path(path)
            name = name or folder.resolve().name
            if name in self._folders:
                raise InputError(f"{path}: another run is called {name!r}, too; name it: OTHER={path}")
            self._folders[name] = folder
        self._stamps = {name: stamp(folder) for name, folder in self._folders.items()}
        self._served = {name: self._load(name) for name in self._folders}
        self._turn = threading.Lock()

    def __iter__(self) -> Any:
        return iter(list(self._served.values()))

    def get(self, name: str | None) -> Served:
        """A run by its name; the first one without. Raises `InputError` for an unknown name."""
        if name is None:
            return next(iter(self._served.values()))
        if name not in self._served:
            raise InputError(one_of(name[:80], self._served, what="model"))
        return self._served[name]

    def refresh(self, *, force: bool = False) -> list[tuple[str, bool]]:
        """Load what has changed; which runs were tried, and whether each could be. The old one stays otherwise."""
        tried = []
        with self._turn:
            for name, folder in self._folders.items():
                found = stamp(folder)
                if found == self._stamps[name] and not force:
                    continue
                self._stamps[name] = found
                try:
                    self._served[name] = self._load(name)
                except Exception as error:
                    print(
                        f"topwork: {name}: not loaded anew, the one of before goes on ({error})",
                        file=sys.stderr,
                    )
                    tried.append((name, False))
                else:
                    print(f"topwork: {name}: loaded anew, {self._served[name].version}", file=sys.stderr)
                    tried.append((name, True))
        return tried

    def _load(self, name: str) -> Served:
        folder = self._folders[name]
        classifier = Classifier.load(folder)
        if note := precision_note(classifier.backbone.facts):
            print(f"topwork: {name}: {note}", file=sys.stderr)
        version = hashlib.sha256((folder / DESCRIPTION).read_bytes()).hexdigest()[:12]
        infer = Engine(classifier.backbone, workers=self._workers)
        made = Served(
            name, version, classifier, _test(folder), infer, Looker(classifier), load_neighbours(folder)
        )
        size = classifier.backbone.facts.size_px
        made.look_at(np.full((size, size, 3), 128, np.uint8))  # compiled before the first request
        return made


def stamp(folder: Path) -> Stamp:
    """What changes when a run's folder is written: size and time of its files."""
    marks: list[tuple[int, int] | None] = []
    for name in (DESCRIPTION, GRAPH, WEIGHTS, HEAD, CALIBRATION, NEIGHBOURS):
        try:
            found = (folder / name).stat()
            marks.append((found.st_size, found.st_mtime_ns))
        except OSError:
            marks.append(None)
    return tuple(marks)


def _test(folder: Path) -> dict[str, Any] | None:
    """What the run's own test said."""
    try:
        test = read_report(folder)["test"]
        return {"accuracy": test["accuracy"], "interval": list(test["interval"]), "images": test["n"]}
    except (InputError, KeyError, TypeError):
        return None
