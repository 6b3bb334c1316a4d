"""`topwork serve` and what nobody should send it: uploads of every bad kind, and the decoder by itself.

    python -m benchmarks.hostile.uploads RUN [--count 1000] [--decoded 20000] [--seed 0]

`count` requests, one a connection, twenty at once, in turn of ten kinds; after each twenty a good picture must be
answered. No answer may be a 5xx, or show a path of the machine or the program's inside. Then `decoded` mutations of
good files of six formats go through the decoder alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import struct
import tempfile
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.options import shared_options
from benchmarks.speed.serve_load import cpu_s, memory_mb, photos, start, stop
from topwork.errors import ImageError
from topwork.images.decode import decode

AT_ONCE, TIMEOUT_S = 20, 2
LOCAL = "Host: localhost\r\nConnection: close\r\n"
SECRETS = (b"Traceback", b"site-packages", b"root:", b'File "')


def main() -> None:
    parser = shared_options(__doc__, seed=0)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--count", type=int, default=1000, help="hostile requests")
    parser.add_argument("--decoded", type=int, default=20_000, help="mutated files for the decoder alone")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    files = good_files()
    with tempfile.TemporaryDirectory() as name:
        photos(Path(name))
        good = (Path(name) / "000.jpg").read_bytes()
    server, port = start(options.run, "--timeout", str(TIMEOUT_S))
    before = memory_mb(server.pid)
    secrets = (*SECRETS, str(options.run.resolve()).encode(), str(Path.home()).encode() + b"/")
    found = asyncio.run(attack(port, good, files, secrets, count=options.count, rng=rng))
    for kind, told in found.items():
        print(f"{kind:16} {sum(told.values()):4}: {dict(sorted(told.items()))}")
    total = sum((told for told in found.values()), Counter())
    print(
        f"{sum(total.values()):,} hostile requests: {dict(sorted(total.items()))}; a good one after each {AT_ONCE}"
    )
    after, most = memory_mb(server.pid), memory_mb(server.pid, "VmHWM")
    print(
        f"server: {before:.0f} MB before, {after:.0f} after, {most:.0f} at most; {cpu_s(server.pid):.0f} s of CPU"
    )
    stop(server)
    assert not any(status.startswith("5") for status in total)
    print(fuzz(files, options.decoded, rng), flush=True)


async def attack(
    port: int, good: bytes, files: list[bytes], secrets: tuple[bytes, ...], *, count: int, rng: random.Random
) -> dict[str, Counter[str]]:
    """What was answered to each kind."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    kinds = list(KINDS.items())
    for first in range(0, count, AT_ONCE):
        turn = [kinds[number % len(kinds)] for number in range(first, min(first + AT_ONCE, count))]
        sent = [make(files, rng) for _, make in turn]
        told = await asyncio.gather(*(send(port, parts) for parts in sent))
        for (kind, _), answer in zip(turn, told, strict=True):
            for secret in secrets:
                assert secret not in answer, (kind, secret, answer[:500])
            found[kind][answer[9:12].decode("latin-1") or "hung up"] += 1
        answer = await send(port, [picture(good)])
        assert answer[9:12] == b"200", (first, answer[:300])
    return found


