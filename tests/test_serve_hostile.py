"""What a server is sent that nobody should send: it answers with a reason, keeps its secrets, and goes on."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import Server, pictures, serving
from topwork.training import Run


@pytest.fixture(scope="module")
def server(run: Run) -> Iterator[Server]:
    with serving(f"shapes={run.path}", "--timeout", 2) as found:
        yield found


def _bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that says it has side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        + chunk(b"IEND", b"")
    )


def _mutated(good: bytes, random_: random.Random) -> bytes:
    data = bytearray(good)
    kind = random_.randrange(4)
    if kind == 0:
        return bytes(data[: random_.randrange(len(data))])
    if kind == 1:
        for _ in range(random_.randrange(1, 30)):
            data[random_.randrange(len(data))] = random_.randrange(256)
    elif kind == 2:
        at = random_.randrange(len(data))
        data[at:at] = random_.randbytes(random_.randrange(1, 400))
    else:
        at = random_.randrange(len(data))
        del data[at : at + random_.randrange(1, 200)]
    return bytes(data)


@pytest.mark.slow
def test_mutated_pictures(server: Server, run: Run, fresh: Path) -> None:
    good = pictures(fresh)[0].read_bytes()
    random_ = random.Random(0)
    with server.client() as client:
        for number in range(150):
            data = _bomb(60_000) if number == 0 else _mutated(good, random_)
            response = client.post("/v1/predict", content=data)
            assert response.status_code in (200, 400, 422), (number, response.text)
            assert str(run.path) not in response.text
            assert "Traceback" not in response.text
        assert client.post("/v1/predict", content=good).status_code == 200


HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
RAW = [
    b"\x00" * 100,
    b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"GET /%2e%2e/%2e%2e/etc/passwd%00.css HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"GET /page.css/../../app.py HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    HEAD + b"Content-Length: -5\r\n\r\nabc",
    HEAD + b"Content-Length: 99999999999999999999\r\n\r\nabc",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
    HEAD + b"Content-Type: multipart/form-data\r\nContent-Length: 3\r\n\r\nabc",
    HEAD + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 9\r\n\r\n--x\r\nabc:",
    HEAD
    + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 94\r\n\r\n--x\r\nContent-Disposition: "
    b'form-data; name="a"; filename="../../../etc/cron.d/x"\r\n\r\n\x00\xff\r\n--x--\r\n',
    HEAD + b"Content-Length: 10\r\n\r\nabc",  # and then silence
    b"POST /v1/predict HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(20_000)) + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \x00\x01\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"BREW /v1/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(RAW)))
def test_raw_bytes(server: Server, run: Run, fresh: Path, number: int) -> None:
    answer = server.raw(RAW[number], wait=5)
    status = answer.partition(b" ")[2][:3]
    assert not status.startswith(b"5"), answer[:300]
    for secret in (b"root:", str(run.path).encode(), b"Traceback", b"import "):
        assert secret not in answer
    with server.client() as client:
        assert client.post("/v1/predict", content=pictures(fresh)[0].read_bytes()).status_code == 200
