"""`topwork serve` under load, on loopback: throughput beside the engine's own, latencies, hostile uploads, memory.

    python benchmarks/serve_load.py load RUN [--seconds 10] [--repeats 3]
    python benchmarks/serve_load.py hostile RUN [--count 1000]
    python benchmarks/serve_load.py soak RUN [--count 100000]

The load generator is a process of its own that shares the machine's cores with the server: what it costs is counted
against the server. The engine's own rate is that of `Classifier.predict` on the same files, before and after each.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

FILES, SIDE = 256, 300
CONNECTIONS = (1, 8, 32, 128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("load", "hostile", "soak"))
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--count", type=int)
    parser.add_argument("--client", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        port, connections, seconds, folder = options.client
        asyncio.run(client(int(port), int(connections), float(seconds), Path(folder), options.count))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos(folder)
        {"load": load, "hostile": hostile, "soak": soak}[options.what](options, folder)


def photos(folder: Path) -> None:
    """JPEGs of 300 x 300, each another, with as much detail as photographs have."""
    for number in range(FILES):
        rng = np.random.default_rng(number)
        image = np.zeros((SIDE, SIDE, 3))
        for cells in (4, 16, 64):
            noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8)).resize((SIDE, SIDE), 3)
            image += np.asarray(noise) / 3
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{number:03}.jpg", quality=90)


def own_rate(run: Path, folder: Path) -> float:
    """Images a second of `Classifier.predict`, decoding included; the second pass over the files."""
    code = (
        "import sys, time; from topwork.classifier import Classifier\n"
        "c = Classifier.load(sys.argv[1])\n"
        "for _ in range(3):\n"
        "    t = time.perf_counter(); n = sum(1 for _ in c.predict(sys.argv[2])); s = time.perf_counter() - t\n"
        "print(n / s)"
    )
    return float(
        subprocess.run([sys.executable, "-c", code, run, folder], capture_output=True, check=True).stdout
    )


def start(run: Path, *options: str) -> tuple[subprocess.Popen[str], int]:
    arguments = [
        sys.executable,
        "-m",
        "topwork",
        "serve",
        f"it={run}",
        "--port",
        "0",
        "--queue",
        "100",
        *options,
    ]
    server = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    found = re.search(r":(\d+) serves", server.stdout.readline())
    assert found
    return server, int(found[1])


def stop(server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0


def measure(port: int, connections: int, seconds: float, folder: Path, count: int | None = None) -> str:
    given = ["--client", str(port), str(connections), str(seconds), str(folder)]
    given += ["--count", str(count)] if count else []
    called = [sys.executable, __file__, "load", ".", *given]
    return subprocess.run(called, capture_output=True, text=True, check=True).stdout.strip()


def load(options: argparse.Namespace, folder: Path) -> None:
    shares: dict[int, list[float]] = {n: [] for n in CONNECTIONS}
    server, port = start(options.run)
    measure(port, 8, 3, folder)  # warm
    for repeat in range(options.repeats):
        for connections in CONNECTIONS:
            stop(server)
            before = own_rate(options.run, folder)
            server, port = start(options.run)
            measure(port, 8, 2, folder)
            told = measure(port, connections, options.seconds, folder)
            stop(server)
            after = own_rate(options.run, folder)
            server, port = start(options.run)
            rate = float(told.split()[0])
            shares[connections].append(rate / statistics.mean((before, after)))
            print(
                f"repeat {repeat}, {connections:3} connections: engine {before:.0f}, {after:.0f}; served {told}",
                flush=True,
            )
    stop(server)
    for connections, found in shares.items():
        low, middle, high = min(found), statistics.median(found), max(found)
        print(f"{connections:3} connections: {middle:.2f} ({low:.2f} to {high:.2f}) of the engine")


async def client(port: int, connections: int, seconds: float, folder: Path, count: int | None) -> None:
    """Each connection asks, waits for the answer, and asks again; told to come again, it does after 50 ms."""
    requests = []
    for path in sorted(folder.glob("*.jpg")):
        body = path.read_bytes()
        head = f"POST /v1/predict?top=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        requests.append(head.encode() + body)
    statuses: Counter[str] = Counter()
    times: list[float] = []
    end = time.perf_counter() + seconds
    left = count if count else 1 << 60

    async def ask(first: int) -> None:
        nonlocal left
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        number = first
        while time.perf_counter() < end and left > 0:
            left -= 1
            number += 1
            began = time.perf_counter()
            writer.write(requests[number % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            assert length
            await reader.readexactly(int(length[1]))
            status = head[9:12].decode()
            statuses[status] += 1
            if status == "200":
                times.append(time.perf_counter() - began)
            else:
                await asyncio.sleep(0.05)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(ask(17 * n) for n in range(connections)))
    rate = len(times) / (time.perf_counter() - began)
    p50, p99 = (1000 * float(np.quantile(times, q)) for q in (0.5, 0.99))
    print(f"{rate:.1f} a second, p50 {p50:.0f} ms, p99 {p99:.0f} ms, {dict(statuses)}")


def memory_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


def soak(options: argparse.Namespace, folder: Path) -> None:
    server, port = start(options.run)
    count, parts = options.count or 100_000, 20
    measure(port, 8, 60, folder, 1000)
    print(f"after 1000 requests: {memory_mb(server.pid):.0f} MB", flush=True)
    for part in range(parts):
        told = measure(port, 8, 3600, folder, count // parts)
        print(
            f"after {1000 + (part + 1) * count // parts}: {memory_mb(server.pid):.0f} MB, {told}", flush=True
        )
    stop(server)


def hostile(options: argparse.Namespace, folder: Path) -> None:
    """Mutations of good files and heads, one a connection; after each twenty a good one must be answered."""
    server, port = start(options.run, "--timeout", "2")
    rng = random.Random(0)
    good = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:20]]
    found: Counter[str] = Counter()

    async def send(data: bytes) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            answer = await asyncio.wait_for(reader.read(1 << 20), 10)
        except (OSError, TimeoutError):
            answer = b""
        writer.close()
        assert b"Traceback" not in answer
        assert str(options.run).encode() not in answer
        return answer[9:12].decode() or "closed"

    def request(body: bytes, length: int | None = None) -> bytes:
        told = len(body) if length is None else length
        head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {told}\r\n\r\n"
        return head.encode() + body

    def evil() -> bytes:
        data = bytearray(rng.choice(good))
        kind = rng.randrange(8)
        if kind == 0:
            return request(bytes(data[: rng.randrange(len(data))]))
        if kind == 1:
            for _ in range(rng.randrange(1, 60)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            return request(bytes(data))
        if kind == 2:
            return request(rng.randbytes(rng.randrange(1, 5000)))
        if kind == 3:
            return request(data[:2] + rng.randbytes(rng.randrange(2000)))
        if kind == 4:
            whole = bytearray(request(bytes(data)))
            for _ in range(rng.randrange(1, 10)):
                whole[rng.randrange(120)] = rng.randrange(256)
            return bytes(whole)
        if kind == 5:
            return request(bytes(data), rng.choice((len(data) + 100, 1 << 40, 5)))
        if kind == 6:
            return (
                b"GET "
                + bytes(rng.choice(b"/.%2e\\etcpasswd\x00") for _ in range(60))
                + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
        return b"POST /v1/predict HTTP/1.1\r\n" + b"X: " + b"a" * rng.randrange(200_000) + b"\r\n\r\n"

    async def all_of_them() -> None:
        count = options.count or 1000
        for first in range(0, count, 20):
            for status in await asyncio.gather(*(send(evil()) for _ in range(min(20, count - first)))):
                found[status] += 1
            assert await send(request(good[0])) == "200", first

    asyncio.run(all_of_them())
    print(
        f"{sum(found.values())} hostile uploads, after each 20 a good one was answered: {dict(sorted(found.items()))}"
    )
    assert not any(status.startswith("5") for status in found)
    stop(server)


if __name__ == "__main__":
    main()
