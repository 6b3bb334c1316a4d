"""Cache computed arrays under the hash of everything they depend on.

Each result is a file in the cache, `results/<name>-<key>.npz`: a SHA-256, then an `.npz`. If the file is missing or
damaged, or can't be written, the arrays are computed again.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from topwork.storage.cache import cache_root

FOLDER = "results"
DIGEST = 32  # bytes of SHA-256 at the start
KEPT = 64  # files; beyond that, the least recently used one is deleted

Array = np.ndarray[Any, np.dtype[Any]]


def remembered(
    name: str, parts: Iterable[bytes | str], compute: Callable[[], dict[str, Array]]
) -> dict[str, Array]:
    """The arrays that `compute` returns, from the cache if they were computed before for the same `parts`.

    Args:
        name: lower-case letters: what the arrays are and the version of the computation.
        parts: everything that the arrays depend on, in a fixed order.
        compute: returns arrays by name, without object arrays.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    path = cache_root() / FOLDER / f"{name}-{digest.hexdigest()[:32]}.npz"
    with suppress(OSError):
        data = path.read_bytes()
        if hashlib.sha256(data[DIGEST:]).digest() == data[:DIGEST]:
            os.utime(path)
            with np.load(io.BytesIO(data[DIGEST:]), allow_pickle=False) as there:
                return {key: there[key] for key in there.files}
    made = compute()
    written = io.BytesIO()
    np.savez(written, **made)  # type: ignore[arg-type]
    data = written.getvalue()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            beside.write_bytes(hashlib.sha256(data).digest() + data)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        _prune(path.parent)
    return made


def _prune(folder: Path) -> None:
    files = sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_mtime)
    for path in files[:-KEPT]:
        path.unlink(missing_ok=True)
