"""One file over https, from a server that does everything wrong: the whole file, or an error that says why."""

from __future__ import annotations

import base64
import hashlib
import shutil
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from https_server import Page, Server, serving
from topwork.backbones.hub import https
from topwork.backbones.hub.https import Fetched, fetch
from topwork.errors import InputError, TopworkError

BODY = np.random.default_rng(5).bytes(300_000)
OTHER = np.random.default_rng(6).bytes(300_000)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(https, "BACKOFF_S", 0.01)
    with serving(monkeypatch) as server:
        yield server


def got(server: Server, folder: Path, path: str = "/f", body: bytes = BODY, **how: object) -> Fetched:
    """Fetch, and check that it is the whole of `body`."""
    file = folder / "file"
    fetched = fetch(server.url(path), file, **how)
    assert file.read_bytes() == body
    assert (fetched.path, fetched.size_bytes) == (file, len(body))
    assert fetched.sha256 == hashlib.sha256(body).hexdigest()
    return fetched


def ranges(server: Server, path: str = "/f") -> list[str | None]:
    return [headers.get("Range") for headers in server.asked(path)]


@pytest.mark.parametrize("length", [None, "none", "chunked"])
def test_a_file_and_what_is_told_of_it(server, tmp_path, length):
    server.put("/f", BODY, length=length)
    told = []
    fetched = got(server, tmp_path, progress=lambda *count: told.append(count))
    assert fetched.url == server.url("/f")
    assert not fetched.resumed
    total = len(BODY) if length is None else None
    assert told[0] == (0, total)
    assert told[-1] == (len(BODY), total)
    assert [so_far for so_far, _ in told] == sorted(so_far for so_far, _ in told)
    (headers,) = server.asked("/f")
    assert headers["User-Agent"].startswith("topwork/")
    assert headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server, tmp_path, status):
    server.put("/f", BODY)
    server.put("/b", status=status, headers={"Location": server.url("/f?token=secret")})
    server.put("/a", status=status, headers={"Location": "b"})
    fetched = got(server, tmp_path, "/a")
    assert fetched.url == server.url("/f")  # not with the token, which is kept nowhere
    assert server.requests[-1][0] == "/f?token=secret"


