"""What is told when a disk is full, a folder can't be written, or another program holds the file."""

from __future__ import annotations

import errno
import re
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from store_rows import NAME, child, finish, items, keys, open_store, vectors
from topwork.errors import InputError, TopworkError
from topwork.storage import database
from topwork.storage.database import connect, is_damage, locked, set_aside, storage_error


def test_full_disk_keeps_what_is_stored(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.put(items(range(10)))
        assert store._connection is not None
        ((pages,),) = store._connection.execute("PRAGMA page_count")
        store._connection.execute(f"PRAGMA max_page_count = {pages + 3}")
        message = re.escape(
            f"the disk is full: the feature store at {store.path} needs ~2 MB more; free some space or set "
            "TOPWORK_CACHE to a folder on another disk; the features stored so far are kept"
        )
        with pytest.raises(TopworkError, match=f"^{message}$"):
            store.put(items(range(10, 110)), to_come=1000)
        assert len(store) == 10
        assert store.set_aside is None
        store._connection.execute("PRAGMA max_page_count = 1000000")
        store.put(items(range(10, 110)))
        assert store.get(keys(range(110)))[1].size == 0


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
def test_size_limit_keeps_what_is_stored(tmp_path: Path) -> None:
    script = """
import resource
from topwork.errors import TopworkError
with open_store(root) as store:
    store.put(items(range(10)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
    done = 10
    try:
        while True:
            store.put(items(range(done, done + 50)))
            done += 50
    except TopworkError as error:
        print(error)
    assert len(store) == done and store.get(keys(range(done)))[1].size == 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.put(items(range(done, done + 50)))
    assert len(store) == done + 50 and store.set_aside is None
print(done + 50)
"""
    message, count = finish(child(script, tmp_path)).splitlines()
    assert message.startswith(
        "writing failed (the disk is full or failing, or a quota or size limit is reached): the feature store at "
        f"{tmp_path / 'features' / NAME} needs ~1 MB more; free some space"
    )
    with open_store(tmp_path) as store:
        got, absent = store.get(keys(range(int(count))))
        assert absent.size == 0
        assert (got == vectors(range(int(count)))).all()


def test_busy_store_is_waited_for_and_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.2)
    with open_store(tmp_path) as store:
        store.put(items(range(3)))
        with closing(connect(store.path)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(
                TopworkError, match="was locked by another program for 0 s; wait for that program"
            ):
                store.put(items(range(3, 6)))
            assert len(store) == 3  # reading goes on
        store.put(items(range(3, 6)))
        assert len(store) == 6
        assert store.set_aside is None
    with locked(tmp_path / "features"), pytest.raises(TopworkError, match=f"{NAME} was locked by another"):
        open_store(tmp_path)


def test_lock_excludes_other_processes_and_goes_with_its_holder(tmp_path: Path) -> None:
    script = """
import time
from topwork.storage.database import locked
with locked(root):
    print("locked", flush=True)
    time.sleep(60)
"""
    holder = child(script, tmp_path)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with (
            closing(sqlite3.connect(tmp_path / ".lock", timeout=0.1)) as lock,
            pytest.raises(sqlite3.OperationalError, match="database is locked"),
        ):
            lock.execute("BEGIN EXCLUSIVE")
    finally:
        holder.kill()
        holder.communicate()
    with locked(tmp_path):
        pass


def test_damaged_lock_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(b"x" * 5000)
    with locked(tmp_path):
        assert (tmp_path / ".lock").stat().st_size == 0


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user can reach, which `tmp_path` is not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="sets POSIX permissions")
@pytest.mark.parametrize("made", [False, True])
def test_folder_that_cannot_be_written(open_folder: Path, made: bool) -> None:
    if made:
        with open_store(open_folder) as store:
            store.put(items(range(3)))
        before = store.path.read_bytes()
        (open_folder / "features").chmod(0o555)
        store.path.chmod(0o444)
    open_folder.chmod(0o555)
    script = """
from topwork.errors import InputError
if os.getuid() == 0:  # root may write anywhere: be someone else
    os.setuid(65534)
try:
    open_store(root)
except InputError as error:
    print(error)
"""
    message = finish(child(script, open_folder))
    open_folder.chmod(0o755)
    assert message.startswith(f"the cache must be a writable folder; got {open_folder / 'features'}")
    assert message.endswith("Make it writable, or set TOPWORK_CACHE to a folder that is\n")
    if made:
        assert store.path.read_bytes() == before
        (open_folder / "features").chmod(0o755)


