"""One file over HTTPS: to disk, going on from where an earlier attempt broke off, and whole or not at all.

Follows RFC 9110 (ranges, `If-Range`, strong entity tags) and RFC 9530 (`Repr-Digest`); Google's storage, where
TensorFlow's modules lie, tells an MD5 in `x-goog-hash`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import http.client
import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from topwork.backbones.hub.connect import Broken, WrongRange, ask, reason_of
from topwork.errors import TopworkError
from topwork.storage.folders import check_room, discard, megabytes, storage_error

LARGEST_BYTES = 16 * 2**30  # no published image module comes near
TIMEOUT_S = 30.0  # for one answer of the network, not for the whole
BACKOFF_S = 0.5  # before the second attempt; doubled for each after
LONGEST_WAIT_S = 30.0
PATIENCE = 4  # attempts in a row that bring nothing new
MOST_ATTEMPTS = 100

Progress = Callable[[int, int | None], None]  # bytes so far, and of how many, where that is known

_CHUNK_BYTES = 2**18
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole file on disk. `url`: where the redirects led, without its query, which may hold a signature."""

    path: Path
    url: str
    sha256: str
    size_bytes: int
    resumed: bool  # made of the pieces of several answers


@dataclass(frozen=True, slots=True)
class _Version:
    """Which file it is that a part belongs to; kept beside the part."""

    url: str
    etag: str | None = None  # a strong one; without it nothing proves that pieces fit
    total_bytes: int | None = None


class _Differs(Broken):
    """The file came whole, and isn't what the server says it is."""


def fetch(
    url: str,
    path: Path,
    *,
    shown: str | None = None,
    progress: Progress | None = None,
    most_bytes: int = LARGEST_BYTES,
    timeout_s: float = TIMEOUT_S,
) -> Fetched:
    """Fetch `url` to `path`; what is missing of it, where a former call left a part there and a note beside.

    A part is continued only where the server proves by a strong ETag that it is of the same file; else the file is
    fetched from its beginning. What came must have the length and the checksum that the answer tells, if it does.
    Not to be called for one `path` twice at a time.

    Args:
        url: an https address, as asked of the server.
        shown: the address for messages.
        progress: told (bytes so far, total or None) as they come; a restart begins at a smaller number.

    Raises:
        InputError: no such file, not allowed, a redirect away from https, or a folder that can't be written.
        TopworkError: the server, or the way to it, fails for good; too large; no room on the disk.
    """
    shown = shown or url
    failures = furthest = differed = 0
    for _ in range(MOST_ATTEMPTS):
        try:
            begun, final, headers = _attempt(url, path, shown, progress, most_bytes, timeout_s)
            return _finished(path, final, headers, resumed=begun > 0)
        except Broken as caught:
            broken = caught
            if isinstance(broken, WrongRange | _Differs):
                forget(path)
            have = _size(path)
        failures = 0 if have > furthest else failures + 1
        furthest = max(furthest, have)
        differed += isinstance(broken, _Differs)
        if failures >= PATIENCE or differed == 2:
            break
        time.sleep(min(max(BACKOFF_S * 2.0 ** (failures - 1), broken.wait_s), LONGEST_WAIT_S))
    have, _ = _left(path, url)
    kept = f"; the {have:,} bytes that came are kept: try again to go on" if have else "; try again later"
    raise TopworkError(f"can't fetch {shown}: {broken}{kept}") from broken


def forget(path: Path) -> None:
    """Delete what `fetch` left of `path`: the next one begins at the beginning."""
    discard(_note(path))
    discard(path)


def _attempt(
    url: str, path: Path, shown: str, progress: Progress | None, most_bytes: int, timeout_s: float
) -> tuple[int, str, Message]:
    """Ask once and write what comes. Returns the byte it began at, the last address, the answer's headers."""
    have, version = _left(path, url)
    begin, wanted = 0, {}
    if have and version.etag:
        # Of a part that is complete the last byte is asked for: whether the file is still the same.
        begin = have - 1 if have == version.total_bytes else have
        wanted = {"Range": f"bytes={begin}-", "If-Range": version.etag}
    with ask(url, wanted, shown=shown, timeout_s=timeout_s) as answer:
        headers: Message = answer.headers
        encoding = headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip"):  # a gzip is known by its bytes, whoever made it
            raise TopworkError(
                f"{shown}: expected the file as it is; the server packs it as {encoding!r}, unasked"
            )
        if answer.status == HTTPStatus.PARTIAL_CONTENT:
            total = _total_of_range(headers, begin, version)
            if total is None:
                raise WrongRange("the server answered with another piece than was asked for")
        elif answer.status == HTTPStatus.OK:
            begin, total = 0, _total(headers)
            etag = headers.get("ETag", "")
            version = _Version(url, etag if _STRONG_ETAG.fullmatch(etag) else None, total)
        else:
            raise TopworkError(
                f"{shown}: expected the file; the server answered {answer.status} {answer.reason}"
            )
        if total is not None and total > most_bytes:
            raise TopworkError(
                f"{shown} has {megabytes(total)}; the most that is fetched is {megabytes(most_bytes)}"
            )
        with _open_part(path, begin, version) as out:
            if total is not None:
                check_room(path.parent, total - begin, what=f"fetching {shown}")
            have = _copy(answer, out, begin, total, progress, most_bytes, shown)
        if total is not None and have != total:
            raise Broken(f"the connection ended after {have:,} of {total:,} bytes")
        return begin, answer.url, headers