@pytest.mark.parametrize("target", ["http://127.0.0.1:1/f", "ftp://h/f"])
def test_a_redirect_away_from_https_is_refused(server, tmp_path, target):
    server.put("/a", status=302, headers={"Location": target})
    with pytest.raises(InputError, match=rf"/a redirects to {target}: expected https all the way"):
        fetch(server.url("/a"), tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("header", ["Location", "URI"])
@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "data:,x", "https://", "https://h:x/", "https://[/"]
)
def test_a_redirect_to_nowhere(server, tmp_path, target, header):
    server.put("/a", status=302, headers={header: target})
    with pytest.raises(TopworkError, match="/a"):
        fetch(server.url("/a"), tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_redirects_in_a_circle(server, tmp_path):
    server.put("/a", status=302, headers={"Location": "/b"})
    server.put("/b", status=302, headers={"Location": "/a"})
    with pytest.raises(
        TopworkError,
        match=r"expected a redirect that leads somewhere; the server answered 302 .*infinite loop",
    ):
        fetch(server.url("/a"), tmp_path / "file")


def test_nothing_secret_goes_along_with_a_redirect(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.put("/f", BODY)
    server.put("/a", status=302, headers={"Location": server.url("/f"), "Set-Cookie": "key=secret"})
    got(server, tmp_path, "/a?token=secret")
    assert server.requests[0][0] == "/a?token=secret"
    for path, headers in server.requests[1:]:
        assert "secret" not in f"{path}{headers}"
        assert headers.keys().isdisjoint({"Authorization", "Cookie", "Referer"})


@pytest.mark.parametrize("exempt", ["", "127.0.0.1"])
def test_the_proxy_of_the_environment(server, tmp_path, monkeypatch, exempt):
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def refuse() -> None:
            while True:
                connection, _ = proxy.accept()
                with connection:
                    asked.append(connection.recv(1000))
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                if asked[-1] == b"end":
                    return

        thread = threading.Thread(target=refuse)
        thread.start()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", exempt)
        server.put("/f", BODY)
        if exempt:
            got(server, tmp_path)
        else:
            with pytest.raises(
                TopworkError, match=r"can't fetch .*/f: Tunnel connection failed: 403 Forbidden"
            ):
                fetch(server.url("/f"), tmp_path / "file")
            assert asked[0].startswith(f"CONNECT 127.0.0.1:{server.port} HTTP/1.".encode())
        with socket.create_connection(proxy.getsockname()) as last:
            last.sendall(b"end")
        thread.join()
    assert len(asked) == (1 if exempt else https.PATIENCE + 1)


BREAKS = {
    "close": {},
    "reset": {"reset": True},
    "chunked": {"length": "chunked"},
    "length": {"length": str(len(BODY))},
}


@pytest.mark.parametrize("kind", BREAKS)
def test_a_broken_connection_goes_on(server, tmp_path, kind):
    server.put("/f", BODY, break_after=100_000, times=1, then=Page(BODY), **BREAKS[kind])
    fetched = got(server, tmp_path)
    first, second = server.asked("/f")
    assert "Range" not in first
    if kind != "reset":  # which takes back what was on its way
        assert second["Range"] == "bytes=100000-"
        assert fetched.resumed
    assert second.get("If-Range", '"v1"') == '"v1"'


def test_it_goes_on_as_long_as_something_comes(server, tmp_path):
    """Many more breaks than are borne with nothing coming."""
    server.put("/f", BODY, break_after=25_000)
    got(server, tmp_path)
    assert ranges(server) == [None, *(f"bytes={n}-" for n in range(25_000, 300_000, 25_000))]


def test_a_server_that_ignores_ranges_is_asked_from_the_start(server, tmp_path):
    server.put("/f", BODY, ranges=False, break_after=100_000, times=1, then=Page(BODY, ranges=False))
    assert not got(server, tmp_path).resumed


def test_a_changed_file_is_fetched_from_the_start(server, tmp_path):
    server.put("/f", BODY, break_after=100_000, times=1, then=Page(OTHER, etag='"v2"'))
    assert not got(server, tmp_path, body=OTHER).resumed
    assert ranges(server) == [None, "bytes=100000-"]


@pytest.mark.parametrize("etag", [None, 'W/"v1"', "v1", '"v1\x80"'])
def test_without_a_strong_etag_nothing_is_pieced_together(server, tmp_path, etag):
    server.put("/f", BODY, etag=etag, break_after=100_000, times=1, then=Page(OTHER, etag=etag))
    assert not got(server, tmp_path, body=OTHER).resumed
    assert ranges(server) == [None, None]


WRONG_PIECES = {
    "another place": {"headers": {"Content-Range": f"bytes 99999-{len(BODY) - 1}/{len(BODY)}"}},
    "not to the end": {"headers": {"Content-Range": f"bytes 100000-200000/{len(BODY)}"}},
    "of another size": {"headers": {"Content-Range": "bytes 100000-399999/400000"}},
    "no place": {"headers": {"Content-Range": "all of it"}},
    "another file": {"headers": {"ETag": '"v2"'}},
}


@pytest.mark.parametrize("kind", WRONG_PIECES)
def test_a_wrong_piece_is_not_used(server, tmp_path, kind):
    piece = Page(BODY, **WRONG_PIECES[kind], times=1, then=Page(BODY))
    server.put("/f", BODY, break_after=100_000, times=1, then=piece)
    assert not got(server, tmp_path).resumed
    assert ranges(server) == [None, "bytes=100000-", None]


def test_a_piece_that_was_not_asked_for(server, tmp_path):
    server.put("/f", BODY, status=206)
    with pytest.raises(TopworkError, match=r"can't fetch .*/f: the server answered with another piece"):
        fetch(server.url("/f"), tmp_path / "file")


def test_another_call_goes_on(server, tmp_path):
    def stop(so_far: int, total: int | None) -> None:
        if so_far > 100_000:
            raise KeyboardInterrupt

    server.put("/f", BODY, rate=2e6)
    with pytest.raises(KeyboardInterrupt):
        fetch(server.url("/f"), tmp_path / "file", progress=stop)
    have = (tmp_path / "file").stat().st_size
    assert 100_000 < have < len(BODY)
    assert got(server, tmp_path).resumed
    assert ranges(server) == [None, f"bytes={have}-"]
    assert got(server, tmp_path).resumed  # whole already: one byte shows that it is still the same
    assert ranges(server)[-1] == f"bytes={len(BODY) - 1}-"
    server.put("/f", OTHER, etag='"v2"')
    got(server, tmp_path, body=OTHER)


@pytest.mark.parametrize(
    "note", [b"", b"[]", b'{"url": 1}', b"{}", b"\xff", b'{"url": "URL", "etag": 5}', None]
)
def test_a_part_without_a_sound_note_is_not_used(server, tmp_path, note):
    server.put("/f", BODY)
    (tmp_path / "file").write_bytes(OTHER[:1000])
    if note is not None:
        (tmp_path / "file.json").write_bytes(note.replace(b"URL", server.url("/f").encode()))
    assert not got(server, tmp_path).resumed


def test_a_part_that_is_too_long_is_not_used(server, tmp_path):
    server.put("/f", BODY)
    got(server, tmp_path)
    (tmp_path / "file").write_bytes(BODY + b"x")
    assert not got(server, tmp_path).resumed


def test_a_length_that_is_too_long(server, tmp_path):
    server.put("/f", BODY, length=len(BODY) + 10)
    with pytest.raises(
        TopworkError, match=r"/f: .*; the 300,000 bytes that came are kept: try again to go on"
    ):
        fetch(server.url("/f"), tmp_path / "file")


@pytest.mark.parametrize("name", ["Repr-Digest", "x-goog-hash"])
def test_the_servers_checksum_holds(server, tmp_path, name):
    def header(body: bytes) -> dict[str, str]:
        if name == "Repr-Digest":
            return {name: f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"}
        return {name: f"crc32c=AAAAAA==, md5={base64.b64encode(hashlib.md5(body).digest()).decode()}"}

    server.put("/f", BODY, headers=header(BODY))
    got(server, tmp_path)
    https.forget(tmp_path / "file")
    # A lied length is seen so; it is fetched once more, and well.
    server.put("/f", BODY, headers=header(BODY), length=1000, times=1, then=Page(BODY, headers=header(BODY)))
    got(server, tmp_path)
    server.put("/f", BODY, headers=header(OTHER), etag='"v2"')
    count = len(server.requests)
    with pytest.raises(
        TopworkError, match=r"what came has the (SHA-256|MD5) \S+…; the server says \S+…; try again"
    ):
        fetch(server.url("/f"), tmp_path / "file")
    assert len(server.requests) == count + 2
    assert list(tmp_path.iterdir()) == []
    stored = {"x-goog-stored-content-encoding": "gzip", "x-goog-hash": "md5=AAAA"}
    server.put("/f", BODY, headers=stored)  # of what is stored, not of what is sent
    got(server, tmp_path)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_borne(server, tmp_path, status):
    server.put("/f", status=status, headers={"Retry-After": "0"}, times=2, then=Page(BODY))
    got(server, tmp_path)
    assert len(server.requests) == 3


def test_a_lasting_failure_is_told(server, tmp_path):
    server.put("/f", b"down", status=503)
    with pytest.raises(
        TopworkError, match=r"can't fetch .*/f: the server answered 503 Service Unavailable; try"
    ):
        fetch(server.url("/f"), tmp_path / "file")
    assert len(server.requests) == https.PATIENCE
    assert list(tmp_path.iterdir()) == []


def test_the_wait_that_a_server_asks_for(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(https.time, "sleep", waits.append)
    server.put("/f", status=503, headers={"Retry-After": "7"}, times=1, then=Page(BODY))
    got(server, tmp_path)
    server.put("/f", status=503, headers={"Retry-After": "86400"}, times=1, then=Page(BODY))
    got(server, tmp_path)
    assert [wait for wait in waits if wait > 1] == [7.0, https.LONGEST_WAIT_S]


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (404, InputError, "there is no such file (404 Not Found); check the address and its version"),
        (410, InputError, "there is no such file (410 Gone)"),
        (401, InputError, "the server refuses it (401 Unauthorized). If it asks for an account"),
        (403, InputError, "the server refuses it (403 Forbidden)"),
        (400, TopworkError, "expected the file; the server answered 400 Bad Request"),
        (204, TopworkError, "expected the file; the server answered 204 No Content"),
        (304, TopworkError, "expected a redirect that leads somewhere; the server answered 304 Not Modified"),
    ],
)
def test_a_refusal_is_told_at_once(server, tmp_path, status, kind, text):
    server.put("/f", status=status)
    with pytest.raises(kind) as caught:
        fetch(server.url("/f"), tmp_path / "file", shown="https://as.asked/m")
    assert type(caught.value) is kind
    assert str(caught.value).startswith("https://as.asked/m: ")
    assert text in str(caught.value)
    assert len(server.requests) == 1


def test_too_large(server, tmp_path):
    server.put("/f", BODY)
    with pytest.raises(TopworkError, match=r"/f has 0\.3 MB; the limit is 0\.2 MB"):
        fetch(server.url("/f"), tmp_path / "file", most_bytes=200_000)
    assert list(tmp_path.iterdir()) == []
    server.put("/f", BODY, length="chunked")
    with pytest.raises(TopworkError, match=r"/f has more than the limit, 0\.2 MB"):
        fetch(server.url("/f"), tmp_path / "file", most_bytes=200_000)
    assert (tmp_path / "file").stat().st_size <= 200_000


def test_no_room(server, tmp_path, monkeypatch):
    server.put("/f", BODY)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=64 * 2**20 + 299_999))
    with pytest.raises(
        TopworkError, match=r"fetching .*/f needs 0\.3 MB,? and 67 MB must stay free; .* has 67 MB"
    ):
        fetch(server.url("/f"), tmp_path / "file")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=64 * 2**20 + 300_000))
    got(server, tmp_path)


