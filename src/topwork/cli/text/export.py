"""The result of an export as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from topwork.jobs.export import Exported


def exported_text(exported: Exported) -> str:
    """The exported file, and the comparison with the run."""
    size = bytes_of(exported.path) / 1e6
    lines = [f"wrote {exported.path} ({size:.1f} MB)"]
    parity = exported.parity
    if parity is not None:
        same = "all" if parity.agreement == 1 else f"{parity.agreement:.1%}"
        lines.append(
            f"checked in {parity.runtime} on {parity.images} {parity.part} pictures: the same class in {same} of "
            f"them, probabilities within {parity.gap:.1g}"
        )
        if parity.precision == "int8":
            low, high = (100 * end for end in parity.interval)
            lines.append(
                f"accuracy on them {100 * parity.change:+.1f} points (95 % {low:+.1f} to {high:+.1f})"
            )
    return "\n".join(lines)


def exported_json(exported: Exported) -> str:
    """One object: path, bytes, contents, parity."""
    parity, contents = exported.parity, exported.contents
    return json.dumps(
        {
            "path": str(exported.path),
            "bytes": bytes_of(exported.path),
            "parity": None if parity is None else asdict(parity) | {"holds": parity.holds},
            "contents": None if contents is None else contents.to_dict(),
        },
        ensure_ascii=False,
    )


def bytes_of(path: Path) -> int:
    """The size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)
