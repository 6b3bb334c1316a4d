"""A server in this process: its socket, its signals, its end."""

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
IDLE_S = 30  # a connection without a request is kept so long
LEAVING_S = 1.0  # from the signal until no request is taken any more, where anybody is connected


class Server(uvicorn.Server):
    """`state` says that it is on its way down, from the first signal on.

    For a moment it goes on as before, but that each answer closes its connection: else a request that lies in a
    kept connection, unread, would be lost with it. A second signal ends that moment, a third one everything. uvicorn
    would raise them again at the end; that was the wish, and no failure.
    """

    state: State
    told: str
    _leave_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self.told, flush=True)  # from here on signals are heard

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
    """Serve runs until SIGTERM or Ctrl-C; every request that was accepted is answered before the end.

    Raises:
        InputError: no run, two of one name, or the port is taken.
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
        log_level="error",  # strangers' broken requests are no news, and would fill the log
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=math.ceil(2 * limits.seconds) + 5,  # beyond the limits
    )
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    server = Server(config)
    server.state = state
    shown = f"[{host}]" if ":" in host else host
    names = ", ".join(f"{served.name} ({len(served.classifier.classes)} classes)" for served in registry)
    server.told = f"http://{shown}:{bound.getsockname()[1]} serves {names}; Ctrl-C stops it"
    if not local and token is None:
        print("topwork: warning: anybody who reaches this port may use it; see --token-file", file=sys.stderr)
    server.run(sockets=[bound])
    # All is answered. The runtime of a network that was let go while serving can fall over when Python takes itself
    # apart (seen with OpenVINO 2026.4 after a reload), so it is not waited for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _is_news(record: logging.LogRecord) -> bool:
    """Not so an answer to a connection that was ended meanwhile, of which uvloop makes an exception."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, RuntimeError) and "the handler is closed" in str(error))


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{host}:{port}: can't be listened on ({reason}); choose another --port or --host"
        ) from None
