"""What a server allows, each default once."""

from __future__ import annotations

from dataclasses import dataclass

from topwork.errors import InputError


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one request and of all together.

    `body_bytes`: of a request's body; `held_bytes`: of all bodies that are held at once, or of one; `pixels`: of one
    picture, by its header; `pictures`: in one request; `seconds`: until a head is read, a body is read, it is
    answered, the answer is taken; `head_bytes`: of the request line and its headers; `queue`: pictures that are
    waiting or worked on. Beyond `held_bytes` or `queue`, a request is turned away with 429.
    """

    body_bytes: int = 32_000_000
    held_bytes: int = 256_000_000
    pixels: int = 50_000_000
    pictures: int = 64
    seconds: float = 20.0
    head_bytes: int = 32_768
    queue: int = 64

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise InputError(f"the limit `{name}` must be above 0; got {getattr(self, name)}")


class Refused(Exception):
    """A request that can't be answered: its HTTP status, a word for programs, a sentence for people."""

    def __init__(self, status: int, code: str, message: str, *, retry_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_s = status, code, message, retry_s
