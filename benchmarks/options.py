"""The options that several benchmarks have in common: one name, one meaning and one help text for each.

    parser = shared_options(__doc__, seed=0, repeats=5)

A program names the shared options that it has, with their defaults, and adds its own to the parser that it gets.
Only the standard library is used: some programs run where Topwork is not installed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WORK = ROOT / "benchmarks" / "work"  # ignored by git
FLIPS = ("none", "horizontal", "both")

SHARED: dict[str, dict[str, Any]] = {
    "backbone": {"help": "handle of the network"},
    "batch": {"type": int, "help": "images a training step"},
    "cut": {"help": "block after which the tuned tail begins; by default, as the time allows"},
    "epochs": {"type": int, "help": "epochs of training"},
    "flips": {"choices": FLIPS, "help": "how training images are mirrored at random"},
    "images": {"type": int, "help": "number of images"},
    "json": {"type": Path, "metavar": "FILE", "help": "also write all figures to this file"},
    "minutes": {"type": float, "help": "time limit of fine-tuning"},
    "only": {"nargs": "+", "metavar": "NAME", "help": "measure these only"},
    "out": {"type": Path, "metavar": "FILE", "help": "write the page to this file"},
    "pictures": {"type": int, "help": "number of pictures in each dataset"},
    "quick": {"action": "store_true", "help": "leave out what takes long, run the rest once and print only"},
    "rate": {"type": float, "help": "highest learning rate"},
    "repeats": {"type": int, "help": "number of repeats; the ways that are compared take turns in each"},
    "rows": {
        "type": Path,
        "metavar": "FILE",
        "help": "add each result as a JSON line; go on from those there",
    },
    "seconds": {"type": float, "help": "length of one measurement"},
    "seed": {"type": int, "help": "seed of all that is random"},
    "size": {"type": int, "help": "side of the network's input in pixels"},
    "splits": {"type": int, "help": "number of random splits, with seeds 0, 1, …"},
    "work": {"type": Path, "metavar": "FOLDER", "help": "folder of datasets and results"},
}


def shared_options(doc: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """A parser described by a docstring's first line, with the shared options that are given a default."""
    made = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    for name, default in defaults.items():
        known = SHARED[name]
        tells = default is not None and "nargs" not in known and "action" not in known
        help = known["help"] + (" (default: %(default)s)" if tells else "")
        made.add_argument(f"--{name}", **{**known, "default": default, "help": help})
    return made
