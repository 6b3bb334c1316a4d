"""Images in zip and tar archives, read in place. A compressed tar is first unpacked to a plain tar in the cache."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from topwork.data.dataset import ImageSource, Problem, readable
from topwork.data.layout import Listing, is_litter
from topwork.errors import ImageError, InputError, TopworkError
from topwork.storage.cache import cache_root

# Compression is detected from the first bytes, because many files named .tar are compressed.
OPENERS: dict[bytes, Callable[[str], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
LARGEST_MEMBER_BYTES = 512 * 2**20  # declared size; a larger "image" is a mistake or an attack
_STORED, _DEFLATED, _BZIP2 = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2


def plain_tar(path: str) -> str:
    """The path of the uncompressed tar: the file itself, or its copy in the cache, `archives/SHA256.tar`.

    Raises `InputError` if the file is damaged, `TopworkError` if the copy can't be written.
    """
    with Path(path).open("rb") as file:
        start = file.read(6)
        opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), None)
        if opener is None:
            return path
        file.seek(0)
        key = hashlib.file_digest(file, "sha256").hexdigest()
    target = cache_root() / "archives" / f"{key}.tar"
    if not target.is_file():
        with opener(path) as packed:
            _unpack(packed, target, readable(path))
    return str(target)


def _unpack(packed: IO[bytes], target: Path, shown: str) -> None:
    part: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".tar.part", delete=False) as out:
            part = Path(out.name)
            shutil.copyfileobj(packed, out, 2**20)
        part.replace(target)  # atomic: a file with this name is always complete
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise InputError(f"{shown} is damaged and can't be unpacked: {error}") from None
    except OSError as error:
        raise TopworkError(f"can't unpack {shown} to {target.parent}: {error.strerror or error}") from None
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class ZipImage:
    """A member of a zip, read in place.

    Each read opens the archive again, which takes a few microseconds. Threads share nothing and need no lock, and
    the archive's directory is not read again, as it would be with one `ZipFile` per thread.
    """

    archive: str
    name: str
    offset: int  # of the member's local header
    packed_bytes: int
    size_bytes: int
    method: int
    crc: int

    def read(self) -> bytes:
        """The unpacked bytes. Raises `OSError`, or `ImageError` if the archive is damaged."""
        with Path(self.archive).open("rb", buffering=0) as file:
            file.seek(self.offset)
            header = file.read(30)
            if len(header) < 30 or header[:4] != b"PK\3\4":
                raise ImageError("damaged in the archive: there is no file at the offset in its directory")
            file.seek(sum(struct.unpack_from("<HH", header, 26)), os.SEEK_CUR)  # name and extra field
            packed = _read_all(file, self.packed_bytes)
        if self.size_bytes == 0:
            return b""
        try:
            # `size_bytes` limits the output: a zip bomb yields no more than it declared.
            if self.method == _DEFLATED:
                data = zlib.decompressobj(-15).decompress(packed, self.size_bytes)
            elif self.method == _BZIP2:
                data = bz2.BZ2Decompressor().decompress(packed, self.size_bytes)
            else:
                data = packed
        except (zlib.error, OSError) as error:
            raise ImageError(f"damaged in the archive: {error}") from None
        if len(data) != self.size_bytes or zlib.crc32(data) != self.crc:
            raise ImageError("damaged in the archive: its checksum differs")
        return data

    def __str__(self) -> str:
        return readable(f"{self.archive}!{self.name}")


@dataclass(frozen=True, slots=True)
class TarImage:
    """A member of an uncompressed tar, read in place; thread-safe, like `ZipImage`."""

    archive: str
    name: str
    offset: int  # of the member's bytes
    size_bytes: int

    def read(self) -> bytes:
        """The bytes. Raises `OSError`, or `ImageError` if the archive is truncated."""
        with Path(self.archive).open("rb", buffering=0) as file:
            file.seek(self.offset)
            return _read_all(file, self.size_bytes)

    def __str__(self) -> str:
        return readable(f"{self.archive}!{self.name}")


def is_archive(path: str) -> bool:
    """Whether the file name has an archive's extension."""
    return path.lower().endswith(ARCHIVE_SUFFIXES)


