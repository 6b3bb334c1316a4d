"""A module's archive made a folder: all that is in it, or nothing of it where one member could do harm.

Everything is looked at before anything is written, and nothing that an archive says of itself is believed: the bytes
that come out of it are counted.
"""

from __future__ import annotations

import gzip
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from topwork.errors import InputError, TopworkError
from topwork.storage.folders import check_room, megabytes, storage_error

LARGEST_BYTES = 32 * 2**30  # unpacked
MOST_MEMBERS = 20_000
Packing = Literal["tar", "tar.gz", "zip"]

_BLOCK = 512  # a tar is made of these
_CHUNK_BYTES = 2**20
_LARGEST_READ_BYTES = 2**22  # no header has need of more; a trap's claims it
# Every way in which a damaged archive is known to fail in the standard library.
_DAMAGES = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
    RecursionError,
    NotImplementedError,
)


class DamagedError(TopworkError):
    """The file is not whole, or its bytes changed on the way; fetching it again may help."""


@dataclass(frozen=True, slots=True)
class _Member:
    """A file in the archive: its name, checked; its size, claimed; and where it lies."""

    name: str
    size_bytes: int
    place: Any  # tar: the offset; zip: the ZipInfo


class _TooLarge(Exception):
    """More comes out of the archive than it may hold."""


def packing_of(path: Path) -> Packing | None:
    """Which kind of archive a file is, by its first bytes, for names lie; None for none of ours."""
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
        InputError: no archive of these kinds; a member with a link, a device, an absolute name, `..` or another name
            that isn't the same everywhere; too large; too many members; locked.
        DamagedError: cut short, or its checksums differ.
        TopworkError: no room for what it says to hold.
    """
    packing = packing_of(archive)
    if packing is None:
        raise InputError(f"{shown}: expected a tar, tar.gz or zip")
    try:
        with (
            _zipped(archive)
            if packing == "zip"
            else _tarred(archive, packing, most_bytes, most_members) as pack
        ):
            members, folders = pack.members(shown, most_bytes, most_members)
            check_room(target.parent, sum(member.size_bytes for member in members), what=f"unpacking {shown}")
            _write(pack, members, folders, target, shown)
    except _TooLarge:
        raise InputError(f"{shown} unpacks to more than {megabytes(most_bytes)}: not unpacked") from None
    except InputError:
        raise
    except _DAMAGES as error:
        raise DamagedError(
            f"{shown} is damaged and can't be unpacked: {error or type(error).__name__}"
        ) from error


def check_zip(path: Path, *, shown: str) -> tuple[str, ...]:
    """Read a zip through without writing, and hold its checksums to it; the names in it. Raises as `unpack` does."""
    try:
        with _zipped(path) as pack:
            members, _ = pack.members(shown, LARGEST_BYTES, MOST_MEMBERS)
            for member in members:
                for _ in pack.read(member):
                    pass
    except InputError:
        raise
    except _DAMAGES as error:
        raise DamagedError(f"{shown} is damaged: {error or type(error).__name__}") from error
    return tuple(member.name for member in members)


def _write(pack: _Tar | _Zip, members: list[_Member], folders: list[str], target: Path, shown: str) -> None:
    try:
        target.mkdir(parents=True)
        for folder in folders:
            (target / folder).mkdir(parents=True, exist_ok=True)
        for member in members:
            path = target / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as out:  # new, so that nothing is written through something else
                for piece in pack.read(member):
                    out.write(piece)
    except gzip.BadGzipFile:
        raise
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{shown} holds two members for one name: {Path(error.filename).name!r}") from None
    except OSError as error:
        raise storage_error(error, target) from error


class _Gate:
    """Lets members by, one at a time, that can do no harm, and counts them."""

    def __init__(self, shown: str, most_bytes: int, most_members: int) -> None:
        self.shown, self.most_bytes, self.most_members = shown, most_bytes, most_members
        self.files: dict[str, _Member] = {}
        self.folders: list[str] = []
        self.seen = self.total = 0

    def admit(self, raw: str, size: int, place: Any, *, folder: bool, refused: str) -> None:
        """Take a member in. `refused`: why its kind can't be had."""
        self.seen += 1
        if self.seen > self.most_members:
            raise InputError(f"{self.shown} holds more than {self.most_members:,} members: not unpacked")
        reason = refused or _bad_name(raw)
        if reason:
            raise InputError(f"{self.shown} holds {raw!r}, {reason}: nothing of it is unpacked")
        name = "/".join(part for part in raw.split("/") if part not in ("", "."))
        if folder:
            self.folders += [name] if name else []
            return
        if size < 0 or not name:
            raise ValueError(f"{raw!r} can't be a file")
        if name in self.files:
            raise InputError(f"{self.shown} holds two members for one name: {name!r}")
        self.total += size
        if self.total > self.most_bytes:
            raise _TooLarge
        self.files[name] = _Member(name, size, place)


