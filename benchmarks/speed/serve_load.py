"""`topwork serve` under load, on loopback: throughput beside the engine's own, latencies, memory, its end.

    python -m benchmarks.speed.serve_load load RUN [--seconds 8] [--repeats 3]
    python -m benchmarks.speed.serve_load soak RUN [--count 100000]
    python -m benchmarks.speed.serve_load stop RUN [--repeats 10]
    python -m benchmarks.speed.serve_load train RUN [--size 224]

`train` makes a run to measure with, from drawn shapes. The load generator is a process of its own that shares the
machine's cores with the server: what it costs is counted against the server. The engine's own rate is that of
`Classifier.predict` on the same files, by turns with the server. Beside the rates stand the processor's milliseconds
a picture, which other work on the machine disturbs less.
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.options import shared_options

FILES, SIDE, SMALL_SIDE = 256, 300, 96
CONNECTIONS = (1, 8, 32, 128)
ENGINE = """
import sys, time
from topwork.classifiers.classifier import Classifier
c = Classifier.load(sys.argv[1])
for line in sys.stdin:
    n, began, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < float(line):
        n += sum(1 for _ in c.predict(sys.argv[2]))
    print(n / (time.perf_counter() - began), 1000 * (time.process_time() - cpu) / n, flush=True)
"""


@dataclass(frozen=True)
class Told:
    """What a load came to: answers of 200 a second, milliseconds, statuses, and the client's own CPU seconds."""

    rate: float
    p50_ms: float
    p99_ms: float
    statuses: dict[str, int]
    cpu_s: float

    def __str__(self) -> str:
        return (
            f"{self.rate:.1f} a second, p50 {self.p50_ms:.0f} ms, p99 {self.p99_ms:.0f} ms, {self.statuses}"
        )


def main() -> None:
    parser = shared_options(__doc__, seconds=8.0, repeats=None, size=224)
    parser.add_argument("what", choices=("load", "soak", "stop", "train"))
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--count", type=int, help="requests of a soak")
    parser.add_argument("--client", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        port, connections, seconds, folder = options.client
        print(asyncio.run(client(int(port), int(connections), float(seconds), Path(folder), options.count)))
        return
    with tempfile.TemporaryDirectory() as name:
        {"load": load, "soak": soak, "stop": stop_under_load, "train": train}[options.what](
            options, Path(name)
        )


def photos(folder: Path, *, side: int = SIDE) -> None:
    """JPEGs of `side` x `side`, each another, with as much detail as photographs have."""
    for number in range(FILES):
        rng = np.random.default_rng(number)
        image = np.zeros((side, side, 3))
        for cells in (4, 16, 64):
            noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8)).resize((side, side), 3)
            image += np.asarray(noise) / 3
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{number:03}.jpg", quality=90)


def train(options: argparse.Namespace, folder: Path) -> None:
    """A run on circles, squares and stripes: what it knows doesn't matter here."""
    rng = random.Random(0)
    for number in range(210):
        image = Image.new("RGB", (SIDE, SIDE), tuple(rng.randrange(100) for _ in range(3)))
        draw, ink = ImageDraw.Draw(image), tuple(rng.randrange(150, 250) for _ in range(3))
        side, x, y = rng.randrange(90, 150), rng.randrange(10, 140), rng.randrange(10, 140)
        kind = ("circle", "square", "stripes")[number % 3]
        if kind == "circle":
            draw.ellipse((x, y, x + side, y + side), fill=ink)
        elif kind == "square":
            draw.rectangle((x, y, x + side, y + side), fill=ink)
        else:
            for at in range(x % 40, SIDE, 40):
                draw.line((at, 0, at, SIDE), fill=ink, width=14)
        (folder / kind).mkdir(exist_ok=True)
        image.save(folder / kind / f"{number}.jpg")
    command = [sys.executable, "-m", "topwork", "train", folder, "--out", options.run, "--size"]
    subprocess.run([*command, str(options.size), "--overwrite"], check=True)


def start(run: Path, *options: str) -> tuple[subprocess.Popen[str], int]:
    """A server with its defaults, and its port."""
    arguments = [sys.executable, "-m", "topwork", "serve", f"it={run}", "--port", "0", *options]
    server = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    found = re.search(r":(\d+) serves", server.stdout.readline())
    assert found
    return server, int(found[1])


