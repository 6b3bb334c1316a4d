"""The served runs: loaded, run on pictures, and reloaded when their folders change."""

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
from topwork.classifiers.attention import AttentionMapper
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
class ClassifiedPicture:
    """One picture with its features and prediction."""

    pixels: Array  # as the network saw it, uint8 (S, S, 3)
    features: Array  # float32 (D,)
    prediction: Prediction


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A run in memory, independent of its folder. Thread-safe."""

    name: str
    version: str
    classifier: Classifier
    test: dict[str, Any] | None
    infer: Engine
    mapper: AttentionMapper
    neighbours: Neighbours | None

    def classify(self, data: bytes, *, most_pixels: int) -> ClassifiedPicture:
        """Classify a picture file's bytes.

        Raises:
            ImageError: the bytes are not a picture, or it has more than `most_pixels`.
        """
        width, height = size_of(data)
        if width * height > most_pixels:
            raise ImageError(f"the image has {width} x {height} pixels; the limit is {most_pixels:,}")
        facts = self.classifier.backbone.facts
        return self.classify_pixels(decode(data, facts.size_px, fit=facts.fit))

    def classify_pixels(self, pixels: Array) -> ClassifiedPicture:
        """Classify pixels, uint8 (S, S, 3)."""
        features = self.infer(pixels)
        return ClassifiedPicture(pixels, features, self.classifier.predict_features(features))


class Registry:
    """The runs by name; `refresh` reloads those whose folders have changed, if they are complete."""

    def __init__(self, runs: Sequence[str], *, workers: int) -> None:
        self._workers = workers
        self._folders: dict[str, Path] = {}
        for given in runs:
            name, _, path = given.rpartition("=")
            folder = Path(path)
            name = name or folder.resolve().name
            if name in self._folders:
                raise InputError(
                    f"{path}: another run is also called {name!r}; give this one a name: OTHER={path}"
                )
            self._folders[name] = folder
        self._stamps = {name: stamp(folder) for name, folder in self._folders.items()}
        self._served = {name: self._load(name) for name in self._folders}
        self._turn = threading.Lock()

    def __iter__(self) -> Any:
        return iter(list(self._served.values()))

    def get(self, name: str | None) -> Served:
        """A run by its name; None: the first one. Raises `InputError` for an unknown name."""
        if name is None:
            return next(iter(self._served.values()))
        if name not in self._served:
            raise InputError(one_of(name[:80], self._served, what="model"))
        return self._served[name]

    def refresh(self, *, force: bool = False) -> list[tuple[str, bool]]:
        """Reload changed runs; a run that fails to load stays as it was. Return each tried name and its success."""
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
                        f"topwork: {name}: reload failed; the previous model stays ({error})",
                        file=sys.stderr,
                    )
                    tried.append((name, False))
                else:
                    print(f"topwork: {name}: reloaded, {self._served[name].version}", file=sys.stderr)
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
            name,
            version,
            classifier,
            _test(folder),
            infer,
            AttentionMapper(classifier),
            load_neighbours(folder),
        )
        size = classifier.backbone.facts.size_px
        made.classify_pixels(np.full((size, size, 3), 128, np.uint8))  # compile before the first request
        return made


def stamp(folder: Path) -> Stamp:
    """Sizes and modification times of a run's files, to detect changes."""
    marks: list[tuple[int, int] | None] = []
    for name in (DESCRIPTION, GRAPH, WEIGHTS, HEAD, CALIBRATION, NEIGHBOURS):
        try:
            found = (folder / name).stat()
            marks.append((found.st_size, found.st_mtime_ns))
        except OSError:
            marks.append(None)
    return tuple(marks)


def _test(folder: Path) -> dict[str, Any] | None:
    """The run's test accuracy."""
    try:
        test = read_report(folder)["test"]
        return {"accuracy": test["accuracy"], "interval": list(test["interval"]), "images": test["n"]}
    except (InputError, KeyError, TypeError):
        return None
