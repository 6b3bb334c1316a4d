"""The records of an audit: findings by kind, with their meaning and a suggestion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Suggestion = Literal["leave out", "relabel", "look", "keep one"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding: its title, its meaning and how to fix it."""

    name: str
    title: str
    meaning: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "unreadable",
            "Files that can't be read",
            "They were left out. Replace them, or remove them from the folder.",
        ),
        Kind(
            "leak",
            "The same picture on both sides of a given split",
            "The test would reward memorisation. Move all copies to one side, or let Topwork split.",
        ),
        Kind(
            "conflict",
            "The same picture under two labels",
            "At most one is right. Correct the label, or leave both out.",
        ),
        Kind(
            "mislabelled",
            "Labels that are probably wrong",
            "A head that was not trained on the picture is unusually confident of another class. Look at each: some "
            "are merely hard.",
        ),
        Kind(
            "duplicate",
            "Copies: byte-identical files",
            "They count double and add no information. Splits keep them on one side.",
        ),
        Kind(
            "near_duplicate",
            "Near-duplicates: resized, recompressed, mirrored, brightened or slightly cropped",
            "They count double and add little information. Splits keep them on one side.",
        ),
        Kind("blank", "Blank pictures", "There is nothing to see. Leave them out, unless they are a class."),
        Kind("dark", "Dark pictures", "Almost nothing can be seen."),
        Kind("bright", "Overexposed pictures", "Almost nothing can be seen."),
        Kind("tiny", "Tiny pictures", "They have less detail than the network can use."),
        Kind("blurred", "Blurred pictures", "Far less sharp than the set's typical picture."),
        Kind(
            "shape", "Pictures of an unusual shape", "Made square, they are distorted more than the others."
        ),
        Kind(
            "outlier",
            "Pictures unlike all others",
            "A wrong file, a rare case, or a class that needs more pictures like it.",
        ),
        Kind(
            "small_class",
            "Classes with too few pictures",
            "Their scores are unreliable: add pictures, or merge the class with another.",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to look at, with a suggestion."""

    kind: str
    ids: tuple[str, ...]  # of the images; empty for a small class
    labels: tuple[str | None, ...]  # of the images; for a small class, its name
    suggestion: Suggestion
    note: str = ""
    score: float = 0.0  # orders the findings of a kind, the worst first: a margin or a correlation
    label: str | None = None  # the class that the image seems to have


@dataclass(frozen=True, slots=True)
class Audit:
    """The findings of a data set."""

    data: str
    images: int  # that could be read
    class_counts: dict[str, int]
    findings: tuple[Finding, ...]
    groups: tuple[tuple[str, ...], ...]  # ids of copies, which a split keeps together
    seconds: dict[str, float]

    def counts(self) -> dict[str, int]:
        """The number of findings of every kind, in the order of `KINDS`."""
        found = Counter(finding.kind for finding in self.findings)
        return {name: found[name] for name in KINDS}

    def of(self, kind: str) -> Iterator[Finding]:
        """The findings of one kind, the worst first."""
        return (finding for finding in self.findings if finding.kind == kind)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, for JSON."""
        return {
            "data": self.data,
            "images": self.images,
            "classes": self.class_counts,
            "counts": self.counts(),
            "findings": [
                {
                    "kind": f.kind,
                    "ids": list(f.ids),
                    "labels": list(f.labels),
                    "suggestion": f.suggestion,
                    "label": f.label,
                    "score": round(f.score, 4),
                    "note": f.note,
                }
                for f in self.findings
            ],
            "groups": [list(group) for group in self.groups],
            "seconds": self.seconds,
        }
