"""The limits of a server and their defaults."""

from __future__ import annotations

from dataclasses import dataclass

from topwork.errors import InputError


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on one request and on all together. Beyond `held_bytes` or `queue`, a request gets 429."""

    body_bytes: int = 32_000_000  # of a request's body
    held_bytes: int = 256_000_000  # of all bodies held at once; one of `body_bytes` always fits
    pixels: int = 50_000_000  # of one picture, by its header
    pictures: int = 64  # in one request
    seconds: float = (
        20.0  # each to receive the head, to receive the body, to compute and to send the response
    )
    head_bytes: int = 32_768  # of the request line and headers
    queue: int = 64  # pictures waiting or being processed

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise InputError(f"the limit `{name}` must be above 0; got {getattr(self, name)}")


class Refused(Exception):
    """A refused request: its HTTP status, an error code for programs, a message for people."""

    def __init__(self, status: int, code: str, message: str, *, retry_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_s = status, code, message, retry_s
