"""Open SQLite files robustly: damage, full disks, locks, missing permissions.

The contents of the files are defined in `topwork.features.store`, their location in `topwork.storage.cache`.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from topwork.errors import InputError, TopworkError

BUSY_TIMEOUT_S = 60.0
COMPANIONS = (
    "",
    "-wal",
    "-shm",
    "-journal",
)  # suffixes of a database file and of those SQLite keeps beside it

_PRAGMAS = (
    "page_size = 16384",  # holds a vector of 3,000 numbers; measured twice as fast to write as 4096
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "cell_size_check = ON",
    "journal_size_limit = 67108864",  # a log that grew during a long read is truncated
)
# The SQL statements are constant, so an SQL error or a violated constraint means that the file is damaged. Errors of
# busy, full, read-only and failing disks are not included.
_DAMAGE = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_IOERR_SHORT_READ,
}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_FORBIDDEN = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}


class DamagedError(Exception):
    """The file is not the expected database. Caught by the store; never shown to users."""


def connect(path: Path) -> sqlite3.Connection:
    """Open or create `path`. Transactions are started explicitly; threads must take turns."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.text_factory = bytes  # damaged text need not be UTF-8
    return connection


def open_database(
    path: Path, tables: dict[str, str], meta: dict[str, str], *, about: str
) -> sqlite3.Connection:
    """Open `path`, or create it with `tables` (name → SQL) and a table `meta` with the entries `meta` and `about`.

    Call it under `locked`. The time doesn't depend on the file's size: pages are not read. SQLite itself detects a
    file that is shorter than its header says.

    Raises:
        DamagedError: not a database, or one with other tables or other `meta`.
        sqlite3.Error: see `storage_error`.
    """
    tables = {"meta": "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)", **tables}
    connection = connect(path)
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        made = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
        if not connection.execute(made).fetchall():  # new, or killed before this transaction's end
            connection.execute("BEGIN IMMEDIATE")
            for statement in tables.values():
                connection.execute(statement)
            connection.executemany("INSERT INTO meta VALUES (?, ?)", [*meta.items(), ("about", about)])
            connection.execute("COMMIT")
        if dict(connection.execute(made)) != {name.encode(): sql.encode() for name, sql in tables.items()}:
            raise DamagedError("it has other tables")
        found = dict(connection.execute("SELECT name, value FROM meta"))
        for name, value in meta.items():
            if found.get(name.encode()) != value.encode():
                raise DamagedError(f"{name} must be {value!r}; got {found.get(name.encode())!r}")
    except sqlite3.Error as error:
        connection.close()
        if is_damage(error, path):
            raise DamagedError(str(error)) from error
        raise
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock that is required to open, set aside or delete databases in `folder`.

    A database consists of three files, with `-wal` and `-shm`. If one process renamed them while another opened
    them, the second could get the old database with a new write-ahead log, and damage both. The lock is a
    transaction on an empty database: it works on every platform and is released when its process dies.

    Raises:
        sqlite3.Error: see `storage_error`.
    """
    path = folder / ".lock"
    with closing(connect(path)) as connection:
        try:
            connection.execute("PRAGMA journal_mode = MEMORY")  # nothing is written, even on a full disk
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            if not is_damage(error, path):
                raise
            path.unlink(missing_ok=True)  # it is empty
        else:
            yield
            return
    with locked(folder):
        yield


def set_aside(path: Path) -> Path:
    """Rename a damaged database and its companions to `<name>.damaged-<n>`; return the new path.

    Call it under `locked`, with this process's connection closed.
    """
    number = 1
    while os.path.lexists(f"{path}.damaged-{number}"):
        number += 1
    aside = Path(f"{path}.damaged-{number}")
    try:
        for companion in COMPANIONS:
            with suppress(FileNotFoundError):
                Path(f"{path}{companion}").rename(f"{aside}{companion}")
    except OSError as error:
        raise TopworkError(
            f"the feature store {path} is damaged and can't be renamed to {aside.name}: {error.strerror}. "
            "Close the other programs that use it, or delete it manually"
        ) from error
    return aside


def is_damage(error: sqlite3.Error, path: Path) -> bool:
    """Whether `error` means that the file at `path` is damaged and must be replaced."""
    code = getattr(error, "sqlite_errorcode", 0)  # extended code; the low byte is the primary one
    if (
        code & 0xFF == sqlite3.SQLITE_READONLY
    ):  # a damaged header can cause this although the file is writable
        return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return code in _DAMAGE or code & 0xFF in _DAMAGE


def storage_error(error: sqlite3.Error | OSError, path: Path, need_bytes: int = 0) -> TopworkError:
    """The error to raise for a failing, full, busy or read-only disk or folder at `path`; not for damaged files."""
    code = getattr(error, "sqlite_errorcode", 0)
    full = _full(error, code, path)
    if full:
        return TopworkError(
            f"{full}: the feature store at {path} needs ~{max(1, round(need_bytes / 1e6)):,} MB more; free "
            "some space or set TOPWORK_CACHE to a folder on another disk; the features stored so far are kept"
        )
    if code & 0xFF in _BUSY:
        return TopworkError(
            f"the feature store {path} was locked by another program for {BUSY_TIMEOUT_S:.0f} s; wait for "
            "that program to end, or set TOPWORK_CACHE to another folder"
        )
    if isinstance(error, OSError) or code & 0xFF in _FORBIDDEN:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return InputError(
            f"the cache must be a writable folder; got {path}: {reason}. Make it writable, or set TOPWORK_CACHE to a "
            "folder that is"
        )
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return TopworkError(
        f"the feature store {path} can't be used: {error} ({name}). Check the disk, or set TOPWORK_CACHE to "
        "a folder on another one"
    )


def _full(error: sqlite3.Error | OSError, code: int, path: Path) -> str:
    if isinstance(error, OSError):
        return "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE):
        return "the disk is full"
    if code == sqlite3.SQLITE_IOERR_WRITE:  # SQLite says "full" for ENOSPC only
        return "writing failed (the disk is full or failing, or a quota or size limit is reached)"
    if code & 0xFF == sqlite3.SQLITE_CANTOPEN:  # also raised when a file is created on a full disk
        with suppress(OSError):
            return "the disk is full" if shutil.disk_usage(path.parent).free < 1_000_000 else ""
    return ""
