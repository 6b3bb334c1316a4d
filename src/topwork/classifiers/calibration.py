"""A classifier's calibration besides its temperature: the "none of these" rule and the scores for prediction sets.

Stored in a run as `calibration.npz`; older runs have none.
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topwork.classifiers.novelty import Novelty
from topwork.errors import InputError

KEPT = 2001  # most stored scores of held-out images: quantiles in steps of 0.05 %
ARRAYS = ("mean", "axes", "whiten", "centres")
NUMBERS = ("outside", "threshold", "rate")

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The "none of these" rule and the scores for prediction sets."""

    novelty: Novelty | None  # None with too few images, or if switched off
    scores: Array  # float32, ascending: 1 − the probability of the true class, of held-out images
    images: int  # number of held-out images

    def allowance(self, coverage: float) -> float:
        """The conformal threshold: a prediction set has the classes with a probability of at least 1 − this.

        The ⌈coverage · (n + 1)⌉-th smallest of n scores, so that the set contains the true class for a share
        `coverage` of pictures like the training ones: split conformal prediction (Vovk et al. 2005; the score is that
        of Sadinle, Lei and Wasserman 2019, https://arxiv.org/abs/1609.00451). With scores from cross-validation, the
        guarantee is approximate. If n is too small for the coverage, the result is 1: every class is in the set.

        Raises:
            InputError: the coverage is not between 0 and 1, or the classifier has no scores.
        """
        if not 0 < coverage < 1:
            raise InputError(f"the coverage must lie between 0 and 1, such as 0.95; got {coverage:g}")
        if not self.images:
            raise InputError(
                "this classifier has no held-out scores, which prediction sets need; train again, with a linear or "
                "kernel head, or with --validation"
            )
        rank = math.ceil(coverage * (self.images + 1))
        if rank > self.images:
            return 1.0
        if len(self.scores) == self.images:
            return float(self.scores[rank - 1])
        place = math.ceil((rank - 1) / (self.images - 1) * (len(self.scores) - 1))
        return float(self.scores[place])

    def save(self, path: Path) -> None:
        """Write an uncompressed .npz of plain arrays."""
        arrays: dict[str, Array] = {"scores": self.scores, "images": np.array(self.images)}
        if self.novelty is not None:
            arrays |= {name: np.asarray(getattr(self.novelty, name)) for name in ARRAYS + NUMBERS}
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a file written by `save`.

        Raises:
            InputError: the file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            novelty = None
            if "mean" in arrays:
                parts: dict[str, Any] = {name: arrays[name] for name in ARRAYS}
                parts |= {name: float(arrays[name]) for name in NUMBERS}
                novelty = Novelty(**parts)
            return cls(novelty, arrays["scores"], int(arrays["images"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path}: expected a file that `topwork train` wrote; it is damaged ({error}); train again"
            ) from None


def calibration_of(novelty: Novelty | None, targets: Array, probabilities: Array) -> Calibration:
    """Calibrate on held-out images: their targets, int64 (M,), and probabilities, float (M, K)."""
    scores = np.sort(1 - probabilities[np.arange(len(targets)), targets]).astype(np.float32)
    images = len(scores)
    if images > KEPT:
        scores = scores[np.ceil(np.linspace(0, images - 1, KEPT)).astype(np.int64)]
    return Calibration(novelty, scores, images)
