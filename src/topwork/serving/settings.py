"""What a server is told: which runs under which names, where it listens, who may ask, and how much it takes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from topwork.errors import InputError

TOKEN_VARIABLE = "TOPWORK_TOKEN"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request, one connection and all of them together may take.

    `timeout_s` holds twice: for a request to come in, and for its answer to be ready. `queue` counts pictures that
    were taken and not answered yet, those in work too.
    """

    max_bytes: int = 20_000_000  # of a request's body
    max_pixels: int = 50_000_000  # of one picture, by its header
    timeout_s: float = 30.0
    queue: int = 64
    workers: int = 1
    max_images: int = 32  # in one request
    max_connections: int = 512
    max_header_bytes: int = 16_384  # address and headers together
    header_s: float = 10.0  # for address and headers to come in
    held_bodies: int = 10  # so many bodies of full size are held at once, at most

    def __post_init__(self) -> None:
        whole = {"max-bytes": self.max_bytes, "max-pixels": self.max_pixels}
        whole |= {"queue": self.queue, "workers": self.workers}
        for name, number in whole.items():
            if number < 1:
                raise InputError(f"--{name} must be 1 or more; got {number}")
        if not 0 < self.timeout_s < 86_400:
            raise InputError(f"--timeout must be seconds, more than 0; got {self.timeout_s:g}")

    @property
    def images_a_request(self) -> int:
        """No request is admitted that could never fit the queue."""
        return min(self.max_images, self.queue)


@dataclass(frozen=True, slots=True)
class Source:
    """A run, and the name that it is asked for by."""

    name: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a server is told. `port` 0: one that is free."""

    sources: tuple[Source, ...]
    limits: Limits
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    reload: bool = True
    page: bool = True
    access_log: bool = False

    @property
    def loopback(self) -> bool:
        """Whether only programs of this machine can reach it."""
        return self.host in LOOPBACK


def sources_of(given: Sequence[str]) -> tuple[Source, ...]:
    """`RUN` or `NAME=RUN`, each; a run without a name has its folder's.

    Raises:
        InputError: a name that has no place in an address, or that comes twice.
    """
    sources: dict[str, Source] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            path, name = text, Path(text).resolve().name
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{text}: expected a name of letters, digits, '.', '_' and '-', at most 64; got {name!r}; give it "
                "one: NAME=RUN"
            )
        if name in sources:
            raise InputError(
                f"{text}: expected a name of its own for each run; {name!r} comes twice; write NAME=RUN"
            )
        sources[name] = Source(name, Path(path))
    return tuple(sources.values())


def token_of(file: Path | None) -> str | None:
    """The token in a file, or in TOPWORK_TOKEN; None where neither is given.

    Raises:
        InputError: it can't be read, is empty, or can't stand in a header.
    """
    if file is None and TOKEN_VARIABLE not in os.environ:
        return None
    where = TOKEN_VARIABLE if file is None else str(file)
    try:
        token = (os.environ[TOKEN_VARIABLE] if file is None else file.read_text("utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise InputError(
            f"{where}: expected a file with a token in it; it can't be read ({reason})"
        ) from None
    if not re.fullmatch(r"[!-~]+", token):
        came = "it is empty" if not token else "it has blanks, or letters beyond ASCII"
        raise InputError(f"{where}: expected a token of one word; {came}; such as: openssl rand -hex 32")
    return token
