"""A server in this process: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from topwork.engine import core_count
from topwork.errors import InputError, MissingExtra
from topwork.serving.settings import Limits

try:
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    from topwork.serving.app import State, make_app
    from topwork.serving.models import Registry
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


class Server(uvicorn.Server):
    """`state` says that it is on its way down, from the first signal on."""

    state: State

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.state.ready = False
        super().handle_exit(sig, frame)


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
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_S,
    )
    server = Server(config)
    server.state = state
    shown = f"[{host}]" if ":" in host else host
    names = ", ".join(f"{served.name} ({len(served.classifier.classes)} classes)" for served in registry)
    print(f"http://{shown}:{bound.getsockname()[1]} serves {names}; Ctrl-C stops it", flush=True)
    if not local and token is None:
        print("topwork: warning: anybody who reaches this port may use it; see --token-file", file=sys.stderr)
    # uvicorn raises the signal again when all is answered; that was the wish, and no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[bound])
    # All is answered. The runtime of a network that was let go while serving can fall over when Python takes itself
    # apart (seen with OpenVINO 2026.4 after a reload), so it is not waited for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def bounded(limits: Limits) -> type[Any]:
    """The HTTP protocol, with a limit on how long a request's head may be, and take."""

    class Bounded(HttpToolsProtocol):
        _head_open, _head_bytes = True, 0
        _clock: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def connection_lost(self, exc: Any) -> None:
            if self._clock:
                self._clock.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._head_open:
                self._head_bytes += len(data)
                # Data of the body may come with the head: what counts is a head that hasn't ended by then.
                super().data_received(data)
                if (
                    self._head_open
                    and self._head_bytes > limits.head_bytes
                    and not self.transport.is_closing()
                ):
                    self.send_400_response("The head of the request is too long.")
                return
            super().data_received(data)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if not self._head_open:
                self._head_open, self._head_bytes = True, 0
                self._wait()

        def on_headers_complete(self) -> None:
            self._head_open = False
            if self._clock:
                self._clock.cancel()
            super().on_headers_complete()

        def _wait(self) -> None:
            if self._clock:
                self._clock.cancel()
            self._clock = self.loop.call_later(limits.seconds, self._late)

        def _late(self) -> None:
            if self._head_open and not self.transport.is_closing():
                self.transport.close()

    return Bounded


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{host}:{port}: can't be listened on ({reason}); choose another --port or --host"
        ) from None
