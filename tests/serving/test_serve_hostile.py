"""What a server is sent that nobody should send: it answers with a reason, keeps its secrets, and goes on."""

from __future__ import annotations

import asyncio
import io
import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from PIL import Image

from serving import Server, pictures, serving
from topwork.jobs.train import Run
from topwork.serving.settings import Limits
from topwork.serving.wire import bounded


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


def _scans(side: int, count: int) -> bytes:
    """A progressive JPEG that goes over its pixels again and again: 15 bytes for a pass."""
    file = io.BytesIO()
    Image.new("L", (side, side), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()[:-2]  # without its end
    return data + data[data.rindex(b"\xff\xda") :] * count + b"\xff\xd9"


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
            data = (_bomb(60_000), _scans(1000, 20_000))[number] if number < 2 else _mutated(good, random_)
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
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: " + b"a" * 200_000,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n3;" + b"a" * 200_000 + b"\r\nabc\r\n0\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10_000,
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


def test_no_connection_is_held_for_nothing(server: Server) -> None:
    """What never ends, or whose answer isn't taken, is hung up on: all at once here, each within a few seconds."""
    body = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n"
    ask = b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    began = time.monotonic()
    wires = {name: socket.create_connection(server.address) for name in ("nothing", "line", "body")}
    wires["deaf"] = socket.socket()
    wires["deaf"].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wires["deaf"].connect(server.address)
    wires["line"].sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b" 200 " in wires["line"].recv(4096)
    wires["line"].sendall(b"\r\n")  # no request begins with it
    wires["body"].sendall(body)

    def deafen() -> None:
        wires["deaf"].settimeout(60)
        with suppress(ConnectionError):
            while True:
                wires["deaf"].sendall(ask)
                time.sleep(0.002)  # one after another, as far as the server is concerned

    deaf = threading.Thread(target=deafen)
    deaf.start()
    for name in ("nothing", "line", "body"):
        wires[name].settimeout(60)
        while wires[name].recv(65536):
            pass
    deaf.join()
    assert time.monotonic() - began < 50  # two seconds each, on a machine that has them
    for wire in wires.values():
        wire.close()
    with server.client() as client:
        assert client.get("/healthz").status_code == 200


def test_an_answer_that_nobody_takes_is_let_go() -> None:
    """Of more bytes than the system would keep: the application goes on when the connection is ended."""
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(50_000_000), "more_body": True})
        await send({"type": "http.response.body", "body": b""})  # waits for the other side
        done.set()

    async def ask() -> None:
        config = uvicorn.Config(
            app, port=0, http=bounded(Limits(seconds=0.5)), lifespan="off", log_level="error"
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as wire:
            wire.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.wait_for(done.wait(), 60)
            server.should_exit = True
            await task

    asyncio.run(ask())


def test_bodies_are_held_up_to_a_limit(run: Run, fresh: Path) -> None:
    """Ten times a megabyte, none of them whole: a byte more is turned away until they are let go."""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000001\r\n\r\n"
    good = pictures(fresh)[0].read_bytes()

    def wait(held: bytes) -> None:
        until = time.monotonic() + 60
        while b"\ntopwork_bytes_held " + held + b"\n" not in client.get("/metrics").content:
            assert time.monotonic() < until
            time.sleep(0.02)

    with (
        serving(run.path, "--max-held-bytes", 10_000_000, "--max-bytes", 2_000_000) as server,
        server.client() as client,
    ):
        wires = [socket.create_connection(server.address, timeout=60) for _ in range(10)]
        for wire in wires:
            wire.sendall(head + bytes(1_000_000))
        wait(b"1e+07")
        refused = client.post("/v1/predict", content=good)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["code"] == "busy"
        for wire in wires:
            wire.close()
        wait(b"0.0")
        assert client.post("/v1/predict", content=good).status_code == 200
