"""The feature store: vectors under the SHA-256 of the image that they were computed from.

One SQLite file per backbone fingerprint, in WAL mode, so that several processes may share it. A process that
is killed at any moment loses at most the `put` in flight. After a power cut the last few commits may be
missing (`synchronous=NORMAL` waits for the disk at checkpoints only), never torn. What is lost, damaged or
cleared is simply absent, and is computed again.

Not for a folder that several *machines* write to at once: WAL needs memory that they would have to share.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from topwork.backbones import half
from topwork.errors import InputError, TopworkError
from topwork.storage.cache import HALF, SINGLE, cache_root
from topwork.storage.database import DamagedError, is_damage, locked, open_database, set_aside, storage_error

KEY_BYTES, PREFIX_BYTES = 32, 8  # SHA-256
AT_ONCE = 256  # rows read in one transaction

# A rowid table, with the keys in an index of their own: `missing` reads keys alone, and new vectors are
# appended instead of being scattered by their hash.
_TABLES = {
    "features": (
        "CREATE TABLE features (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, "
        "checksum INTEGER NOT NULL, vector BLOB NOT NULL)"
    ),
}
# A row that is there but differs is replaced, not ignored: this is how a damaged row heals.
_PUT = (
    "INSERT INTO features (key, checksum, vector) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
    "checksum = excluded.checksum, vector = excluded.vector "
    "WHERE vector IS NOT excluded.vector OR checksum IS NOT excluded.checksum"
)
_IS_KEY = (
    f"typeof(key) = 'blob' AND length(key) = {KEY_BYTES}"  # a damaged record may hold any type and length
)
_THERE = "SELECT 1 FROM features WHERE key = ? AND checksum = ? AND vector = ?"
T = TypeVar("T")


class Store:
    """Feature vectors of one backbone on disk; see `Store.open`. A context manager.

    Any thread may call it; calls take turns. A forked child must open its own. A store that turns out to be
    damaged, at any time, is renamed (`set_aside` then names the new path, to tell the user) and a fresh one
    is begun. Where another process has cleared it or set it aside, a fresh one is begun too. Either way the
    caller sees absent rows.

    Every method may raise `TopworkError`: the disk is full, the folder can't be written, another process
    holds the file for a minute, or damage comes back at once.
    """

    def __init__(self, path: Path, fingerprint: str, width: int, about: str, half: bool) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self.width = width
        self.about = about
        self.half = half
        self.set_aside: Path | None = None
        self._turn = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None

    @classmethod
    def open(
        cls, fingerprint: str, width: int, *, about: str = "", half: bool = False, root: Path | None = None
    ) -> Store:
        """Open, or begin, the store of the backbone with this `fingerprint` (lower-case hex).

        `width`: numbers in a vector. `about`: a line for people, kept when the store is begun, such as
        "efficientnet-lite0 224 px f32". `half`: whether vectors are rounded to half precision, which takes half the
        space. `root`: the cache folder instead of `cache_root()`.

        >>> import tempfile
        >>> key = bytes(32)
        >>> with Store.open("c0ffee00", 3, root=Path(tempfile.mkdtemp())) as store:
        ...     store.put([(key, np.array([1.0, 2.0, 3.0]))])
        ...     vectors, absent = store.get([key, b"x" * 32])
        >>> vectors[0].tolist(), absent.tolist()
        ([1.0, 2.0, 3.0], [1])
        """
        if not re.fullmatch("[0-9a-f]{8,128}", fingerprint):
            raise InputError(f"a fingerprint must be 8 to 128 lower-case hex digits; got {fingerprint!r}")
        if width < 1:
            raise InputError(f"`width` must be a positive int; got {width}")
        folder = (cache_root() if root is None else root) / "features"
        store = cls(folder / f"{fingerprint}.sqlite", fingerprint, width, about, half)
        store._open()
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close; the last of all processes to close folds the log into the one file. May be called twice."""
        with self._turn:
            if self._connection is not None:
                self._connection.close()  # checkpoints, if it can; on a full disk the log stays, and is valid
                self._connection = None

    def __len__(self) -> int:
        return self._run(lambda c: int(c.execute("SELECT count(*) FROM features").fetchone()[0]))

    def __contains__(self, key: bytes) -> bool:
        return self.missing([key]).size == 0

    def has(self, key: bytes) -> bool:
        """Whether a vector is stored and undamaged."""
        _check_keys([key])
        query = "SELECT checksum, vector FROM features WHERE key = ?"
        row = self._run(lambda c: c.execute(query, (key,)).fetchone())
        return row is not None and self._sound(key, *row)

    def missing(self, keys: Sequence[bytes]) -> npt.NDArray[np.int64]:
        """The positions in `keys`, ascending, that are not stored. Looks at keys only: `get` verifies."""
        _check_keys(keys)
        query = "SELECT 1 FROM features WHERE key = ?"

        def look(connection: sqlite3.Connection) -> npt.NDArray[np.int64]:
            connection.execute("BEGIN")
            absent = (i for i, key in enumerate(keys) if connection.execute(query, (key,)).fetchone() is None)
            positions = np.fromiter(absent, np.int64)
            connection.execute("COMMIT")
            return positions

        return self._run(look)

    def prefixes(self) -> npt.NDArray[np.uint64]:
        """The first `PREFIX_BYTES` of each stored key, ascending: what is not among them is surely absent."""
        query = f"SELECT substr(key, 1, {PREFIX_BYTES}) FROM features WHERE {_IS_KEY}"

        def read(connection: sqlite3.Connection) -> npt.NDArray[np.uint64]:
            joined = b"".join(bytes(prefix) for (prefix,) in connection.execute(query))
            return np.sort(np.frombuffer(joined, np.uint64))

        return self._run(read)

    def put(self, items: Iterable[tuple[bytes, npt.NDArray[np.floating]]], *, to_come: int = 0) -> None:
        """Store (key, vector of shape (width,)) pairs, finite float32 numbers: all of them, or none.

        `to_come`: how many vectors are yet to be put after these, for the message about a full disk.

        Raises:
            InputError: a key that is not 32 bytes, or a vector of another shape.
            TopworkError: NaN or infinity in a vector, which would poison every later use.
        """
        rows = [(key, data, _checksum(key, data)) for key, data in map(self._checked, items)]
        if not rows:
            return

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_PUT, ((key, checksum, data) for key, data, checksum in rows))
            for key, data, checksum in rows:  # a damaged index may take a row and not give it back
                if connection.execute(_THERE, (key, checksum, data)).fetchone() is None:
                    raise DamagedError(f"the row of {key.hex()[:12]}… can't be read back")
            connection.execute("COMMIT")

        self._run(write, need_bytes=(len(rows) + to_come) * self._row_bytes)

    def get(
        self, keys: Sequence[bytes], columns: Sequence[slice] | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Read vectors, each verified by its checksum. Keys may repeat.

        `columns`: slices of the vector to keep, joined in this order; all of it by default.

        Returns `vectors`, float32 (N, w), in the order of `keys`; and `absent`, int64, ascending: the
        positions that are not stored or whose row is damaged. Their rows are NaN, so that one who forgets
        them can't take them for features. `put` them again: a damaged row is then replaced.
        """
        _check_keys(keys)
        spans = [_span(part, self.width) for part in ([slice(None)] if columns is None else columns)]
        vectors = np.full((len(keys), sum(stop - start for start, stop in spans)), np.nan, np.float32)
        found = np.zeros(len(keys), bool)
        for start in range(0, len(keys), AT_ONCE):
            for i, (checksum, data) in enumerate(self._fetched(keys[start : start + AT_ONCE]), start):
                if self._sound(keys[i], checksum, data):
                    self._unpack(data, spans, vectors[i])
                    found[i] = True
        return vectors, np.flatnonzero(~found)

    def _fetched(self, keys: Sequence[bytes]) -> list[tuple[object, bytes]]:
        """What stands in the rows of some keys, unverified: that is left to each thread for itself."""
        rows: dict[int, tuple[object, bytes]] = {}
        query = "SELECT checksum, vector FROM features WHERE key = ?"

        def read(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN")  # one lock for all rows, instead of one each
            for i, key in enumerate(keys):
                if i not in rows:  # what was read before damage was met stays
                    rows[i] = connection.execute(query, (key,)).fetchone() or (None, b"")
            connection.execute("COMMIT")

        self._run(read)
        return [rows[i] for i in range(len(keys))]

    @property
    def _row_bytes(self) -> int:
        return half.HEADER + self.width * 2 if self.half else self.width * 4

    def _checked(self, item: tuple[bytes, npt.NDArray[np.floating]]) -> tuple[bytes, bytes]:
        key, given = item
        _check_keys([key])
        with np.errstate(over="ignore"):  # becomes infinity, which is refused below
            vector = np.ascontiguousarray(given, "<f4")
        if np.shape(given) != (self.width,):
            raise InputError(f"a feature vector must have shape ({self.width},); got {np.shape(given)}")
        if not np.isfinite(vector).all():
            raise TopworkError(
                "features must be finite float32 numbers; got NaN or infinity for the image with SHA-256 "
                f"{key.hex()[:12]}…. The network overflows on it: try precision f32, or leave the image out"
            )
        return key, half.packed(vector) if self.half else vector.tobytes()

    def _sound(self, key: bytes, checksum: object, data: object) -> bool:
        # A damaged record may hold any type and length.
        return isinstance(data, bytes) and len(data) == self._row_bytes and _checksum(key, data) == checksum

    def _unpack(self, data: bytes, spans: list[tuple[int, int]], into: npt.NDArray[np.float32]) -> None:
        at = 0
        for start, stop in spans:
            part = into[at : at + stop - start]
            if self.half:
                half.unpack(data, start, stop, part)
            else:
                part[:] = np.frombuffer(data, "<f4")[start:stop]
            at += stop - start

    def _run(self, work: Callable[[sqlite3.Connection], T], need_bytes: int = 0) -> T:
        """Do `work`; if the file turns out to be damaged, replace it by a fresh one and do it once more."""
        with self._turn:
            if self._connection is None:
                raise TopworkError(f"the feature store {self.path} is closed; open it again")
            if self._moved():
                self._open()
            try:
                return self._attempt(work, need_bytes)
            except DamagedError:
                self._open(damaged=True)
            try:
                return self._attempt(work, need_bytes)
            except DamagedError as error:
                raise self._damaged_again(error) from error

    def _attempt(self, work: Callable[[sqlite3.Connection], T], need_bytes: int) -> T:
        connection = self._connection
        assert connection is not None
        try:
            return work(connection)
        except sqlite3.Error as error:
            if is_damage(error, self.path):
                raise DamagedError(str(error)) from error
            raise storage_error(error, self.path, need_bytes) from error
        finally:
            if connection.in_transaction:  # it failed, or was interrupted
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")

    def _open(self, *, damaged: bool = False) -> None:
        """Connect to the file at `path`, whichever that is now; `damaged`: the one that was open is to go."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path.parent):
                # Another process may have met the same damage, and been first.
                damaged = damaged and not self._moved()
                self.close()
                for _ in range(2):
                    if damaged:
                        self.set_aside = set_aside(self.path)
                    try:
                        self._connection = open_database(self.path, _TABLES, self._meta(), about=self.about)
                        break
                    except DamagedError as error:
                        if damaged:
                            raise self._damaged_again(error) from error
                        damaged = True
                status = self.path.stat()
                self._inode = (status.st_dev, status.st_ino)
                with suppress(OSError):
                    os.utime(self.path)  # `cache info` tells when a store was last used
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise storage_error(error, self.path) from error

    def _damaged_again(self, error: DamagedError) -> TopworkError:
        return TopworkError(
            f"the feature store {self.path} was damaged again just after it was begun: {error}. Check the "
            "disk, or set TOPWORK_CACHE to a folder on another one"
        )

    def _meta(self) -> dict[str, str]:
        return {
            "format": HALF if self.half else SINGLE,
            "fingerprint": self.fingerprint,
            "width": str(self.width),
        }

    def _moved(self) -> bool:
        """Whether the file that is open is no longer the one at `path`: set aside or cleared elsewhere.

        By `stat` alone: to open and close the file would drop the locks that SQLite holds on it.
        """
        try:
            status = self.path.stat()
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != self._inode


def _checksum(key: bytes, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(key))  # over the key too: a right vector under a wrong key is wrong


def _check_keys(keys: Sequence[bytes]) -> None:
    for key in keys:
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            raise InputError(f"a key must be the {KEY_BYTES} bytes of a SHA-256; got {key!r}")


def _span(part: slice, width: int) -> tuple[int, int]:
    start, stop, step = part.indices(width)
    if step != 1 or stop <= start or (part.stop is not None and part.stop > width):
        raise InputError(f"`columns` must be non-empty slices of 0:{width} with step 1; got {part}")
    return start, stop
