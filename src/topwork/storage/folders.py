"""Locks, free disk space and error messages for folders that several processes write to."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from topwork.errors import InputError, TopworkError

SPARE_BYTES = 64 * 2**20  # left free on the disk for other programs
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def held(path: Path, *, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path` during the block; only one thread of one process can hold it at a time.

    The operating system releases the lock when the process dies. The empty file stays. `waiting` is called once if
    another process or thread holds the lock.

    Raises:
        TopworkError, InputError: the file can't be created.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
    except OSError as error:
        raise storage_error(error, path) from error
    try:
        yield
    finally:
        lock.release()


def check_room(folder: Path, need_bytes: int, *, what: str) -> None:
    """Raise `TopworkError` unless the disk of `folder`, which need not exist, has `need_bytes` plus some spare."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        raise storage_error(error, folder) from error
    if need_bytes + SPARE_BYTES > free:
        raise TopworkError(
            f"{what} needs {megabytes(need_bytes)} and {megabytes(SPARE_BYTES)} must stay free; the disk of {folder} "
            f"has {megabytes(free)} free. Free some space, or set TOPWORK_CACHE to a folder on another disk"
        )


def storage_error(error: OSError, path: Path) -> TopworkError:
    """The error to raise when the file system can't open or write `path`."""
    if error.errno in _FULL:
        return TopworkError(
            f"can't write {path}: {error.strerror}. Free some space, or set TOPWORK_CACHE to a folder on another disk"
        )
    return InputError(
        f"modules need a writable folder; got {path}: {error.strerror or error}. Make it writable, or set "
        "TOPWORK_CACHE to a folder that is"
    )


def discard(path: Path) -> None:
    """Delete a file, a link (not its target) or a folder with its contents, if it exists."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise TopworkError(
            f"can't delete {error.filename or path}: {error.strerror}. Close the programs that use it, or delete it "
            "manually"
        ) from error


def megabytes(count: int) -> str:
    """`12 MB`, or `1.2 MB` below ten."""
    return f"{count / 1e6:,.{0 if count >= 10_000_000 else 1}f} MB"