async def send(port: int, parts: list[bytes]) -> bytes:
    """All that comes back until the server hangs up; between two parts, half a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        for number, part in enumerate(parts):
            if number:
                await asyncio.sleep(0.5)
            writer.write(part)
            await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 60)
    except TimeoutError:
        raise SystemExit(f"held for a minute by {parts[0][:200]!r}") from None
    except OSError:  # it has hung up
        pass
    writer.close()
    return answer


def post(body: bytes, *, path: str = "/v1/predict", head: str = "", length: int | None = None) -> bytes:
    told = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\n{LOCAL}{head}Content-Length: {told}\r\n\r\n".encode() + body


def picture(data: bytes) -> bytes:
    return post(data)


def good_files() -> list[bytes]:
    """A picture in six formats, some in two ways."""
    blocks = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    image = Image.fromarray(blocks).resize((160, 120), Image.Resampling.BICUBIC)
    ways = (
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
    )
    files = []
    for kind, how in ways:
        file = io.BytesIO()
        image.save(file, kind, **how)
        files.append(file.getvalue())
    return files


def mutated(good: bytes, rng: random.Random) -> bytes:
    data, how = bytearray(good), rng.randrange(5)
    at = rng.randrange(len(data))
    if how == 0:
        return bytes(data[:at])
    if how == 1:
        for _ in range(rng.randrange(1, 60)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif how == 2:
        data[at:at] = rng.randbytes(rng.randrange(1, 400))
    elif how == 3:
        del data[at : at + rng.randrange(1, 200)]
    else:  # in the head, where sizes and counts stand
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(min(64, len(data)))] = rng.choice((0, 1, 127, 128, 255))
    return bytes(data)


def bomb(rng: random.Random) -> bytes:
    """A few kilobytes that say they are gigabytes, or that ask for hours."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side, how = rng.choice((7_500, 20_000, 60_000)), rng.randrange(4)
    if how == 0:
        head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        packed = zlib.compress(bytes(1 << 20))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    if how == 1:
        return b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0) + b"," + bytes(8) + rng.randbytes(400)
    if how == 2:
        return (
            b"BM"
            + struct.pack("<IHHIIiiHHII", 0, 0, 0, 54, 40, side, side, 1, 24, 0, 0)
            + rng.randbytes(4000)
        )
    file = io.BytesIO()
    Image.new("L", (3000, 3000), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()[:-2]
    return data + data[data.rindex(b"\xff\xda") :] * 50_000 + b"\xff\xd9"


def form(files: list[bytes], rng: random.Random) -> list[bytes]:
    names = ("../../../etc/passwd", "C:\\x.png", "a\x00b.png", '"; rm -rf /', "%2e%2e%2f", "x" * 3000)
    body = b"".join(
        f'--x\r\nContent-Disposition: form-data; name="a"; filename="{rng.choice(names)}"\r\n\r\n'.encode()
        + mutated(rng.choice(files), rng)
        + b"\r\n"
        for _ in range(rng.choice((1, 3, 200)))
    )
    end = rng.choice((b"--x--\r\n", b"--y--\r\n", b""))
    return [post(body + end, head="Content-Type: multipart/form-data; boundary=x\r\n")]


def slow(files: list[bytes], rng: random.Random) -> list[bytes]:
    """A head, a body or a chunk that stops in its midst; some trickle on."""
    whole = post(rng.choice(files))
    at = rng.choice((rng.randrange(10, 60), len(whole) // 2, len(whole) - 1))
    trickle = [whole[at + n : at + n + 1] for n in range(rng.choice((0, 2, 6)))]
    return [whole[:at], *trickle]


def wrong_head(files: list[bytes], rng: random.Random) -> list[bytes]:
    whole = bytearray(post(rng.choice(files)))
    for _ in range(rng.randrange(1, 10)):
        whole[rng.randrange(100)] = rng.randrange(256)
    lengths = ("-5", "1" * 30, "5, 6", "0x10")
    other = f"POST /v1/predict HTTP/1.1\r\n{LOCAL}Content-Length: {rng.choice(lengths)}\r\n\r\nabc".encode()
    both = f"POST /v1/predict HTTP/1.1\r\n{LOCAL}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"
    return [rng.choice((bytes(whole), other, both.encode()))]


def huge_head(_: list[bytes], rng: random.Random) -> list[bytes]:
    many = "".join(f"X-{n}: y\r\n" for n in range(20_000))
    long = "X: " + "a" * rng.randrange(40_000, 2_000_000) + "\r\n"
    path = "/" + "a" * 100_000
    return [
        rng.choice(
            (
                f"GET / HTTP/1.1\r\n{LOCAL}{many}\r\n",
                f"GET / HTTP/1.1\r\n{LOCAL}{long}\r\n",
                f"GET {path} HTTP/1.1\r\n{LOCAL}\r\n",
            )
        ).encode()
    ]


def path_trick(_: list[bytes], rng: random.Random) -> list[bytes]:
    parts = (
        "..",
        "%2e%2e",
        "..%2f",
        "%00",
        "etc",
        "passwd",
        "\\",
        "page.css",
        "v1",
        "models",
        "%c0%ae",
        ".",
        "",
    )
    path = "/" + "/".join(rng.choice(parts) for _ in range(rng.randrange(1, 12)))
    model = "?model=" + rng.choice(("..%2F..%2Fetc", "%2Fetc%2Fpasswd", "%00", "a" * 5000, "%ff%fe"))
    return [
        rng.choice(
            (
                f"GET {path} HTTP/1.1\r\n{LOCAL}\r\n".encode(),
                post(b"abc", path=f"/v1/predict{model}"),
                post(b"{}", path=f"/v2/models{path}/infer"),
            )
        )
    ]


def tensor(files: list[bytes], rng: random.Random) -> list[bytes]:
    data = rng.choice(([], [1, 2], ["%%"], [[1], [2, 3]], {"a": 1}, [1e400], ["AAAA"], None, [-1] * 50))
    inputs = {
        "name": rng.choice(("image", "bytes", "x", 7, None)),
        "datatype": rng.choice(("UINT8", "BYTES", "FP32", [])),
        "shape": rng.choice(([1], [1, 2, 2, 3], [10**30], [-1], [], "1", [None], [1e308])),
        "data": data,
    }
    plain = json.dumps({"inputs": [inputs], "id": "\ud800", "outputs": rng.choice(([], [{"name": 1}], 3))})
    deep = "[" * 100_000
    return [post(rng.choice((plain, deep, plain[:-9])).encode(), path="/v2/models/it/infer")]


KINDS: dict[str, Callable[[list[bytes], random.Random], list[bytes]]] = {
    "mutated": lambda files, rng: [picture(mutated(rng.choice(files), rng))],
    "truncated": lambda files, rng: [picture((f := rng.choice(files))[: rng.randrange(len(f))])],
    "bombs": lambda files, rng: [picture(bomb(rng))],
    "wrong types": lambda files, rng: [
        picture(
            rng.choice((b"%PDF-1.7 ", b"PK\3\4", b"<svg/>", b"\0\0\0\x18ftypheic", b"")) + rng.randbytes(900)
        )
    ],
    "forms": form,
    "slow senders": slow,
    "wrong heads": wrong_head,
    "huge heads": huge_head,
    "path tricks": path_trick,
    "tensors": tensor,
}


def fuzz(files: list[bytes], count: int, rng: random.Random) -> str:
    """Pixels or an `ImageError` from each, and how long the slowest took."""
    pixels, slowest = 0, 0.0
    for number in range(count):
        data = mutated(files[number % len(files)], rng)
        began = time.process_time()
        with contextlib.suppress(ImageError):
            pixels += decode(data, 32).shape == (32, 32, 3)
        slowest = max(slowest, time.process_time() - began)
    told = f"decoder: {count:,} mutations: {pixels:,} pictures, {count - pixels:,} refused"
    return f"{told}; the slowest took {slowest:.2f} s of CPU"


if __name__ == "__main__":
    main()
