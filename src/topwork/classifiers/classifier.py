"""A classifier: backbone, head and class names. After saving and loading, its predictions are identical."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topwork.backbones.backbone import LAST, Backbone, BackboneFacts
from topwork.backbones.engine import Engine, Vector
from topwork.classifiers.calibration import Calibration
from topwork.classifiers.graph import attach, without_head
from topwork.classifiers.neighbours import NEIGHBOURS
from topwork.classifiers.novelty import Novelty
from topwork.classifiers.score import score, targets_for
from topwork.data.dataset import Dataset, Example, ImageSource
from topwork.data.sources import load, load_images
from topwork.errors import ImageError, InputError
from topwork.evaluation.evaluate import Evaluation
from topwork.features.extract import Matrix, extract, open_store
from topwork.heads.file import load_head, save_head
from topwork.heads.head import Head
from topwork.images.decode import decode
from topwork.parallel import stream

FORMAT = 1
DESCRIPTION, GRAPH, WEIGHTS, HEAD = "classifier.json", "model.xml", "model.bin", "head.npz"
CALIBRATION = "calibration.npz"


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction for one image: a probability for each class, or an error."""

    image: str
    classes: tuple[str, ...]
    probabilities: np.ndarray[Any, np.dtype[np.float32]] | None  # (K,), summing to 1; None with an error
    error: str | None = None
    novelty: float | None = None  # above 1: out-of-distribution, "none of these"; None without a rule

    @property
    def rejected(self) -> bool:
        """Whether the image is out-of-distribution, that is, none of the classes."""
        return self.novelty is not None and self.novelty > 1

    @property
    def reason(self) -> str | None:
        """Why the image was rejected; None if it was not."""
        if self.novelty is None or not self.rejected:
            return None
        return f"unlike the training pictures: {self.novelty:.1f} times as far from them as the limit"

    def top(self, k: int = 1) -> list[tuple[str, float]]:
        """The `k` most probable classes with their probabilities, in order; empty for an unreadable image."""
        if self.probabilities is None:
            return []
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]

    def at_least(self, probability: float) -> list[tuple[str, float]]:
        """The classes with at least this probability, most probable first; the first one is always included."""
        ranked = self.top(len(self.classes))
        return [pair for i, pair in enumerate(ranked) if not i or pair[1] >= probability]


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """A backbone, the feature blocks that the head uses, the head, and the class names."""

    classes: tuple[str, ...]
    backbone: Backbone
    blocks: tuple[str, ...]
    head: Head
    calibration: Calibration | None = None

    @property
    def novelty(self) -> Novelty | None:
        """The rule for "none of these", if there is one."""
        return self.calibration.novelty if self.calibration else None

    def probabilities(self, features: Matrix) -> Matrix:
        """Calibrated probabilities, float32 (N, K), from features of the head's blocks, float32 (N, D)."""
        return self.head.probabilities(features)

    def predict_features(self, features: Vector, *, image: str = "") -> Prediction:
        """The prediction for one image from all its features, float32 (width,), as the engine returns them."""
        facts, row = self.backbone.facts, features[None]
        rule = self.novelty
        far = float(rule.score(row[:, facts.columns((LAST,))])[0]) if rule else None
        probabilities = self.probabilities(row[:, facts.columns(self.blocks)])[0]
        return Prediction(image, self.classes, probabilities, novelty=far)

    def predict_image(self, image: ImageSource, infer: Engine) -> Prediction:
        """The prediction for one image from its bytes; an unreadable image gives a prediction with an error."""
        facts = self.backbone.facts
        try:
            pixels = decode(image.read(), facts.size_px, fit=facts.fit)
        except ImageError as error:
            return Prediction(str(image), self.classes, None, str(error))
        except OSError as error:
            return Prediction(str(image), self.classes, None, error.strerror or str(error))
        return self.predict_features(infer(pixels), image=str(image))

    def least_probability(self, coverage: float) -> float:
        """The smallest probability of a class in a prediction set with this coverage of the true class.

        Raises:
            InputError: the coverage is not between 0 and 1, or the classifier has no held-out scores.
        """
        return 1 - (self.calibration or Calibration(None, np.zeros(0, np.float32), 0)).allowance(coverage)

    def predict(self, images: Dataset | str | Path | list[str]) -> Iterator[Prediction]:
        """Yield a prediction for each image, in order; memory use doesn't depend on the number of images.

        Args:
            images: a dataset (labels don't matter), or files, folders and glob patterns.

        >>> classifier = Classifier.load("run")  # doctest: +SKIP
        >>> [p.top() for p in classifier.predict("photos/*.jpg")]  # doctest: +SKIP
        [[('rose', 0.98)], [('tulip', 0.91)]]
        """
        dataset = images if isinstance(images, Dataset) else load_images(images)
        infer = Engine(self.backbone)

        def look(example: Example) -> Prediction:
            return self.predict_image(example.image, infer)

        with closing(stream(look, dataset, workers=infer.workers)) as results:
            yield from results
        for problem in dataset.skipped:
            yield Prediction(problem.id, self.classes, None, problem.reason)

    def evaluate(self, data: Dataset | str | Path) -> Evaluation:
        """Score the classifier on labelled images, each exactly once; computed features are stored.

        Args:
            data: a dataset, or anything that `topwork.load` takes.

        Raises:
            InputError: no image can be read, or one has a label that is not among the classes.

        >>> Classifier.load("run").evaluate("other-photos").accuracy  # doctest: +SKIP
        0.91
        """
        dataset = data if isinstance(data, Dataset) else load(data)
        targets_for(self, dataset)  # fail before the work
        with open_store(self.backbone.facts) as store:
            return score(self, extract(dataset, self.backbone, store=store)).evaluation

    def save(self, folder: Path) -> None:
        """Write `model.xml`, `model.bin`, `head.npz` and, last, `classifier.json` into `folder`.

        `model.xml` is the complete classifier as one graph: `image` uint8 (1, S, S, 3) in, `probabilities` (1, K) and
        `features` (1, D) out; and, with a rule for "none of these", `novelty` (1, 1), above 1 for such a picture.
        `calibration.npz` is written if there is a calibration.
        """
        import openvino as ov

        facts = self.backbone.facts
        whole = attach(
            self.backbone.graph,
            self.head,
            facts.columns(self.blocks),
            novelty=(self.novelty, facts.columns((LAST,))) if self.novelty else None,
        )
        # Write elsewhere, then move: the graph may have been loaded from the very file that is replaced.
        with tempfile.TemporaryDirectory(dir=folder) as beside:
            ov.save_model(whole, Path(beside) / GRAPH, compress_to_fp16=False)
            for name in (WEIGHTS, GRAPH):
                (Path(beside) / name).replace(folder / name)
        save_head(self.head, folder / HEAD)
        (folder / CALIBRATION).unlink(missing_ok=True)
        (folder / NEIGHBOURS).unlink(missing_ok=True)  # of another network's features
        files = [GRAPH, WEIGHTS, HEAD]
        if self.calibration is not None:
            self.calibration.save(folder / CALIBRATION)
            files.append(CALIBRATION)
        description = {
            "format": FORMAT,
            "classes": list(self.classes),
            "backbone": facts.to_dict(),
            "blocks": list(self.blocks),
            "head": self.head.kind,
            "temperature": self.head.temperature,
            "reject_threshold": self.novelty.threshold if self.novelty else None,
            "reject_rate": self.novelty.rate if self.novelty else None,
            "sha256": {name: _sha256(folder / name) for name in files},
            "versions": versions(),
        }
        (folder / DESCRIPTION).write_text(
            json.dumps(description, indent=2, ensure_ascii=False), encoding="utf-8"
        )

    @classmethod
    def load(cls, folder: str | Path) -> Classifier:
        """Load a classifier written by `save`.

        Raises:
            InputError: the folder is not a run, has a later format, or has a damaged file.
        """
        import openvino as ov

        folder = Path(folder)
        plain = _describe(folder)
        try:
            classes, blocks, sha256 = tuple(plain["classes"]), tuple(plain["blocks"]), plain["sha256"]
            expected = {name: sha256[name] for name in (GRAPH, WEIGHTS, HEAD)}
            if CALIBRATION in sha256:  # older runs have none
                expected[CALIBRATION] = sha256[CALIBRATION]
            facts = BackboneFacts.from_dict(plain["backbone"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{folder / DESCRIPTION}: expected a classifier's description; it was changed since it was "
                f"written ({type(error).__name__}: {error})"
            ) from None
        for name, digest in expected.items():
            if not (folder / name).is_file() or _sha256(folder / name) != digest:
                raise InputError(
                    f"{folder / name}: expected the file that was saved with this classifier; it is missing or "
                    "was changed since; copy the run's folder whole, or train again"
                )
        core = ov.Core()
        core.set_property({"ENABLE_MMAP": False})  # overwriting a memory-mapped file would crash the process
        graph = without_head(core.read_model(folder / GRAPH))
        calibration = Calibration.load(folder / CALIBRATION) if CALIBRATION in expected else None
        return cls(classes, Backbone(facts, graph), blocks, load_head(folder / HEAD), calibration)


def _describe(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder}: expected a folder that `topwork train` wrote; it has no {DESCRIPTION}"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a classifier's description; it can't be read ({error})") from None
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        found = plain.get("format") if isinstance(plain, dict) else None
        raise InputError(
            f"{path}: expected format {FORMAT}; got {found!r}; use the Topwork version that wrote it"
        )
    return plain


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def versions() -> dict[str, str]:
    """The package versions that wrote a classifier, for its description."""
    return {name: importlib.metadata.version(name) for name in ("topwork", "openvino", "numpy", "pillow")}
