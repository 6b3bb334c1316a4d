"""A real `topwork serve` in a process of its own, and raw HTTP to talk to it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass
class Server:
    url: str
    process: subprocess.Popen[str]

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, **options)  # type: ignore[arg-type]

    def raw(self, *parts: bytes, wait: float = 10) -> bytes:
        """Send bytes as they are; what comes back until the server closes, or has been still for `wait` seconds."""
        with socket.create_connection(self.address, timeout=wait) as wire:
            answer = b""
            try:
                for part in parts:
                    wire.sendall(part)
                while data := wire.recv(65536):
                    answer += data
            except OSError:  # it has closed already, or goes on waiting
                pass
            return answer

    def stop(self) -> tuple[int, str]:
        """SIGTERM: its exit code, and what it wrote to standard error."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


@contextmanager
def serving(*arguments: object, token: str | None = None) -> Iterator[Server]:
    environment = {k: v for k, v in os.environ.items() if k != "TOPWORK_TOKEN"}
    if token:
        environment["TOPWORK_TOKEN"] = token
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from topwork.cli.main import main; main()",
            "serve",
            "--port",
            "0",
            *map(str, arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match(r"(http://\S+) serves", line)
        if found is None:
            raise AssertionError(f"{line}{process.communicate(timeout=60)[1]}")
        yield Server(found[1], process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))
