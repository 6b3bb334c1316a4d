"""What a request can get wrong, as an answer: a status, a code for programs, and a sentence for people.

No text here or in any answer holds a path, a file's name, or what the asker sent.
"""

from __future__ import annotations

import http
import json


class Fault(Exception):
    """A request that is refused. `message`: what was expected, what came, and the mend."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


def body_of(code: str, message: str) -> dict[str, dict[str, str]]:
    """The JSON of a refusal."""
    return {"error": {"code": code, "message": message}}


def raw_answer(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> bytes:
    """A whole HTTP/1.1 answer that closes the connection: where there is no request yet to answer."""
    body = json.dumps(body_of(code, message)).encode()
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", "content-type: application/json"]
    lines += [f"content-length: {len(body)}", "x-content-type-options: nosniff", "cache-control: no-store"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "connection: close", "", ""]).encode() + body


def too_large(limit: int) -> Fault:
    return Fault(413, "too_large", f"expected at most {limit:,} bytes; more came; send a smaller picture")


def busy(retry_after_s: int) -> Fault:
    return Fault(
        429,
        "busy",
        f"expected room in the queue; it is full; ask again in {retry_after_s} s",
        {"Retry-After": str(retry_after_s)},
    )


def too_slow(timeout_s: float) -> Fault:
    return Fault(
        408,
        "timeout",
        f"expected the whole request within {timeout_s:g} s; it didn't come; send it faster",
        {"Connection": "close"},
    )


def not_in_time(timeout_s: float, retry_after_s: int) -> Fault:
    return Fault(
        503,
        "timeout",
        f"expected to answer within {timeout_s:g} s; the work took longer; ask again, or send less at once",
        {"Retry-After": str(retry_after_s)},
    )


def starting() -> Fault:
    return Fault(
        503, "starting", "expected the classifiers to be loaded; they aren't yet", {"Retry-After": "1"}
    )


def gone() -> Fault:
    """The asker has left; nobody reads this. 499 stands in the metrics alone."""
    return Fault(499, "gone", "the connection was closed before the answer")
