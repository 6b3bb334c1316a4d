"""Rows of a known feature store, for this process and for child processes that import the same."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from topwork.backbones.half import rounded
from topwork.features.store import Store

FINGERPRINT = "c0ffee0123456789"
NAME = f"{FINGERPRINT}.sqlite"
WIDTH = 700


def key(i: int) -> bytes:
    return hashlib.sha256(str(i).encode()).digest()


def vector(i: int) -> np.ndarray:
    return rounded(np.random.default_rng(i).standard_normal(WIDTH, dtype=np.float32))


def keys(numbers: Sequence[int]) -> list[bytes]:
    return [key(i) for i in numbers]


def vectors(numbers: Sequence[int]) -> np.ndarray:
    return np.stack([vector(i) for i in numbers])


def items(numbers: Sequence[int]) -> list[tuple[bytes, np.ndarray]]:
    return [(key(i), vector(i)) for i in numbers]


def open_store(root: Path) -> Store:
    return Store.open(FINGERPRINT, WIDTH, about="a test's", half=True, root=root)


def child(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python process that runs `script` with this module's names, `root` and `rest` (arguments)."""
    before = (
        "import os, sys\nfrom pathlib import Path\nfrom store_rows import *\n"
        "root, rest = Path(sys.argv[1]), sys.argv[2:]\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", before + script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a child that must succeed; return what it printed."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out
