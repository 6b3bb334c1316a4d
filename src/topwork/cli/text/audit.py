"""An audit as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from topwork.checks.findings import KINDS, Audit, Finding

SHOWN = 5  # findings shown of each kind
SHORT = {  # text after a number; singular and plural if they differ
    "unreadable": "unreadable",
    "leak": ("leak", "leaks"),
    "conflict": "one picture under two labels",
    "mislabelled": "probably mislabelled",
    "duplicate": ("group of copies", "groups of copies"),
    "near_duplicate": ("group of near-duplicates", "groups of near-duplicates"),
    "blank": "blank",
    "dark": "dark",
    "bright": "overexposed",
    "tiny": "tiny",
    "blurred": "blurred",
    "shape": "oddly shaped",
    "outlier": ("outlier", "outliers"),
    "small_class": ("class too small", "classes too small"),
}


def counts_text(audit: Audit) -> str:
    """The number of findings of each kind: '3 probably mislabelled, 1 blurred'; empty if there are none."""
    return ", ".join(f"{n} {_short(kind, n)}" for kind, n in audit.counts().items() if n)


def _short(kind: str, count: int) -> str:
    told = SHORT[kind]
    return told if isinstance(told, str) else told[count != 1]


def audit_text(audit: Audit, out: Path | None) -> str:
    """The findings by kind, most serious first, with explanations and the next command."""
    classes = len(audit.class_counts)
    lines = [f"{audit.images} pictures of {classes} classes checked in {audit.seconds['total']:.1f} s"]
    for name, count in audit.counts().items():
        if not count:
            continue
        kind = KINDS[name]
        lines += ["", f"{kind.title}: {count}", f"  {kind.meaning}"]
        lines += [f"  - {_line(finding)}" for finding in list(audit.of(name))[:SHOWN]]
        if count > SHOWN:
            lines.append(f"  … and {count - SHOWN} more")
    if not audit.findings:
        lines.append("No problems found.")
    elif out is None:
        lines += ["", "Next: add --out FOLDER to write all findings to files, with pictures"]
    else:
        lines += ["", f"{out / 'audit.html'} shows all findings; your files were not changed."]
        lines += [
            f"Next: edit {out / 'fixes.csv'}, then topwork train DATA --out RUN --fixes {out / 'fixes.csv'}"
        ]
    return "\n".join(lines)


def audit_json(audit: Audit) -> str:
    """`Audit.to_dict` on one line."""
    return json.dumps(audit.to_dict(), ensure_ascii=False)


def _line(finding: Finding) -> str:
    names = ", ".join(
        f"{image_id} ({label})" if label else image_id
        for image_id, label in zip(finding.ids, finding.labels, strict=False)
    )
    names = names or ", ".join(label for label in finding.labels if label)
    return f"{names}: {finding.note}" if finding.note else names
