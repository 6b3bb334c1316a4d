"""Checks and headers for every route: token, host name, security headers, metrics."""

from __future__ import annotations

import hmac
import json
import time
from dataclasses import dataclass
from typing import Any

from topwork.serving.metrics import Metrics

HEALTH = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
FREE = (*HEALTH, "/", "/page.css", "/page.js")  # needs no token
LOCAL = ("127.0.0.1", "localhost", "[::1]")
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; connect-src 'self'; media-src blob:; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", POLICY.encode()),
    (b"cache-control", b"no-store"),
]
LEAVING = ((b"connection", b"close"),)


@dataclass
class State:
    """Whether the server accepts requests."""

    ready: bool = True


class Guard:
    """ASGI middleware. `local`: the server is bound to the loopback address, so only its names are accepted."""

    def __init__(self, app: Any, *, metrics: Metrics, state: State, token: str | None, local: bool) -> None:
        self._app, self._metrics, self._state = app, metrics, state
        self._token, self._local = token, local

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500
        path = scope["path"]

        async def sent(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                leaving = () if self._state.ready else LEAVING
                message = {**message, "headers": [*message.get("headers", []), *HEADERS, *leaving]}
            await send(message)

        headers = dict(scope["headers"])
        try:
            if self._local and _host(headers.get(b"host", b"")) not in LOCAL:
                # A remote page whose host name was pointed at this machine (DNS rebinding).
                await _refuse(
                    sent, path, 400, "bad_host", "this server answers to localhost and 127.0.0.1 only"
                )
            elif self._token and path not in FREE and not self._known(headers.get(b"authorization", b"")):
                told = "expected the header Authorization: Bearer TOKEN"
                await _refuse(sent, path, 401, "unauthorised", told)
            else:
                await self._app(scope, receive, sent)
        finally:
            route = getattr(
                scope.get("route"), "path", "other"
            )  # the pattern, to keep the number of labels small
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)

    def _known(self, header: bytes) -> bool:
        kind, _, given = header.partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), (self._token or "").encode())


def problem(path: str, code: str, message: str) -> dict[str, Any]:
    """The body of an error response; the Open Inference Protocol allows a text only."""
    return {"error": message if path.startswith("/v2") else {"code": code, "message": message}}


def _host(header: bytes) -> str:
    text = header.decode("latin-1").lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0]


async def _refuse(send: Any, path: str, status: int, code: str, message: str) -> None:
    body = json.dumps(problem(path, code, message)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *LEAVING]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
