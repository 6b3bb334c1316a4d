"""Compare an exported file, in its own runtime, with the run on the same pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topwork.data.dataset import Example
from topwork.evaluation.significance import mcnemar
from topwork.exports.contents import Contents
from topwork.exports.photos import pixels_of, whole_pixels

Array = np.ndarray[Any, np.dtype[Any]]
Run = Callable[[Array], dict[str, Array]]

# By precision: the largest difference of a probability that is allowed, and the least share of pictures with the same
# predicted class. With int8, probabilities change, and only the class must agree.
GAP = {"f32": 1e-3, "fp16": 0.05, "bf16": 0.1, "int8": 1.0}
AGREEMENT = {"f32": 1.0, "fp16": 0.99, "bf16": 0.97, "int8": 0.9}
ANY_GAP, ANY_AGREEMENT = 0.05, 0.98  # if the network resizes: it lacks Pillow's optimisations
TIED = 2.0  # times the allowed gap: classes with probabilities this close are ties


@dataclass(frozen=True, slots=True)
class Parity:
    """The differences between a file and its run on the same pictures.

    The accuracies measure the effect of the export, not the quality of the run: the pictures may be training images.
    """

    format: str
    precision: str
    runtime: str
    input: str
    part: str  # the run's part that the pictures are from
    images: int
    agreement: float  # share of pictures with the same predicted class; ties count as agreement
    ties: int  # pictures with different classes that are about equally probable for the run
    gap: float  # largest difference of a probability
    mean_gap: float  # mean over pictures of the largest difference of a probability
    novelty_gap: float | None  # largest difference of novelty, relative to max(novelty, 1)
    rejection: float | None  # share with the same "none of these"; scores close to 1 count as the same
    accuracy: float  # of the run, 0 to 1
    accuracy_exported: float  # of the file, 0 to 1
    change: float  # accuracy_exported - accuracy
    interval: tuple[float, float]  # 95 % interval of `change` (Newcombe 1998)
    allowed: tuple[float, float]  # largest `gap`; least `agreement` and `rejection`

    @property
    def holds(self) -> bool:
        """Whether the file is close enough to the run."""
        rejection = 1.0 if self.rejection is None else self.rejection
        return self.gap <= self.allowed[0] and min(self.agreement, rejection) >= self.allowed[1]

    def write(self, path: Path) -> None:
        """Write this record as JSON."""
        path.write_text(json.dumps(asdict(self) | {"holds": self.holds}, indent=2), encoding="utf-8")


def compare(
    original: Run,
    exported: Run,
    examples: Sequence[Example],
    contents: Contents,
    *,
    format: str,
    runtime: str,
    part: str,
) -> Parity:
    """Run both classifiers on the same pictures, one by one.

    Args:
        original: the run's complete graph: uint8 (1, S, S, 3) → outputs by name.
        exported: the exported file; takes (1, H, W, 3) of any size if `contents.input` is "any".
        examples: labelled pictures; unreadable ones are skipped.
        contents: the file's metadata.
        format: its format.
        runtime: the name of the runtime it is executed in.
        part: the run's part that the pictures are from.
    """
    rows: list[tuple[str | None, dict[str, Array], dict[str, Array]]] = []
    assert contents.size_px[0] == contents.size_px[1]
    for example, pixels in pixels_of(examples, contents.size_px[0], fit=contents.fit):
        given = whole_pixels(example) if contents.input == "any" else pixels
        rows.append((example.label, original(pixels[None]), exported(given[None])))
    p = np.stack([np.ravel(a["probabilities"]) for _, a, _ in rows]).astype(np.float64)  # (M, K)
    q = np.stack([np.ravel(b["probabilities"]) for _, _, b in rows]).astype(np.float64)
    gaps = np.abs(p - q).max(axis=1)
    gaps[~np.isfinite(gaps)] = 1.0
    allowed = _allowed(contents)
    near = min(GAP[contents.precision], 0.01)
    same, ties = p.argmax(axis=1) == q.argmax(axis=1), _ties(p, q, near)
    truth = np.array(
        [contents.classes.index(label) if label in contents.classes else -1 for label, _, _ in rows]
    )
    right, right_exported = p.argmax(axis=1) == truth, q.argmax(axis=1) == truth
    paired = mcnemar(right_exported, right)
    novelty = rejection = None
    if contents.reject_threshold is not None:
        far = np.array([float(np.ravel(a["novelty"])[0]) for _, a, _ in rows])
        far_exported = np.array([float(np.ravel(b["novelty"])[0]) for _, _, b in rows])
        novelty = float((np.abs(far - far_exported) / np.maximum(far, 1)).max())
        alike = ((far > 1) == (far_exported > 1)) | (np.abs(far - 1) <= TIED * near)
        rejection = float((alike & np.isfinite(far_exported)).mean())
    return Parity(
        format=format,
        precision=contents.precision,
        runtime=runtime,
        input=contents.input,
        part=part,
        images=len(rows),
        agreement=float((same | ties).mean()),
        ties=int((~same & ties).sum()),
        gap=float(gaps.max()),
        mean_gap=float(gaps.mean()),
        novelty_gap=novelty,
        rejection=rejection,
        accuracy=float(right.mean()),
        accuracy_exported=float(right_exported.mean()),
        change=paired.difference,
        interval=(paired.interval.low, paired.interval.high),
        allowed=allowed,
    )


def _allowed(contents: Contents) -> tuple[float, float]:
    gap, agreement = GAP[contents.precision], AGREEMENT[contents.precision]
    if contents.input == "any":
        return max(gap, ANY_GAP), min(agreement, ANY_AGREEMENT)
    return gap, agreement


def _ties(p: Array, q: Array, gap: float) -> Array:
    """Whether the file's predicted class is, for the run, about as probable as the run's own: bool (M,)."""
    rows = np.arange(len(p))
    return np.asarray(p.max(axis=1) - p[rows, q.argmax(axis=1)] <= TIED * gap)
