"""One file over HTTPS: to disk, resumed where an earlier attempt broke off, and complete or not at all.

Follows RFC 9110 (ranges, `If-Range`, strong entity tags) and RFC 9530 (`Repr-Digest`); Google's storage, where
TensorFlow's modules lie, sends an MD5 in `x-goog-hash`.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from topwork.errors import InputError, TopworkError
from topwork.storage.folders import check_room, discard, megabytes, storage_error

LARGEST_BYTES = 16 * 2**30  # no published image module comes near
TIMEOUT_S = 30.0  # for one answer of the network, not for the whole
BACKOFF_S = 0.5  # before the second attempt; doubled for each after
LONGEST_WAIT_S = 30.0
PATIENCE = 4  # attempts in a row that bring nothing new
MOST_ATTEMPTS = 100

Progress = Callable[[int, int | None], None]  # bytes so far, and of how many, where that is known

_CHUNK_BYTES = 2**18
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole file on disk. `url`: where the redirects led, without its query, which may hold a signature."""

    path: Path
    url: str
    sha256: str
    size_bytes: int
    resumed: bool  # made of the pieces of several answers


@dataclass(frozen=True, slots=True)
class _Part:
    """The file that a part belongs to; kept in a note beside the part."""

    url: str
    etag: str = ""  # a strong one; without it nothing proves that pieces fit
    total_bytes: int | None = None


class _Broken(Exception):
    """An attempt failed, and another may succeed: after `wait_s`, or from the beginning if `anew`."""

    def __init__(self, reason: str, *, wait_s: float = 0.0, anew: bool = False, cost: int = 1) -> None:
        super().__init__(reason)
        self.wait_s, self.anew, self.cost = wait_s, anew, cost


def fetch(
    url: str,
    path: Path,
    *,
    shown: str | None = None,
    progress: Progress | None = None,
    most_bytes: int = LARGEST_BYTES,
    timeout_s: float = TIMEOUT_S,
) -> Fetched:
    """Fetch `url` to `path`, or the rest of it where an earlier call left a part and a note beside it.

    A part is resumed only if the server proves by a strong ETag that it is of the same file; otherwise the file is
    fetched from its beginning. The result must have the length and the checksum that the server states, if any. Don't
    call it for one `path` twice at the same time.

    Args:
        url: an https address, as asked of the server.
        shown: the address for messages.
        progress: receives (bytes so far, total or None); a restart begins at a smaller number.

    Raises:
        InputError: no such file, not allowed, a redirect away from https, or a folder that can't be written.
        TopworkError: the server or the network keeps failing; the file is too large; the disk is full.
    """
    shown = shown or url
    failures = furthest = 0
    for _ in range(MOST_ATTEMPTS):
        try:
            return _attempt(url, path, shown, progress, most_bytes, timeout_s)
        except _Broken as caught:
            broken = caught
        if broken.anew:
            forget(path)
        have = path.stat().st_size if path.exists() else 0
        failures = 0 if have > furthest else failures + broken.cost
        furthest = max(furthest, have)
        if failures >= PATIENCE:
            break
        time.sleep(min(max(BACKOFF_S * 2.0 ** (failures - 1), broken.wait_s), LONGEST_WAIT_S))
    have, _ = _left(path, url)
    kept = f"; the {have:,} bytes that came are kept: try again to go on" if have else "; try again later"
    raise TopworkError(f"can't fetch {shown}: {broken}{kept}") from broken


def forget(path: Path) -> None:
    """Delete what `fetch` left of `path`: the next call begins at the beginning."""
    discard(_note(path))
    discard(path)


