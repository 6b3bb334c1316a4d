"""An https server on this machine that does what servers do, wrong things too; and archives, sound and hostile.

Its certificate is in tests/support/data, valid to 2120, signed by an authority that only the tests trust, through
`SSL_CERT_FILE`, as any user would do it.
"""

from __future__ import annotations

import io
import socket
import ssl
import struct
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

DATA = Path(__file__).parent / "data"
AUTHORITY = DATA / "authority.pem"


@dataclass
class Page:
    """What one address answers."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | None = '"v1"'
    ranges: bool = True  # honours Range and If-Range
    length: int | str | None = None  # told in place of the true one; "none": no length, "chunked"
    break_after: int | None = None  # bytes of an answer, after which the connection ends
    reset: bool = False  # … with a reset instead of a close
    stall_s: float = 0.0  # waits there before
    rate: float | None = None  # bytes a second
    times: int | None = None  # how often this page is as it is; after that `then`
    then: Page | None = None
    mangle: Callable[[int, bytes], bytes] | None = None  # (first byte, piece) → what is sent


class Server:
    """Answers https requests; `pages` by path, `requests` as they came: (path with query, headers)."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.turn = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with server.turn:
                    page = server.page(self.path, dict(self.headers.items()))
                answer(self, page)

            def log_message(self, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients that go away, which some are killed to do

            def shutdown_request(self, request: Any) -> None:
                self.close_request(request)  # without a polite end, so that a reset is one

        self.http = Quiet(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(DATA / "localhost.pem")
        self.http.socket = context.wrap_socket(
            self.http.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self.http.server_address[1]
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def page(self, path: str, headers: dict[str, str]) -> Page:
        self.requests.append((path, headers))
        name = path.partition("?")[0]
        page = self.pages.get(name, Page(status=404))
        if page.times is not None:
            page.times -= 1
            if page.times == 0 and page.then is not None:
                self.pages[name] = page.then
        return page

    def put(self, path: str, body: bytes = b"", **how: Any) -> str:
        """Make `path` answer so; its address."""
        self.pages[path] = Page(body, **how)
        return self.url(path)

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{path}"

    def asked(self, path: str) -> list[dict[str, str]]:
        """The headers of each request for `path`."""
        return [headers for asked, headers in self.requests if asked.partition("?")[0] == path]

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


def answer(handler: BaseHTTPRequestHandler, page: Page) -> None:
    body, status, first = page.body, page.status, 0
    wanted = handler.headers.get("Range", "")
    headers = dict(page.headers)
    if page.etag:
        headers.setdefault("ETag", page.etag)
    if wanted and page.ranges and status == 200 and handler.headers.get("If-Range") == page.etag:
        first = int(wanted.removeprefix("bytes=").rstrip("-"))
        status, of_all = 206, f"bytes {first}-{len(body) - 1}/{len(body)}"
        if first >= len(body):
            status, of_all, body = 416, f"bytes */{len(body)}", b""
        headers.setdefault("Content-Range", of_all)
        body = body[first:]
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    if page.length == "chunked":
        handler.send_header("Transfer-Encoding", "chunked")
    elif page.length != "none":
        handler.send_header("Content-Length", str(len(body) if page.length is None else page.length))
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    if page.mangle:
        body = page.mangle(first, body)
    whole = page.break_after is None or len(body) <= page.break_after
    body = body if whole else body[: page.break_after]
    step = 2**16 if page.rate is None else max(1, int(page.rate / 50))
    for start in range(0, len(body), step):
        piece = body[start : start + step]
        if page.length == "chunked":
            piece = f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
        handler.wfile.write(piece)
        if page.rate is not None:
            time.sleep(step / page.rate)
    if page.length == "chunked" and whole:
        handler.wfile.write(b"0\r\n\r\n")
    time.sleep(page.stall_s)
    if page.reset:
        linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that this process, and those it starts, trust; and no proxy between."""
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("TFHUB_CACHE_DIR", raising=False)
    server = Server()
    try:
        yield server
    finally:
        server.close()


def module_files(size: int = 200_000, seed: int = 0) -> dict[str, bytes]:
    """The files of something that looks like a SavedModel; bytes that don't compress."""
    noise = np.random.default_rng(seed).bytes(size)
    return {
        "saved_model.pb": noise[: size // 4],
        "variables/variables.index": b"index" * 20,
        "variables/variables.data-00000-of-00001": noise[size // 4 :],
        "assets/labels.txt": b"cat\ndog\n",
    }


def tar(files: dict[str, bytes], *more: tarfile.TarInfo, mode: str = "w:gz", prefix: str = "./") -> bytes:
    """The files in a tar, and `more` members without content after them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"{prefix}{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info)
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zipped(files: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by their names there."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
