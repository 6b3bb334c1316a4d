"""A module's archive made a folder: all that is in it, or nothing of it where one member could do harm.

`tarfile` and `zipfile` unpack. Before that every member is looked at, more strictly than by tarfile's "data" filter:
no links, no name that has to be mended, and no more bytes than allowed.
"""

from __future__ import annotations

import gzip
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from topwork.errors import InputError, TopworkError
from topwork.storage.folders import check_room, megabytes, storage_error

LARGEST_BYTES = 32 * 2**30  # unpacked
MOST_MEMBERS = 20_000
Packing = Literal["tar", "tar.gz", "zip"]

_BLOCK = 512  # a tar is made of these
_CHUNK_BYTES = 2**20
_LARGEST_READ_BYTES = 2**22  # no header needs more; a hostile one claims it
# Every way in which a damaged archive is known to fail in the standard library.
_DAMAGES = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, struct.error, EOFError),
    *(ValueError, LookupError, OverflowError, RecursionError, NotImplementedError),
)
_BAD_NAMES = {
    r"^/": "an absolute path",
    r"(^|/)\.\.(/|$)": 'a name with ".."',
    r"[\\:]": "a name with a backslash or a colon, which may be a path elsewhere",
    r"[\x00-\x1f]": "a name with control characters",
}
_Member = tuple[str, int, bool, str]  # its name, its size, whether it is a folder, why its kind is refused


class DamagedError(TopworkError):
    """The file is incomplete or was changed on the way; fetching it again may help."""


def packing_of(path: Path) -> Packing | None:
    """Which kind of archive a file is, by its first bytes; None for any other file."""
    with path.open("rb") as file:
        start = file.read(_BLOCK)
    if start.startswith(b"\x1f\x8b"):
        return "tar.gz"
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return None
    return "tar"


def unpack(
    archive: Path,
    target: Path,
    *,
    shown: str,
    most_bytes: int = LARGEST_BYTES,
    most_members: int = MOST_MEMBERS,
) -> None:
    """Unpack a tar, tar.gz or zip into `target`, a folder that does not exist yet.

    Files and folders only, with the permissions that new files have here. `shown` is the archive's name in messages.

    Raises:
        InputError: not one of these archives; a member that is a link, a device or encrypted, or whose name is
            absolute, holds `..`, or means another file elsewhere; too large; too many members.
        DamagedError: cut short, or its checksums differ.
        TopworkError: not enough room on the disk.
    """
    packing = packing_of(archive)
    if packing is None:
        raise InputError(f"{shown}: expected a tar, tar.gz or zip")

    def check(members: Iterable[_Member]) -> None:
        total = _checked(members, shown, most_bytes, most_members)
        check_room(target.parent, total, what=f"unpacking {shown}")
        target.mkdir(parents=True)

    with _damage_told(shown, target):
        if packing == "zip":
            with zipfile.ZipFile(archive) as pack:
                check(map(_zip_member, pack.infolist()))
                pack.extractall(target)
            return
        most = (
            most_bytes + 4 * _BLOCK * most_members + _CHUNK_BYTES
        )  # with the headers, long names among them
        with gzip.open(archive) if packing == "tar.gz" else archive.open("rb") as file:
            stream: Any = _Capped(file, most, _too_large(shown, most_bytes))
            with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
                check(_tar_members(tar, compressed=packing == "tar.gz"))
                tar.extractall(target, [_plain(info) for info in tar.getmembers()], filter="data")


def check_zip(path: Path, *, shown: str) -> tuple[str, ...]:
    """The names in a zip, once all its members were read and their checksums compared. Raises as `unpack` does."""
    with _damage_told(shown, path), zipfile.ZipFile(path) as pack:
        _checked(map(_zip_member, pack.infolist()), shown, LARGEST_BYTES, MOST_MEMBERS)
        if bad := pack.testzip():
            raise zipfile.BadZipFile(f"Bad CRC-32 of {bad!r}")
        return tuple(pack.namelist())


@contextmanager
def _damage_told(shown: str, target: Path) -> Iterator[None]:
    try:
        yield
    except TopworkError:
        raise
    except _DAMAGES as error:
        raise DamagedError(
            f"{shown} is damaged and can't be unpacked: {error or type(error).__name__}"
        ) from error
    except OSError as error:
        raise storage_error(error, target) from error


def _checked(members: Iterable[_Member], shown: str, most_bytes: int, most_members: int) -> int:
    """How many bytes the files have. Raises `InputError` at the first member that could do harm."""
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    total = 0
    for count, (raw, size, is_folder, refused) in enumerate(members, 1):
        if count > most_members:
            raise InputError(f"{shown} holds more than {most_members:,} members: not unpacked")
        for reason in (refused, *(why for bad, why in _BAD_NAMES.items() if re.search(bad, raw))):
            if reason:
                raise InputError(f"{shown} holds {raw!r}, {reason}: nothing of it is unpacked")
        name = PurePosixPath(raw.casefold())  # some file systems know no capitals
        total += size
        if total > most_bytes:
            raise _too_large(shown, most_bytes)
        if size < 0 or not (is_folder or name.name):
            raise ValueError(f"{raw!r} can't be a file")
        if name in files or (not is_folder and name in folders) or not files.isdisjoint(name.parents):
            raise InputError(f"{shown} holds two members for one name: {name.name!r}")
        folders.update(name.parents, [name] if is_folder else [])
        files.update([] if is_folder else [name])
    return total


def _zip_member(info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the zip was not made on Unix
    refused = ""
    if kind == stat.S_IFLNK:
        refused = "a link"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        refused = "a device or another thing that is no plain file"
    elif info.flag_bits & 1:
        refused = "which is locked by a password"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        refused = f"packed by zip's method {info.compress_type}, where stored or deflated is expected"
    return info.orig_filename, info.file_size, info.is_dir(), refused  # `filename` is cut at a NUL


def _tar_members(tar: tarfile.TarFile, *, compressed: bool) -> Iterator[_Member]:
    for info in tar:
        refused = "a link" if info.issym() or info.islnk() else ""
        if not refused and (info.issparse() or not (info.isreg() or info.isdir())):
            refused = "a device or another thing that is no plain file"
        yield info.name, info.size, info.isdir(), refused
    # The library takes a damaged header for the end. A whole tar ends with zeros, or where its gzip does.
    file: Any = tar.fileobj
    file.seek(tar.offset)
    end = file.read(_BLOCK)
    if end != bytes(_BLOCK) and not (compressed and end == b""):
        raise EOFError("it breaks off" if len(end) < _BLOCK else "a header in it is not one")
    while file.read(_CHUNK_BYTES):  # to the end, where the gzip's checksum is
        pass


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """The member with the permissions and the time that new files have."""
    nothing: Any = None
    return info.replace(mode=nothing, mtime=nothing, deep=False)


def _too_large(shown: str, most_bytes: int) -> InputError:
    return InputError(f"{shown} unpacks to more than {megabytes(most_bytes)}: not unpacked")


class _Capped:
    """What `tarfile` needs of a file object; past `most` bytes it raises `refusal`, and it reads little at once."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, most: int, refusal: InputError) -> None:
        self.file, self.most, self.refusal, self.tell = file, most, refusal, file.tell

    def seek(self, offset: int) -> int:
        if offset > self.most:
            raise self.refusal
        return self.file.seek(offset)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LARGEST_READ_BYTES:
            raise ValueError(f"a header in it claims {size:,} bytes")
        if self.file.tell() + size > self.most + _LARGEST_READ_BYTES:
            raise self.refusal
        return self.file.read(size)
