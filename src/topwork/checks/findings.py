"""The records that an audit gives: findings by kind, each with what it means and what a person may do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Suggestion = Literal["leave out", "relabel", "look", "keep one"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding: its title, what it means, and the mend."""

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
            "The test would ask what was learnt by heart. Move all copies to one side, or let Topwork split.",
        ),
        Kind(
            "conflict",
            "The same picture under two labels",
            "At most one is right. Correct the label, or leave both out.",
        ),
        Kind(
            "mislabelled",
            "Labels that are probably wrong",
            "A head that had not seen the picture is surer of another class than such pictures usually warrant. Look "
            "at each: some are merely hard.",
        ),
        Kind(
            "duplicate",
            "Copies: files equal in every byte",
            "They count double, and say nothing new. Splits keep them on one side.",
        ),
        Kind(
            "near_duplicate",
            "Near copies: resized, recompressed, mirrored, brightened or cropped a little",
            "They count double, and say little new. Splits keep them on one side.",
        ),
        Kind("blank", "Blank pictures", "There is nothing to see. Leave them out, unless they are a class."),
        Kind("dark", "Dark pictures", "Next to nothing can be seen."),
        Kind("bright", "Blown-out pictures", "Next to nothing can be seen."),
        Kind("tiny", "Tiny pictures", "They hold less detail than the network looks for."),
        Kind("blurred", "Blurred pictures", "Far less sharp than the set's usual picture."),
        Kind(
            "shape", "Pictures of an unusual shape", "Made square, they are distorted more than the others."
        ),
        Kind(
            "outlier",
            "Pictures unlike all others",
            "A wrong file, a rare sight, or a class that needs more pictures like it.",
        ),
        Kind(
            "small_class",
            "Classes with too few pictures",
            "Nothing sure can be said of them: add pictures, or merge the class with another.",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to look at: the images (or, for a small class, its name) and what a person may do.

    `labels` are the images' own. `score` orders findings of a kind, the gravest first: a margin, a correlation.
    `label`: the class to give instead, where the suggestion is "relabel".
    """

    kind: str
    ids: tuple[str, ...]
    labels: tuple[str | None, ...]
    suggestion: Suggestion
    note: str = ""
    score: float = 0.0
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found in a data set of `images` pictures (that could be read), `classes` and their counts.

    `groups`: ids that are one picture, by the first of each: what a split keeps together.
    """

    data: str
    images: int
    class_counts: dict[str, int]
    findings: tuple[Finding, ...]
    groups: tuple[tuple[str, ...], ...]
    seconds: dict[str, float]

    def counts(self) -> dict[str, int]:
        """How many findings of each kind, in the order of `KINDS`, none left out."""
        found = Counter(finding.kind for finding in self.findings)
        return {name: found[name] for name in KINDS}

    def of(self, kind: str) -> Iterator[Finding]:
        """The findings of one kind, the gravest first."""
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