def _attempt(
    url: str, path: Path, shown: str, progress: Progress | None, most_bytes: int, timeout_s: float
) -> Fetched:
    """Ask once, write what comes, and check it."""
    have, part = _left(path, url)
    begin, wanted = 0, {"Accept-Encoding": "identity"}
    if have:
        # Of a part that is complete the last byte is asked for: whether the file is still the same.
        begin = have - 1 if have == part.total_bytes else have
        wanted |= {"Range": f"bytes={begin}-", "If-Range": part.etag}
    with _ask(url, wanted, shown, timeout_s) as answer:
        encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip"):  # a gzip is known by its bytes, whoever made it
            raise TopworkError(f"{shown}: expected the file as it is; the server packs it as {encoding!r}")
        if answer.status == HTTPStatus.PARTIAL_CONTENT:
            total: int | None = _total_of_range(answer.headers, begin, part)
        elif answer.status == HTTPStatus.OK:
            begin, total, etag = 0, answer.length, answer.headers.get("ETag", "")
            part = _Part(url, etag if _STRONG_ETAG.fullmatch(etag) else "", total)
        else:
            raise TopworkError(
                f"{shown}: expected the file; the server answered {answer.status} {answer.reason}"
            )
        if total is not None and total > most_bytes:
            raise TopworkError(f"{shown} has {megabytes(total)}; the limit is {megabytes(most_bytes)}")
        try:
            if begin == 0:  # a note never stands beside a part of another file
                forget(path)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                _note(path).write_text(json.dumps(asdict(part)), encoding="utf-8")
            if total is not None:
                check_room(path.parent, total - begin, what=f"fetching {shown}")
            with path.open(
                "r+b", buffering=0
            ) as out:  # each piece is in the file at once, should we be killed
                have = out.seek(begin)
                for piece in _pieces(answer):
                    if progress:
                        progress(have, total)
                    have += len(piece)
                    if have > most_bytes:
                        raise TopworkError(f"{shown} has more than the limit, {megabytes(most_bytes)}")
                    while piece:  # an unbuffered file may take less at a time
                        piece = piece[out.write(piece) :]
        except OSError as error:
            raise storage_error(error, path) from error
        if progress:
            progress(have, total)
        if total is not None and have != total:
            raise _Broken(f"the connection ended after {have:,} of {total:,} bytes")
        final = urlsplit(answer.url)._replace(query="").geturl()
        return Fetched(path, final, _checked_sha256(path, answer.headers), have, resumed=begin > 0)


