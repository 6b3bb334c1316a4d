"""Running the server in this process: socket, signals, shutdown."""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

from topwork.errors import InputError, MissingExtra
from topwork.parallel import core_count
from topwork.serving.settings import Limits

try:
    import uvicorn

    from topwork.serving.app import make_app
    from topwork.serving.guard import State
    from topwork.serving.models import Registry
    from topwork.serving.wire import bounded
except ModuleNotFoundError as error:
    if error.name not in (
        "uvicorn",
        "httptools",
        "fastapi",
        "starlette",
        "prometheus_client",
        "python_multipart",
        "pydantic",
    ):
        raise
    raise MissingExtra("serving", "serve") from error

LOOPBACK = ("127.0.0.1", "localhost", "::1")
IDLE_S = 30  # how long an idle connection is kept
LEAVING_S = 1.0  # from the signal until requests are no longer accepted, if a client is connected


class Server(uvicorn.Server):
    """A server that shuts down gracefully; from the first signal on, `state` is not ready.

    For `LEAVING_S`, requests are still answered, but each response closes its connection; otherwise an unread
    request in a kept-alive connection would be lost. A second signal ends this period, a third one exits at once.
    The signals are not raised again at the end, as uvicorn does: stopping was requested and is not a failure.
    """

    state: State
    told: str
    _leave_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self.told, flush=True)  # signals are handled from here on

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.state.ready = False
        if self._leave_at is None:
            self._leave_at = time.monotonic() + LEAVING_S
        else:
            self.should_exit, self.force_exit = True, self.should_exit

    async def on_tick(self, counter: int) -> bool:
        if self._leave_at is not None:
            idle = not self.server_state.connections
            self.should_exit = self.should_exit or idle or time.monotonic() > self._leave_at
        return await super().on_tick(counter)


def serve(
    runs: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    limits: Limits | None = None,
    workers: int | None = None,
    reload: bool = True,
    page: bool = True,
) -> None:
    """Serve runs until SIGTERM or Ctrl-C; every accepted request is answered before the server exits.

    Raises:
        InputError: not a run, two runs with the same name, or the port is in use.
        MissingExtra: a package that serving needs is not installed.
    """
    limits, workers = limits or Limits(), workers or core_count()
    local = host in LOOPBACK
    bound = _bind(host, port)
    try:
        registry = Registry(runs, workers=workers)
    except BaseException:
        bound.close()
        raise
    app, state = make_app(
        registry, limits, workers=workers, token=token, local=local, reload=reload, page=page
    )
    config = uvicorn.Config(
        app,
        http=bounded(limits),
        loop="auto",
        lifespan="on",
        ws="none",
        log_level="error",  # malformed requests from clients would fill the log
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=math.ceil(2 * limits.seconds) + 5,  # longer than any request may take
    )
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    server = Server(config)
    server.state = state
    shown = f"[{host}]" if ":" in host else host
    names = ", ".join(f"{served.name} ({len(served.classifier.classes)} classes)" for served in registry)
    server.told = f"http://{shown}:{bound.getsockname()[1]} serves {names}; press Ctrl-C to stop"
    if not local and token is None:
        print(
            "topwork: warning: anyone who can reach this port can use it; see --token-file", file=sys.stderr
        )
    server.run(sockets=[bound])
    # All requests are answered. The runtime of a network that was released while serving can crash when Python
    # shuts down (seen with OpenVINO 2026.4 after a reload), so exit without cleanup.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _is_news(record: logging.LogRecord) -> bool:
    """False for uvloop's exception about a response to a connection that has already closed."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, RuntimeError) and "the handler is closed" in str(error))


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{host}:{port}: can't listen on this address ({reason}); choose another --port or --host"
        ) from None
