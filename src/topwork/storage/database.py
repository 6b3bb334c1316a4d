"""SQLite files that may be damaged, moved, full, locked or forbidden, and what to do about each.

Nothing here knows about features: `topwork.features.store` says what is in a file,
`topwork.storage.cache` which files there are.
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
COMPANIONS = ("", "-wal", "-shm", "-journal")  # what SQLite keeps beside a database file

_PRAGMAS = (
    "page_size = 16384",  # a vector of 3,000 numbers fits one page; measured twice as fast to write as 4096
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "cell_size_check = ON",
    "journal_size_limit = 67108864",  # a log that a long reader let grow shrinks again
)
# The statements run on a store are constant, so what SQLite calls an error in them, or a broken constraint,
# is a file of another form than it should be. Busy, full, unwritable and failing disks are not among these.
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
    """The file is not the database that it should be. Caught by the store; never shown."""


def connect(path: Path) -> sqlite3.Connection:
    """Open or make `path`. Transactions are begun by hand; threads must take turns."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.text_factory = bytes  # damaged text need not be UTF-8
    return connection


def open_database(
    path: Path, tables: dict[str, str], meta: dict[str, str], *, about: str
) -> sqlite3.Connection:
    """Open `path`, or make it with `tables` (name → SQL), a table `meta` and in it `meta` and `about`.

    Call it under `locked`. It costs the same for any size of file: pages are not read, and a file that is
    shorter than its header says is noticed by SQLite itself.

    Raises:
        DamagedError: no database, or one with other tables or another `meta`.
        sqlite3.Error: for `storage_error` to explain.
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
    """Hold the one lock under which databases in `folder` are opened, set aside and deleted.

    A database and its `-wal` and `-shm` are three names. Were one process to rename them while another opens
    them, the second could get the old database with a new write-ahead log, and damage both. The lock is a
    transaction on an empty database: it works on every platform and goes when its process dies.

    Raises: sqlite3.Error, for `storage_error` to explain.
    """
    path = folder / ".lock"
    with closing(connect(path)) as connection:
        try:
            connection.execute("PRAGMA journal_mode = MEMORY")  # nothing is written, even on a full disk
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            if not is_damage(error, path):
                raise
            path.unlink(missing_ok=True)  # it holds nothing
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
            "End the other programs that use it, or delete it by hand"
        ) from error
    return aside


def is_damage(error: sqlite3.Error, path: Path) -> bool:
    """Whether `error` says that the file at `path` itself is bad, so that a fresh one would help."""
    code = getattr(error, "sqlite_errorcode", 0)  # extended; the low byte is the kind
    if code & 0xFF == sqlite3.SQLITE_READONLY:  # a damaged header can claim it where nothing else does
        return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return code in _DAMAGE or code & 0xFF in _DAMAGE


def storage_error(error: sqlite3.Error | OSError, path: Path, need_bytes: int = 0) -> TopworkError:
    """What to tell the user when the disk or folder of `path` refuses; for errors that are no damage."""
    code = getattr(error, "sqlite_errorcode", 0)
    full = _full(error, code, path)
    if full:
        return TopworkError(
            f"{full}: the feature store at {path} needs ~{max(1, round(need_bytes / 1e6)):,} MB more; free "
            "some space or set TOPWORK_CACHE to a folder on another disk; what is stored so far is kept"
        )
    if code & 0xFF in _BUSY:
        return TopworkError(
            f"the feature store {path} was locked by another program for {BUSY_TIMEOUT_S:.0f} s; wait for "
            "that program to end, or set TOPWORK_CACHE to another folder"
        )
    if isinstance(error, OSError) or code & 0xFF in _FORBIDDEN:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return InputError(
            f"the cache must be a folder that can be written; got {path}: {reason}. Make it writable, or set "
            "TOPWORK_CACHE to a folder that is"
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
        return "the disk took no more (full, failing, or a quota or size limit)"
    if code & 0xFF == sqlite3.SQLITE_CANTOPEN:  # also what making a file on a full disk gives
        with suppress(OSError):
            return "the disk is full" if shutil.disk_usage(path.parent).free < 1_000_000 else ""
    return ""