def _total(headers: Message) -> int | None:
    length = headers.get("Content-Length", "").strip()
    chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
    return int(length) if length.isdecimal() and not chunked else None


def _total_of_range(headers: Message, begin: int, version: _Version) -> int | None:
    """How many bytes the whole file has; None where this isn't the rest of it from `begin` on."""
    match = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if version.etag is None or match is None or headers.get("ETag", version.etag) != version.etag:
        return None
    first, last, total = map(int, match.groups())
    fits = first == begin and last == total - 1 and version.total_bytes in (None, total)
    return total if fits else None


def _copy(
    answer: http.client.HTTPResponse,
    out: IO[bytes],
    have: int,
    total: int | None,
    progress: Progress | None,
    most_bytes: int,
    shown: str,
) -> int:
    """Write all that comes; returns how many bytes the file has then."""
    while True:
        if progress:
            progress(have, total)
        try:
            piece = answer.read1(_CHUNK_BYTES)
        except http.client.IncompleteRead:
            raise Broken(f"the connection ended after {have:,} bytes") from None
        except (OSError, http.client.HTTPException) as error:
            raise Broken(reason_of(error)) from error
        if not piece:
            return have
        have += len(piece)
        if have > most_bytes:
            raise TopworkError(f"{shown} has more than {megabytes(most_bytes)}, the most that is fetched")
        try:
            while piece:  # an unbuffered file may take less at a time
                piece = piece[out.write(piece) :]
        except OSError as error:
            raise storage_error(error, Path(out.name)) from error


def _finished(path: Path, final: str, headers: Message, *, resumed: bool) -> Fetched:
    name, told = _told_digest(headers)
    try:
        with path.open("rb") as file:
            sha256 = found = hashlib.file_digest(file, "sha256").hexdigest()
            if name == "MD5":
                file.seek(0)
                found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise storage_error(error, path) from error
    if told and told != found:
        raise _Differs(f"what came has the {name} {found[:12]}…; the server says {told[:12]}…")
    return Fetched(path, urlsplit(final)._replace(query="").geturl(), sha256, _size(path), resumed)


def _told_digest(headers: Message) -> tuple[str, str]:
    """The checksum of the whole file, in hexadecimal, by its kind; "" where the server tells none."""
    told = re.search(r"\bsha-256=:([A-Za-z0-9+/=]+):", headers.get("Repr-Digest", ""))
    if told:
        return "SHA-256", _hexadecimal(told[1])
    told = re.search(r"\bmd5=([A-Za-z0-9+/=]+)", ",".join(headers.get_all("x-goog-hash") or ()))
    # It is of the file as it is stored, and that may be unpacked for the way.
    if told and headers.get("x-goog-stored-content-encoding", "identity") == "identity":
        return "MD5", _hexadecimal(told[1])
    return "", ""


def _hexadecimal(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).hex()
    except binascii.Error:
        return ""


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _left(path: Path, url: str) -> tuple[int, _Version]:
    """How much a former attempt left, and of which version; 0 where that isn't certain."""
    try:
        plain = json.loads(_note(path).read_text(encoding="utf-8"))
        version = _Version(plain["url"], plain["etag"], plain["total_bytes"])
        have = path.stat().st_size
        if version.url != url or not _STRONG_ETAG.fullmatch(version.etag or ""):
            return 0, _Version(url)
        if version.total_bytes is not None and have > version.total_bytes:
            return 0, _Version(url)
    except (OSError, ValueError, TypeError, LookupError):
        return 0, _Version(url)
    return have, version


def _open_part(path: Path, begin: int, version: _Version) -> IO[bytes]:
    """The part, open for writing at `begin`. A note never stands beside a part of another version."""
    try:
        if begin == 0:
            forget(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            _note(path).write_text(json.dumps(asdict(version)), encoding="utf-8")
        out = path.open("r+b", buffering=0)  # each piece is in the file at once, for who goes on after a kill
        out.seek(begin)  # its end, or one byte before
    except OSError as error:
        raise storage_error(error, path) from error
    return out


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