def _pieces(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while piece := answer.read1(_CHUNK_BYTES):
            yield piece
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(_reason(error)) from error


def _total_of_range(headers: Message, begin: int, part: _Part) -> int:
    """The size of the whole file. Raises `_Broken` unless the answer is the rest of the same one from `begin` on."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", headers.get("Content-Range", "").strip())
    first, last, total = map(int, match.groups()) if match else (-1, -1, -1)
    same = part.etag and headers.get("ETag", part.etag) == part.etag
    if not same or first != begin or last != total - 1 or part.total_bytes not in (None, total):
        raise _Broken("the server answered with another piece than was asked for", anew=True)
    return total


def _checked_sha256(path: Path, headers: Message) -> str:
    """The file's SHA-256. Raises `_Broken` where the server states another checksum for it."""
    stored = headers.get("x-goog-stored-content-encoding", "identity")
    google = (
        (headers.get_all("x-goog-hash") or ()) if stored == "identity" else ()
    )  # it is of the stored file
    stated = ",".join((headers.get("Repr-Digest", ""), *google))
    told = re.search(r"\b(sha-256|md5)=:?([A-Za-z0-9+/]+)", stated)
    try:
        with path.open("rb") as file:
            sha256 = found = hashlib.file_digest(file, "sha256")
            if told and told[1] == "md5":
                file.seek(0)
                found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    except OSError as error:
        raise storage_error(error, path) from error
    came = base64.b64encode(found.digest()).decode().rstrip("=")
    if told and told[2] != came:
        reason = f"what came has the {told[1].upper()} {came[:12]}…; the server says {told[2][:12]}…"
        raise _Broken(reason, anew=True, cost=PATIENCE // 2)  # once more, not four times
    return sha256.hexdigest()


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _left(path: Path, url: str) -> tuple[int, _Part]:
    """How many bytes an earlier attempt left, and of which file; 0 where that isn't certain."""
    try:
        part = _Part(**json.loads(_note(path).read_text(encoding="utf-8")))
        have = path.stat().st_size
        certain = part.url == url and _STRONG_ETAG.fullmatch(part.etag)
        if certain and (part.total_bytes is None or have <= part.total_bytes):
            return have, part
    except (OSError, ValueError, TypeError):
        pass
    return 0, _Part(url)


def _ask(url: str, headers: dict[str, str], shown: str, timeout_s: float) -> http.client.HTTPResponse:
    """The answer to GET once all redirects are followed. Raises as `fetch`, or `_Broken`.

    Certificates are checked against those of the system, or of `SSL_CERT_FILE`. The proxy that the environment
    names (`https_proxy`, `no_proxy`) is used.
    """
    from importlib.metadata import version

    opener = urllib.request.OpenerDirector()  # for https alone: it has no handler for http, ftp or file
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.UnknownHandler(),
        _OnlyHttps(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", f"topwork/{version('topwork')}")]
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=timeout_s)  # type: ignore[no-any-return]
    except HTTPError as error:
        with closing(error):
            _raise_for_status(error, shown)
    except URLError as error:
        _raise_for_network(error.reason, shown)
    except (OSError, http.client.HTTPException) as error:
        _raise_for_network(error, shown)
    except InputError:
        raise
    except ValueError as error:  # a redirect to what is no address
        raise TopworkError(f"{shown}: expected an address that can be asked; {error}") from error


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme != "https":
            fp.close()
            raise InputError(
                f"{req.full_url} redirects to {newurl}: expected https all the way, or the file could be exchanged. "
                "Ask for the https address of the file"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _raise_for_status(error: HTTPError, shown: str) -> NoReturn:
    code, said = error.code, " ".join(str(error.reason).split())
    if code in _TRANSIENT:
        wait = error.headers.get("Retry-After", "").strip()
        raise _Broken(f"the server answered {code} {said}", wait_s=float(wait) if wait.isdecimal() else 0.0)
    if code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise _Broken("the server has no such piece of the file", anew=True)
    if code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise InputError(
            f"{shown}: the server refuses it ({code} {said}). If it asks for an account, download the file yourself "
            "and give its path, or use a handle that signs in (kaggle:…, hf:…)"
        )
    if code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise InputError(f"{shown}: there is no such file ({code} {said}); check the address and its version")
    expected = "a redirect that leads somewhere" if 300 <= code < 400 else "the file"
    raise TopworkError(f"{shown}: expected {expected}; the server answered {code} {said}")


def _raise_for_network(reason: object, shown: str) -> NoReturn:
    host = urlsplit(shown).hostname
    if isinstance(reason, ssl.SSLCertVerificationError):
        raise TopworkError(
            f"{shown}: the certificate of {host} can't be trusted ({reason.verify_message}). Behind a company's "
            "proxy, or where Python finds no certificates, set SSL_CERT_FILE to a file that holds them"
        )
    if isinstance(reason, ssl.SSLError) and not isinstance(reason, ssl.SSLEOFError):
        raise TopworkError(f"{shown}: expected a server that speaks TLS; {reason.reason or reason}")
    if isinstance(reason, socket.gaierror):
        raise TopworkError(
            f"{shown}: can't find {host} ({reason.strerror}). Is this computer online? A module that was fetched "
            "before needs no network"
        )
    raise _Broken(_reason(reason))


def _reason(error: object) -> str:
    """Why the network failed, in words."""
    if isinstance(error, TimeoutError):
        return "the server did not answer in time"
    if isinstance(error, ssl.SSLError | http.client.IncompleteRead):
        return "the connection broke off"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
