"""What stands before every route: the token, the host's name, headers for safety, figures."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Iterable
from typing import Any

from topwork.serving.metrics import Figures

FREE = ("/healthz", "/readyz", "/", "/page.css", "/page.js")  # needs no token
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


class Guard:
    """ASGI around an application. `local`: the server is bound to this machine alone, and is called by its names."""

    def __init__(
        self, app: Any, *, figures: Figures, token: str | None, local: bool, routes: Iterable[str]
    ) -> None:
        self._app, self._figures, self._token, self._local = app, figures, token, local
        self._routes = frozenset(routes)

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
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        headers = dict(scope["headers"])
        try:
            if self._local and _host(headers.get(b"host", b"")) not in LOCAL:
                # A page elsewhere whose name was made to lead here (DNS rebinding).
                await _refuse(sent, 400, "bad_host", "this server answers to localhost and 127.0.0.1 only")
            elif self._token and path not in FREE and not self._known(headers.get(b"authorization", b"")):
                await _refuse(sent, 401, "unauthorised", "expected the header Authorization: Bearer TOKEN")
            else:
                await self._app(scope, receive, sent)
        finally:
            route = path if path in self._routes else "other"
            self._figures.requests.labels(route, str(status)).inc()
            self._figures.seconds.labels(route).observe(time.perf_counter() - began)

    def _known(self, header: bytes) -> bool:
        kind, _, given = header.partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), (self._token or "").encode())


def _host(header: bytes) -> str:
    text = header.decode("latin-1").lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0]


async def _refuse(send: Any, status: int, code: str, message: str) -> None:
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send(
        {"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]}
    )
    await send({"type": "http.response.body", "body": body})