def test_root_that_is_a_file(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_text("")
    with pytest.raises(InputError, match=r"must be a writable folder; got .*file"):
        open_store(root)


def test_store_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "features" / NAME).mkdir(parents=True)
    with pytest.raises(InputError, match=f"must be a writable folder; got .*{NAME}: unable to open"):
        open_store(tmp_path)


def test_set_aside_moves_the_companions_too(tmp_path: Path) -> None:
    for name in ("a.sqlite", "a.sqlite-wal", "a.sqlite-shm", "a.sqlite.damaged-1"):
        (tmp_path / name).write_text(name)
    assert set_aside(tmp_path / "a.sqlite") == tmp_path / "a.sqlite.damaged-2"
    assert (tmp_path / "a.sqlite.damaged-2-wal").read_text() == "a.sqlite-wal"
    assert not list(tmp_path.glob("a.sqlite-*"))


def _error(code: int, text: str = "said") -> sqlite3.Error:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    error.sqlite_errorname = "NAME"
    return error


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (_error(sqlite3.SQLITE_IOERR_SHMSIZE), TopworkError, "the disk is full: "),
        (OSError(errno.ENOSPC, "No space"), TopworkError, "the disk is full: "),
        (OSError(errno.EDQUOT, "Quota"), TopworkError, "the disk is full: "),
        (_error(sqlite3.SQLITE_BUSY_RECOVERY), TopworkError, "was locked by another program for 60 s"),
        (_error(sqlite3.SQLITE_READONLY), InputError, "must be a writable folder; got .*: said"),
        (
            OSError(errno.EROFS, "Read-only"),
            InputError,
            "must be a writable folder; .*: Read-only",
        ),
        (_error(sqlite3.SQLITE_IOERR_READ), TopworkError, r"can't be used: said \(NAME\). Check the disk"),
    ],
)
def test_storage_errors_say_the_mend(tmp_path: Path, error: sqlite3.Error, kind: type, text: str) -> None:
    told = storage_error(error, tmp_path / NAME)
    assert type(told) is kind
    assert re.search(text, str(told))
    assert "set TOPWORK_CACHE" in str(told)


@pytest.mark.parametrize(
    ("code", "damage"),
    [
        (sqlite3.SQLITE_CORRUPT, True),
        (sqlite3.SQLITE_CORRUPT_INDEX, True),
        (sqlite3.SQLITE_NOTADB, True),
        (sqlite3.SQLITE_IOERR_SHORT_READ, True),
        (sqlite3.SQLITE_BUSY, False),
        (sqlite3.SQLITE_LOCKED, False),
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_IOERR_READ, False),
        (sqlite3.SQLITE_IOERR_WRITE, False),
        (sqlite3.SQLITE_CANTOPEN, False),
        (sqlite3.SQLITE_PERM, False),
        (sqlite3.SQLITE_READONLY, False),  # the folder of this path can't be written: it isn't there
    ],
)
def test_only_damage_is_damage(tmp_path: Path, code: int, damage: bool) -> None:
    assert is_damage(_error(code), tmp_path / "absent" / NAME) is damage


def test_read_only_claim_of_a_writable_file_is_damage(tmp_path: Path) -> None:
    """Byte 18 of the header is the version needed to write: SQLite opens a higher one for reading only."""
    with open_store(tmp_path) as store:
        store.put(items([1]))
    with store.path.open("r+b") as file:
        file.seek(18)
        file.write(b"\x07")
    with open_store(tmp_path) as store:
        store.put(items([2]))
        assert store.set_aside == Path(f"{store.path}.damaged-1")
