"""Whether an exported file says what the run says: both on the same pictures, the file in its own runtime."""

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

# How far a probability may be off, by what the weights are stored in; and in how many pictures of a hundred the
# likeliest class may differ. 8-bit numbers move probabilities; what counts there is the class.
GAP = {"f32": 1e-3, "fp16": 0.05, "bf16": 0.1, "int8": 1.0}
AGREEMENT = {"f32": 1.0, "fp16": 0.99, "bf16": 0.97, "int8": 0.9}
ANY_GAP, ANY_AGREEMENT = 0.05, 0.98  # where the network resizes: Pillow's short cuts are not in it
TIED = 2.0  # times the allowed gap: classes as close as this are no disagreement


@dataclass(frozen=True, slots=True)
class Parity:
    """The comparison on `images` pictures of the run's part `part`.

    `agreement`: the share whose likeliest class is the same, those aside that the run itself is torn about (`ties`).
    `gap`: the largest difference of a probability; `mean_gap` their mean over pictures, each the largest of its
    classes. `novelty_gap`: the largest difference of the novelty score, as a share of the larger of it and 1;
    `rejection`: the share of pictures of which both say "none of these", or neither does, those aside whose score is
    for the run as good as 1; both None without such an output. `accuracy` and `accuracy_exported` are in 0..1;
    `change` is the second minus the first with `interval`, 95 % (Newcombe 1998). They tell what the export costs, not
    how good the run is. `allowed`: the largest `gap`, the least `agreement` and `rejection`.
    """

    format: str
    precision: str
    runtime: str
    input: str
    part: str
    images: int
    agreement: float
    ties: int
    gap: float
    mean_gap: float
    novelty_gap: float | None
    rejection: float | None
    accuracy: float
    accuracy_exported: float
    change: float
    interval: tuple[float, float]
    allowed: tuple[float, float]

    @property
    def holds(self) -> bool:
        """Whether the file may be called the same classifier."""
        rejection = 1.0 if self.rejection is None else self.rejection
        return self.gap <= self.allowed[0] and min(self.agreement, rejection) >= self.allowed[1]

    def write(self, path: Path) -> None:
        """As JSON."""
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
    """Run both on the same pictures, one by one.

    Args:
        original: the run's whole graph: uint8 (1, S, S, 3) → outputs by name.
        exported: the same of the file; takes (1, H, W, 3) of any size where `contents.input` is "any".
        examples: labelled pictures; those that can't be read are left out.
        contents: of the file.
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
    """Where the class that the file calls likeliest is, for the run, as good as its own: bool (M,)."""
    rows = np.arange(len(p))
    return np.asarray(p.max(axis=1) - p[rows, q.argmax(axis=1)] <= TIED * gap)
