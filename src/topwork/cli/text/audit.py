"""An audit as text for people and as JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path

from topwork.checks.findings import KINDS, Audit, Finding

SHOWN = 5  # findings of a kind
SHORT = {  # after a number; where one is told otherwise than several, both
    "unreadable": "unreadable",
    "leak": ("leak", "leaks"),
    "conflict": "one picture under two labels",
    "mislabelled": ("label in doubt", "labels in doubt"),
    "duplicate": ("group of copies", "groups of copies"),
    "near_duplicate": ("group of near copies", "groups of near copies"),
    "blank": "blank",
    "dark": "dark",
    "bright": "blown out",
    "tiny": "tiny",
    "blurred": "blurred",
    "shape": "oddly shaped",
    "outlier": "unlike all others",
    "small_class": ("class too small", "classes too small"),
}


def counts_text(audit: Audit) -> str:
    """'3 labels in doubt, 1 blurred'; empty where nothing was found."""
    return ", ".join(f"{n} {_short(kind, n)}" for kind, n in audit.counts().items() if n)


def _short(kind: str, count: int) -> str:
    told = SHORT[kind]
    return told if isinstance(told, str) else told[count != 1]


def audit_text(audit: Audit, out: Path | None) -> str:
    """What was found, by kind, the gravest first: what it means, the first few, and what to do next."""
    classes = len(audit.class_counts)
    lines = [f"{audit.images} pictures of {classes} classes looked over in {audit.seconds['total']:.1f} s"]
    for name, count in audit.counts().items():
        if not count:
            continue
        kind = KINDS[name]
        lines += ["", f"{kind.title}: {count}", f"  {kind.meaning}"]
        lines += [f"  - {_line(finding)}" for finding in list(audit.of(name))[:SHOWN]]
        if count > SHOWN:
            lines.append(f"  … and {count - SHOWN} more")
    if not audit.findings:
        lines.append("Nothing to find fault with.")
    elif out is None:
        lines += ["", "Next: the same with --out FOLDER, for all of them as files, and as pictures"]
    else:
        lines += ["", f"{out / 'audit.html'} shows them all; nothing of yours was changed."]
        lines += [
            f"Next: edit {out / 'fixes.csv'}, then topwork train DATA --out RUN --fixes {out / 'fixes.csv'}"
        ]
    return "\n".join(lines)


def audit_json(audit: Audit) -> str:
    """`Audit.to_dict` on one line."""
    return json.dumps(audit.to_dict(), ensure_ascii=False)


def _line(finding: Finding) -> str:
    names = ", ".join(
        f"{id} ({label})" if label else id for id, label in zip(finding.ids, finding.labels, strict=False)
    )
    names = names or ", ".join(label for label in finding.labels if label)
    return f"{names}: {finding.note}" if finding.note else names