def list_archive(path: str) -> Listing:
    """List the files in an archive. Members that can't be read safely are listed as problems.

    These are links, devices, absolute names, names with "..", and members of more than 512 MiB. If several
    members have the same name, the last one is used, as when unpacking.

    Raises `InputError` if the archive is damaged or password-protected.
    """
    return _list_zip(path) if path.lower().endswith(".zip") else _list_tar(path)


class _Members:
    """Collects an archive's members into a listing."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: dict[str, ImageSource] = {}
        self.folders: dict[str, None] = {}
        self.problems: list[Problem] = []

    def admit(self, raw: str, *, folder: bool, unread: str | None, size_bytes: int) -> str | None:
        """The member's name if it is a file to read, else None, with the member recorded as a folder or a problem.

        `unread` is the reason why the member can't be read, or None.
        """
        raw = readable(raw.replace("\\", "/"))
        parts = [part for part in raw.split("/") if part not in ("", ".")]
        name = "/".join(parts)
        if not parts or any(is_litter(part) for part in parts if part != ".."):
            return None
        if raw.startswith("/") or parts[0].endswith(":"):
            unread = "its name in the archive is an absolute path"
        elif ".." in parts:
            unread = 'its name in the archive has ".."'
        elif size_bytes > LARGEST_MEMBER_BYTES:
            unread = f"larger than {LARGEST_MEMBER_BYTES >> 20} MiB ({size_bytes >> 20} MiB)"
        if unread:
            self.problems.append(Problem(raw, unread))
        elif folder:
            self.folders[name] = None
        else:
            if name in self.files:
                self.problems.append(Problem(name, "in the archive twice: the last one is used"))
            return name
        return None

    def listing(self) -> Listing:
        for name in self.files:  # an archive need not list its folders
            while (name := name.rpartition("/")[0]) and name not in self.folders:
                self.folders[name] = None
        return Listing(readable(self.path), self.files, tuple(self.folders), tuple(self.problems))


def _list_zip(path: str) -> Listing:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise InputError(f"{readable(path)} is not a readable zip: {error}") from None
    members = _Members(path)
    for info in infos:
        if info.flag_bits & 1:
            raise InputError(
                f"{readable(path)} is password-protected ({readable(info.filename)}): "
                "unpack it and give the folder"
            )
        unread = None
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 if the zip was not made on Unix
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            unread = "a link in the archive" if kind == stat.S_IFLNK else "not a regular file"
        elif info.compress_type not in (_STORED, _DEFLATED, _BZIP2):
            unread = f"compressed with zip method {info.compress_type}; expected stored, deflate or bzip2"
        folder = info.filename.endswith(("/", "\\"))
        name = members.admit(info.filename, folder=folder, unread=unread, size_bytes=info.file_size)
        if name is not None:
            members.files[name] = ZipImage(
                path,
                name,
                info.header_offset,
                info.compress_size,
                info.file_size,
                info.compress_type,
                info.CRC,
            )
    return members.listing()


def _list_tar(path: str) -> Listing:
    members, plain = _Members(path), plain_tar(path)
    try:
        with tarfile.open(plain, "r:", encoding="utf-8", errors="surrogateescape") as archive:
            for info in archive:
                unread = None
                if info.issym() or info.islnk():
                    unread = "a link in the archive"
                elif not (info.isreg() or info.isdir()) or info.issparse():
                    unread = "not a regular file"
                name = members.admit(info.name, folder=info.isdir(), unread=unread, size_bytes=info.size)
                if name is not None:
                    members.files[name] = TarImage(plain, name, info.offset_data, info.size)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise InputError(f"{readable(path)} is not a readable tar: {error}") from None
    return members.listing()


def _read_all(file: IO[bytes], size: int) -> bytes:
    parts = []
    while size > 0 and (part := file.read(size)):  # an unbuffered read may return less than requested
        parts.append(part)
        size -= len(part)
    if size:
        raise ImageError("damaged in the archive: the file ends inside this image")
    return b"".join(parts)
