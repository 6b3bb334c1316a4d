"""The cache folder: its location, its contents, and clearing it.

It contains `features/<fingerprint>.sqlite` (see `topwork.features.store`), `archives/*.tar` and
`results/*.npz` (see `topwork.storage.results`).
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from topwork.errors import InputError, TopworkError
from topwork.storage.database import COMPANIONS, connect, locked, storage_error

# A store's format: float32 numbers, as once for all and now for measurements, or at half precision.
SINGLE, HALF = "1", "2"
MEASUREMENTS = "thumbnails"  # how the description of a store of these begins
_STORE = re.compile(r"([0-9a-f]+)\.sqlite(\.damaged-[0-9]+)?(?:-wal|-shm|-journal)?")
# The files that Topwork creates in each sub-folder, as patterns of complete names. Nothing else is ever deleted.
_MADE_HERE = {
    "features": _STORE,
    "archives": re.compile(r".+\.tar(\.part)?"),
    "results": re.compile(r"[a-z]+-[0-9a-f]+\.npz(\.[0-9]+\.part)?"),
}


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """One feature store."""

    path: Path
    fingerprint: str
    about: str  # a description, as passed to `Store.open`; "" if there is none
    width: int | None  # features per row; None, like `rows`, if the file can't be read now
    rows: int | None
    half: bool  # whether its numbers are at half precision, as those of networks are now
    size_bytes: int  # including the files that SQLite keeps beside it
    used: datetime  # when it was last opened

    @property
    def earlier(self) -> bool:
        """Whether it has features as versions before half precision stored them: only runs of these use it."""
        return not self.half and bool(self.rows) and not self.about.startswith(MEASUREMENTS)


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """The contents of a cache folder. `total_bytes` counts all files, including those that Topwork didn't create."""

    root: Path
    stores: tuple[StoreInfo, ...]
    set_aside: tuple[Path, ...]  # renamed damaged stores; `clear` deletes them
    folder_bytes: dict[str, int]  # top-level folder → bytes; "" for files directly in the root
    total_bytes: int


def cache_root() -> Path:
    """The cache folder: `$TOPWORK_CACHE` if set, else the platform's user cache."""
    chosen = os.environ.get("TOPWORK_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("topwork", appauthor=False))


def info(root: Path | None = None) -> CacheInfo:
    """List the feature stores, the damaged ones set aside, and the sizes. A missing folder counts as empty."""
    root = cache_root() if root is None else root
    sizes = {path: status.st_size for path, status in _files(root)}
    folder_bytes: dict[str, int] = {}
    for path, size in sizes.items():
        parts = path.relative_to(root).parts
        folder = parts[0] if len(parts) > 1 else ""
        folder_bytes[folder] = folder_bytes.get(folder, 0) + size
    stores, set_aside = [], []
    for path in sorted(path for path in sizes if path.parent == root / "features"):
        match = _STORE.fullmatch(path.name)
        if match is None or path.name.endswith(COMPANIONS[1:]):
            continue
        if match[2]:
            set_aside.append(path)
        else:
            stores.append(_store_info(path, match[1]))
    return CacheInfo(root, tuple(stores), tuple(set_aside), folder_bytes, sum(sizes.values()))


def clear(root: Path | None = None, *, fingerprint: str | None = None) -> int:
    """Delete the files that Topwork created in the cache folder, and return the number of bytes freed.

    With `fingerprint` (complete, or a unique prefix), delete only that store and its damaged copies. Links are
    neither followed nor deleted. A process that is using a store continues with a new, empty one.

    Raises:
        InputError: the root can't be a cache folder; or no store, or more than one, has that fingerprint.
        TopworkError: a file can't be deleted.
    """
    root = cache_root() if root is None else root
    _refuse_wrong_root(root)
    mine = [(path, status.st_size) for path, status in _files(root) if _made_here(path, root)]
    if fingerprint is not None:
        wanted = _one_fingerprint(fingerprint, (path.name for path, _ in mine if path.suffix != ".tar"), root)
        mine = [(path, size) for path, size in mine if path.name.startswith(f"{wanted}.sqlite")]
    if not mine:
        return 0
    freed = 0
    features = root / "features"
    try:
        with locked(features) if features.is_dir() else nullcontext():
            for path, size in mine:
                path.unlink(missing_ok=True)
                freed += size
    except sqlite3.Error as error:
        raise storage_error(error, features) from error
    except OSError as error:
        raise TopworkError(
            f"can't delete {error.filename} from the cache: {error.strerror}; {freed:,} bytes were freed. "
            "Close the programs that use it, or delete it manually"
        ) from error
    return freed


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for folder, _, names in os.walk(root):  # links to folders are not followed
        for name in names:
            path = Path(folder, name)
            with suppress(FileNotFoundError):  # another process may have deleted it
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    yield path, status


def _store_info(path: Path, fingerprint: str) -> StoreInfo:
    size_bytes, used_s = 0, 0.0
    for companion in COMPANIONS:
        with suppress(FileNotFoundError):
            status = Path(f"{path}{companion}").stat()
            size_bytes, used_s = size_bytes + status.st_size, max(used_s, status.st_mtime)
    about, width, rows, half = "", None, None, False
    with suppress(sqlite3.Error, ValueError, KeyError), locked(path.parent):
        if path.exists():  # connecting would create it
            with closing(connect(path)) as connection:
                meta = dict(connection.execute("SELECT name, CAST(value AS TEXT) FROM meta"))
                ((rows,),) = connection.execute("SELECT count(*) FROM features")
                about, width = meta[b"about"].decode(errors="replace"), int(meta[b"width"])
                half = meta[b"format"] == HALF.encode()
    used = datetime.fromtimestamp(used_s, UTC)
    return StoreInfo(path, fingerprint, about, width, rows, half, size_bytes, used)


def _made_here(path: Path, root: Path) -> bool:
    pattern = _MADE_HERE.get(path.parent.name)
    return pattern is not None and path.parent.parent == root and pattern.fullmatch(path.name) is not None


def _refuse_wrong_root(root: Path) -> None:
    real = root.resolve()
    holds_home = False
    with suppress(RuntimeError):  # the user has no home directory
        holds_home = Path.home().resolve().is_relative_to(real)
    if holds_home or real == real.parent:
        raise InputError(
            f"the cache must be a separate folder; got {root}, which contains other files. Set TOPWORK_CACHE to the "
            "folder to clear"
        )


def _one_fingerprint(prefix: str, names: Iterator[str], root: Path) -> str:
    known = sorted({match[1] for match in map(_STORE.fullmatch, names) if match})
    found = [fingerprint for fingerprint in known if prefix and fingerprint.startswith(prefix)]
    if len(found) != 1:
        raise InputError(
            f"expected the fingerprint of one feature store in {root}, or a unique prefix; {prefix!r} matches "
            f"{len(found)}. Known: {', '.join(known) or 'none'}"
        )
    return found[0]


def size_text(n_bytes: int) -> str:
    """1_500_000 → '1.5 MB'."""
    size = float(n_bytes)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
