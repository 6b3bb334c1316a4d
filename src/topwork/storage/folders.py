"""A folder that several processes write into: one at a time, with room on the disk, and what to say if it refuses."""

from __future__ import annotations

import errno
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from topwork.errors import InputError, TopworkError

SPARE_BYTES = 64 * 2**20  # left free on the disk for everyone else
_ASK_AGAIN_S = 0.1
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)


@contextmanager
def held(path: Path, *, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock `path` while the block runs; only one process, and one thread in it, does at a time.

    The lock is the operating system's: it goes when its process dies, however that dies. The empty file stays.
    `waiting` is called once if someone else holds it.

    Raises:
        TopworkError, InputError: the file can't be made, or the file system knows no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise storage_error(error, path) from error
    with file:
        told = False
        while not _take(file.fileno(), path):
            if not told:
                waiting()
                told = True
            time.sleep(_ASK_AGAIN_S)  # asking instead of waiting in the system: Ctrl-C works everywhere
        try:
            yield
        finally:
            _give_back(file.fileno())


def check_room(folder: Path, need_bytes: int, *, what: str) -> None:
    """Raise `TopworkError` where the disk of `folder`, made or not, has not `need_bytes` and some spare."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        raise storage_error(error, folder) from error
    if need_bytes + SPARE_BYTES > free:
        raise TopworkError(
            f"{what} needs {megabytes(need_bytes)} and {megabytes(SPARE_BYTES)} to spare; the disk of {folder} has "
            f"{megabytes(free)} free. Free some space, or set TOPWORK_CACHE to a folder on another disk"
        )


def storage_error(error: OSError, path: Path) -> TopworkError:
    """What to tell the user when the file system refuses `path`."""
    if error.errno in _FULL:
        return TopworkError(
            f"can't write {path}: the disk took no more ({error.strerror}). Free some space, or set TOPWORK_CACHE to "
            "a folder on another disk"
        )
    return InputError(
        f"modules are kept in a folder that can be written; got {path}: {error.strerror or error}. Make it "
        "writable, or set TOPWORK_CACHE to a folder that is"
    )


def discard(path: Path) -> None:
    """Delete a file, a link or a whole folder; nothing where nothing is. A link's target stays."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise TopworkError(
            f"can't delete {error.filename or path}: {error.strerror}. End the programs that use it, or delete "
            "it by hand"
        ) from error


def megabytes(count: int) -> str:
    """`12 MB`; of less than ten, a digit more."""
    return f"{count / 1e6:,.{0 if count >= 10_000_000 else 1}f} MB"


if sys.platform == "win32":
    import msvcrt

    def _take(file: int, path: Path) -> bool:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise _no_locks(error, path) from error
        return True

    def _give_back(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _take(file: int, path: Path) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise _no_locks(error, path) from error
        return True

    def _give_back(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)


def _no_locks(error: OSError, path: Path) -> TopworkError:
    return TopworkError(
        f"can't lock {path}: {error.strerror}. The folder must be on a file system that has locks: set "
        "TOPWORK_CACHE to a folder on a local disk"
    )