def stop(server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0


def measure(port: int, connections: int, seconds: float, folder: Path, count: int | None = None) -> Told:
    given = ["--client", str(port), str(connections), str(seconds), str(folder)]
    given += ["--count", str(count)] if count else []
    called = [sys.executable, "-m", __spec__.name, "load", ".", *given]
    rate, p50, p99, cpu, *statuses = subprocess.run(
        called, capture_output=True, text=True, check=True
    ).stdout.split()
    pairs = (told.split("=") for told in statuses)
    return Told(float(rate), float(p50), float(p99), {k: int(v) for k, v in pairs}, float(cpu))


def load(options: argparse.Namespace, folder: Path) -> None:
    photos(folder)
    server, port = start(options.run)
    engine = subprocess.Popen(
        [sys.executable, "-c", ENGINE, options.run, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def own(seconds: float) -> tuple[float, float]:
        assert engine.stdin
        assert engine.stdout
        print(seconds, file=engine.stdin, flush=True)
        rate, cpu_ms = map(float, engine.stdout.readline().split())
        return rate, cpu_ms

    measure(port, 8, 3, folder)  # both warm
    own(3)
    shares: dict[int, list[tuple[float, float, Told]]] = {n: [] for n in CONNECTIONS}
    before = own(options.seconds)
    for repeat in range(options.repeats or 3):
        for connections in CONNECTIONS:
            used = cpu_s(server.pid)
            told = measure(port, connections, options.seconds, folder)
            used = cpu_s(server.pid) - used
            after = own(options.seconds)
            share = told.rate / statistics.mean((before[0], after[0]))
            served_ms = 1000 * (used + told.cpu_s) / told.statuses["200"]
            client_ms = 1000 * told.cpu_s / told.statuses["200"]
            by_cpu = statistics.mean((before[1], after[1])) / served_ms
            shares[connections].append((share, by_cpu, told))
            print(
                f"repeat {repeat}, {connections:3} connections: engine {before[0]:.0f} and {after[0]:.0f} img/s, "
                f"{after[1]:.1f} ms CPU; served {told}, {served_ms:.1f} ms CPU with {client_ms:.2f} of the "
                "client",
                flush=True,
            )
            before = after
    stop(server)
    engine.kill()
    for connections, found in shares.items():
        print(
            f"{connections:3} connections: {_spread([s for s, _, _ in found])} of the engine, by CPU "
            f"{_spread([c for _, c, _ in found])}; {statistics.median(t.rate for _, _, t in found):.0f} a second, "
            f"p50 {statistics.median(t.p50_ms for _, _, t in found):.0f} ms, "
            f"p99 {statistics.median(t.p99_ms for _, _, t in found):.0f} ms, "
            f"{dict(sum((Counter(t.statuses) for _, _, t in found), Counter()))}"
        )


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


async def client(port: int, connections: int, seconds: float, folder: Path, count: int | None) -> str:
    """Each connection asks, waits for the answer, and asks again; told to come again, it does when it is told to."""
    requests = []
    for path in sorted(folder.glob("*.jpg")):
        body = path.read_bytes()
        head = f"POST /v1/predict?top=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        requests.append(head.encode() + body)
    statuses: Counter[str] = Counter()
    times: list[float] = []
    end = time.perf_counter() + seconds
    left = count if count else 1 << 60
    began_cpu = time.process_time()

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
            again = re.search(rb"retry-after: (\d+)", head)
            if again:
                wait_s = int(again[1]) * random.uniform(0.8, 1.2)
                await asyncio.sleep(min(wait_s, max(0, end - time.perf_counter())))
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(ask(17 * n) for n in range(connections)))
    rate = len(times) / (time.perf_counter() - began)
    p50, p99 = (1000 * float(np.quantile(times, q)) for q in (0.5, 0.99))
    told = " ".join(f"{status}={number}" for status, number in sorted(statuses.items()))
    return f"{rate} {p50} {p99} {time.process_time() - began_cpu} {told}"


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def memory_mb(pid: int, what: str = "VmRSS") -> float:
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(rf"{what}:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


def soak(options: argparse.Namespace, folder: Path) -> None:
    """Memory over many requests, one in 64 of them no picture, with pictures of `SMALL_SIDE`."""
    photos(folder, side=SMALL_SIDE)
    for path in sorted(folder.glob("*.jpg"))[::64]:
        path.write_bytes(path.read_bytes()[:700])
    server, port = start(options.run)
    count, parts = options.count or 100_000, 20
    measure(port, 8, 60, folder, 1000)
    print(f"after 1,000 requests: {memory_mb(server.pid):.0f} MB", flush=True)
    for part in range(parts):
        told = measure(port, 8, 3600, folder, count // parts)
        done = 1000 + (part + 1) * count // parts
        print(f"after {done:,}: {memory_mb(server.pid):.0f} MB, {told}", flush=True)
    stop(server)


def stop_under_load(options: argparse.Namespace, folder: Path) -> None:
    """SIGTERM while 32 kept connections ask without a pause, again and again: what is answered, and what is lost."""
    photos(folder)
    bodies = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:32]]
    answered = lost = 0
    for repeat in range(options.repeats or 10):
        server, port = start(options.run)
        ends = asyncio.run(_ask_until_the_end(server, port, bodies, after_s=1 + repeat / 10))
        assert server.wait(60) == 0
        answered, lost = answered + sum(n for n, _ in ends), lost + sum(gone for _, gone in ends)
    print(f"{repeat + 1} ends under load of 32 connections: {answered} requests answered, {lost} not")


async def _ask_until_the_end(
    server: subprocess.Popen[str], port: int, bodies: list[bytes], *, after_s: float
) -> list[tuple[int, int]]:
    """Of each connection: how many requests were answered, and how many (0 or 1) were not."""

    async def ask(body: bytes) -> tuple[int, int]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head, number = (
            f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n",
            0,
        )
        while True:
            writer.write(head.encode() + body)
            try:
                told = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(re.search(rb"content-length: (\d+)", told)[1]))  # type: ignore[index]
            except (OSError, asyncio.IncompleteReadError):
                return number, 1
            assert told.startswith(b"HTTP/1.1 200 "), told
            number += 1
            if b"connection: close" in told:
                writer.close()
                return number, 0

    asyncio.get_running_loop().call_later(after_s, server.send_signal, signal.SIGTERM)
    return await asyncio.gather(*(ask(body) for body in bodies))


if __name__ == "__main__":
    main()
