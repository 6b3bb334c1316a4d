"""Find images lazily in files, folders and glob patterns, in a stable order and with little memory."""

from __future__ import annotations

import glob
import heapq
import io
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from topwork.data.dataset import Example, FileImage, Problem, readable
from topwork.data.folder import _Reached
from topwork.data.layout import is_image, is_litter, not_an_image
from topwork.errors import TopworkError

Found = Example | Problem
SORTED_AT_ONCE = 50_000  # names sorted in memory; a larger folder is sorted with temporary files
_READ_BYTES = 2**16
# A folder's entries as text that sorts by name: files by their name, other kinds with "/" appended, which no name
# contains. So folders sort like the paths of their files.
_FOLDER, _LINK, _PROBLEM = "/", "/>", "/!"


def list_images(paths: Iterable[str]) -> Iterator[Found]:
    """Yield unlabelled images in the order given: `sources.load_images` as a generator.

    A folder's images are sorted by path. Anything that is not an image is yielded as a `Problem` where it is found.
    Only folders are opened, each when its turn comes. Memory doesn't grow with their number or size, except for
    glob patterns, which need about 100 bytes per name in one folder. Images that are given twice are yielded twice.
    """
    for given in paths:
        path = os.path.expanduser(given)  # noqa: PTH111 (a Path would rewrite what was given)
        try:
            is_folder, exists = stat.S_ISDIR(Path(path).stat().st_mode), True
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: it holds a NUL
            is_folder, exists = False, False
        except OSError:
            is_folder, exists = False, True  # reading it will raise the error
        if is_folder:
            yield from _folder(path)
        elif exists:
            yield Example(readable(path), FileImage(path))
        elif glob.has_magic(path):
            yield from _matches(path)
        else:
            yield Problem(readable(path), "no such file")


def names_in(stream: TextIO) -> Iterator[str]:
    """The paths on standard input, one per line, or NUL-separated if the first block contains a NUL (`-print0`).

    Bytes that are not UTF-8 are kept, as in `os.fsdecode`.
    """
    binary: Any = stream.buffer if hasattr(stream, "buffer") else io.BytesIO(stream.read().encode())
    first = binary.read1(_READ_BYTES)
    separator = b"\0" if b"\0" in first else b"\n"
    for piece in _pieces(first, binary.read1, separator):
        name = piece if separator == b"\0" else piece.removesuffix(b"\r")
        if name.strip():
            yield os.fsdecode(name)


def in_order(texts: Iterable[str]) -> Iterator[str]:
    """The texts, sorted by code point; more than 50,000 are sorted with temporary files. They must not contain NULs.

    Raises:
        TopworkError: the temporary files can't be written.
    """
    rest = iter(texts)
    with ExitStack() as files:
        runs: list[Iterator[str]] = []
        while part := sorted(islice(rest, SORTED_AT_ONCE)):
            if not runs and len(part) < SORTED_AT_ONCE:
                yield from part
                return
            try:
                file = files.enter_context(tempfile.TemporaryFile(buffering=0))
                data = memoryview("\0".join(part).encode("utf-8", "surrogatepass"))
                while data:
                    data = data[file.write(data) :]
                file.seek(0)
            except OSError as error:
                raise TopworkError(
                    f"a large folder is sorted with temporary files, but {tempfile.gettempdir()} can't be "
                    f"written to ({error.strerror}): free some space there, or set TMPDIR to another folder"
                ) from error
            runs.append(p.decode("utf-8", "surrogatepass") for p in _pieces(b"", file.read, b"\0"))
        del part
        yield from heapq.merge(*runs)


def _pieces(first: bytes, read: Callable[[int], bytes], separator: bytes) -> Iterator[bytes]:
    """The pieces between separators, and the last piece unless it is empty."""
    held = first
    while more := read(_READ_BYTES):
        *whole, held = (held + more).split(separator)
        yield from whole
    yield from (piece for piece in held.split(separator) if piece)


def _folder(root: str) -> Iterator[Found]:
    top = (PurePosixPath(readable(root).replace(os.sep, "/")) / "x").as_posix().removesuffix("x")
    reached, any_image = _Reached(Path(root).resolve()), False
    pending = [(root, "", in_order(_entries(root)))]  # a stack instead of recursion, which has a depth limit
    while pending:
        folder, prefix, entries = pending[-1]
        try:
            entry = next(entries, None)
        except OSError as error:  # the folder is opened when its first entry is requested
            yield Problem(top + readable(prefix), f"the folder can't be read: {error.strerror}")
            any_image |= not prefix  # no second problem for the root
            entry = None
        if entry is None:
            pending.pop()
            continue
        name = entry.partition("/")[0]
        mark = entry[len(name) :]
        path, image_id = os.path.join(folder, name), top + readable(prefix + name)  # noqa: PTH118
        if mark == _FOLDER or (mark == _LINK and reached.add(Path(path).resolve())):
            pending.append((path, f"{prefix}{name}/", in_order(_entries(path))))
        elif mark == _LINK:
            yield Problem(image_id + "/", "a link to a folder that is read already")
        elif mark:
            yield Problem(image_id, mark.removeprefix(_PROBLEM))
        elif is_image(name):
            any_image = True
            yield Example(image_id, FileImage(path))
        else:
            yield not_an_image(image_id)
    if not any_image:
        yield Problem(readable(root), "no images in this folder")


def _entries(folder: str) -> Iterator[str]:
    with os.scandir(folder) as found:
        for entry in found:
            if not is_litter(entry.name):
                yield entry.name + _mark(entry)


def _mark(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            if not entry.is_symlink():
                return _FOLDER
            Path(entry.path).resolve()
            return _LINK
        if entry.is_file():
            return ""
        return _PROBLEM + ("a broken link" if entry.is_symlink() else "not a regular file")
    except (OSError, RuntimeError) as error:  # `resolve` raises RuntimeError for loops before Python 3.13
        return f"{_PROBLEM}can't be read: {getattr(error, 'strerror', None) or error}"


def _matches(pattern: str) -> Iterator[Found]:
    any_match = False
    for path in in_order(glob.iglob(pattern, recursive=True)):  # noqa: PTH207
        if is_litter(Path(path).name):
            continue
        any_match = True
        if Path(path).is_dir():
            # "**" matches every folder and every file in it, so the files are matched anyway.
            if "**" not in pattern:
                yield from _folder(path)
        elif is_image(path):
            yield Example(readable(path), FileImage(path))
        else:
            yield not_an_image(readable(path))
    if not any_match:
        yield Problem(readable(pattern), "no file matches this pattern")