def _bad_name(raw: str) -> str:
    """Why a member's name is not taken; "" where it is."""
    if raw.startswith("/"):
        return "an absolute path"
    if ".." in raw.split("/"):
        return 'a name with ".."'
    if "\\" in raw or ":" in raw:
        return "a name with a backslash or a colon, which may be a path elsewhere"
    if any(ord(letter) < 32 for letter in raw):
        return "a name with control characters"
    return ""


class _Tar:
    def __init__(self, file: _Capped, *, compressed: bool) -> None:
        self.file, self.compressed = file, compressed

    def members(self, shown: str, most_bytes: int, most_members: int) -> tuple[list[_Member], list[str]]:
        gate = _Gate(shown, most_bytes, most_members)
        stream: Any = self.file
        with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            for info in tar:
                refused = "a link" if info.issym() or info.islnk() else ""
                if not refused and (info.issparse() or not (info.isreg() or info.isdir())):
                    refused = "a device or another thing that is no plain file"
                gate.admit(info.name, info.size, info.offset_data, folder=info.isdir(), refused=refused)
            self.file.seek(tar.offset)
        # The library takes a damaged header for the end. A whole tar ends with zeros, or where its gzip does.
        end = self.file.read(_BLOCK)
        if end != bytes(_BLOCK) and not (self.compressed and end == b""):
            raise EOFError("it breaks off" if len(end) < _BLOCK else "a header in it is not one")
        while self.file.read(_CHUNK_BYTES):  # to the end, where the gzip's checksum is
            pass
        return list(gate.files.values()), gate.folders

    def read(self, member: _Member) -> Iterator[bytes]:
        self.file.seek(member.place)
        left = member.size_bytes
        while left:
            piece = self.file.read(min(left, _CHUNK_BYTES))
            if not piece:
                raise EOFError(f"it ends inside {member.name}")
            left -= len(piece)
            yield piece


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive

    def members(self, shown: str, most_bytes: int, most_members: int) -> tuple[list[_Member], list[str]]:
        gate = _Gate(shown, most_bytes, most_members)
        for info in self.archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the zip was not made on Unix
            refused = "a link" if kind == stat.S_IFLNK else ""
            if not refused and kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                refused = "a device or another thing that is no plain file"
            elif info.flag_bits & 1:
                refused = "which is locked by a password"
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                refused = f"packed by zip's method {info.compress_type}, where stored or deflated is expected"
            name = info.orig_filename  # `filename` is cut at a NUL
            gate.admit(name, info.file_size, info, folder=info.is_dir(), refused=refused)
        return list(gate.files.values()), gate.folders

    def read(self, member: _Member) -> Iterator[bytes]:
        left = member.size_bytes
        with self.archive.open(member.place) as file:
            while piece := file.read(_CHUNK_BYTES):
                left -= len(piece)
                yield piece
        if left:
            raise EOFError(f"{member.name} is not as long as it says")


@contextmanager
def _zipped(path: Path) -> Iterator[_Zip]:
    with zipfile.ZipFile(path) as archive:
        yield _Zip(archive)


@contextmanager
def _tarred(path: Path, packing: Packing, most_bytes: int, most_members: int) -> Iterator[_Tar]:
    most = most_bytes + 4 * _BLOCK * most_members + _CHUNK_BYTES  # with the headers, long names among them
    with closing(gzip.open(path) if packing == "tar.gz" else path.open("rb")) as file:
        yield _Tar(_Capped(file, most), compressed=packing == "tar.gz")


class _Capped:
    """As much of a file as `tarfile` needs, which neither gives nor skips more than it should."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, most: int) -> None:
        self.file, self.most = file, most

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, offset: int) -> int:
        if offset > self.most:
            raise _TooLarge
        return self.file.seek(offset)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LARGEST_READ_BYTES:
            raise ValueError(f"a header in it claims {size:,} bytes")
        if self.file.tell() + size > self.most + _LARGEST_READ_BYTES:
            raise _TooLarge
        return self.file.read(size)
