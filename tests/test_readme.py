"""The README quotes docs/benchmarks.md, and nothing older; the commands in the docs name benchmarks that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def between_marks(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return text.split("<!-- figures: begin -->")[1].split("<!-- figures: end -->")[0]


def test_its_figures_are_those_of_the_table() -> None:
    table, told = between_marks(ROOT / "docs" / "benchmarks.md"), between_marks(ROOT / "README.md")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line
    ]
    seconds = {row[0]: float(row[1].split()[0]) for row in rows if row[1].endswith(" s")}
    tested = next(row[3] for row in rows if row[0] == "`topwork train`, nothing stored")
    names = ("textbook program", "`topwork train`, nothing stored", "`topwork train`, features stored")
    expected = [f"{seconds[name]:.0f}" for name in names]
    assert re.findall(r"(\d+) s\b", told) == expected
    assert re.search(r"([\d.]+) %", told)[1] == re.match(r"test ([\d.]+)%", tested)[1]


def test_commands_name_benchmarks_that_exist() -> None:
    """`speed.decode` in docs/benchmarks.md and the notes stands for `python -m benchmarks.speed.decode`."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    told = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"(?:`|-m benchmarks\.)((?:accuracy|hostile|parity|speed)\.[\w.]+)", told))
    named |= {path.removesuffix(".py") for path in re.findall(r"benchmarks/([\w/]+\.py)", told)}
    assert len(named) > 20
    folder = ROOT / "benchmarks"
    assert not [name for name in named if not (folder / f"{name.replace('.', '/')}.py").exists()]