def test_another_packing_is_refused(server, tmp_path):
    server.put("/f", BODY, headers={"Content-Encoding": "br"})
    with pytest.raises(TopworkError, match="expected the file as it is; the server packs it as 'br'"):
        fetch(server.url("/f"), tmp_path / "file")


def test_a_server_that_falls_silent_is_asked_again(server, tmp_path):
    silent = {"length": len(BODY), "break_after": 100_000, "stall_s": 1.5, "times": 1}
    server.put("/f", BODY, **silent, then=Page(BODY))
    assert got(server, tmp_path, timeout_s=0.3).resumed
    server.put("/f", BODY, stall_s=1.5, length=len(BODY), break_after=0)
    with pytest.raises(TopworkError, match=r"/f: the server did not answer in time; try again later"):
        fetch(server.url("/f"), tmp_path / "other", timeout_s=0.1)


def test_a_slow_server_is_no_failure(server, tmp_path):
    server.put("/f", BODY, rate=400_000)
    got(server, tmp_path, timeout_s=0.4)
    assert len(server.requests) == 1


def test_a_certificate_that_nobody_vouches_for(server, tmp_path, monkeypatch):
    server.put("/f", BODY)
    (tmp_path / "none.pem").write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with pytest.raises(
        TopworkError, match=r"the certificate of 127\.0\.0\.1 can't be trusted \(.*\)\. Behind"
    ):
        fetch(server.url("/f"), tmp_path / "file")
    assert server.requests == []


def test_a_certificate_of_another_host(server, tmp_path):
    server.put("/f", BODY)
    with pytest.raises(TopworkError, match=r"the certificate of 127\.1 can't be trusted"):
        fetch(server.url("/f").replace("127.0.0.1", "127.1"), tmp_path / "file")
    assert server.requests == []


def test_no_such_host_and_no_server(server, tmp_path):
    with pytest.raises(
        TopworkError, match=r"can't find no\.such\.host\.invalid \(.*\)\. Is this computer online\?"
    ):
        fetch("https://no.such.host.invalid/f", tmp_path / "file")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(
        TopworkError, match=f"can't fetch https://127.0.0.1:{port}/f: Connection refused; try again"
    ):
        fetch(f"https://127.0.0.1:{port}/f", tmp_path / "file")


def test_a_server_that_speaks_something_else(server, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def speak() -> None:
            connection, _ = plain.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(TopworkError, match="expected a server that speaks TLS"):
            fetch(f"https://127.0.0.1:{plain.getsockname()[1]}/f", tmp_path / "file")
        thread.join()
