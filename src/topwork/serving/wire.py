"""HTTP on one connection, bounded in bytes and seconds whatever is sent, or not sent, or not read."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from topwork.serving.settings import Limits

CHUNK_BYTES = 64  # what may stand around each piece of a body that comes in chunks
AHEAD = 8  # requests on one connection that wait for the answer of another; uvicorn would take any number


def bounded(limits: Limits) -> type[Any]:
    """The protocol with limits on a request's head, on what stands around its body, and on the time of each.

    A head takes `limits.seconds` at most, and so does a body, whether somebody reads it or not; so does the other
    side to take an answer.
    """

    class Bounded(HttpToolsProtocol):
        _head_open, _beside = True, 0  # a head is awaited or read; bytes of this request that are no body
        _clock: asyncio.TimerHandle | None = None
        _answer_clock: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait(limits.seconds)

        def connection_lost(self, exc: Any) -> None:
            self._wait(None)
            if self._answer_clock:
                self._answer_clock.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._beside += len(data)
            if self._clock is None:
                self._wait(limits.seconds)
            super().data_received(data)
            if self._beside > limits.head_bytes and not self.transport.is_closing():
                self._refuse()

        def on_header(self, name: bytes, value: bytes) -> None:
            if self._head_open:  # what comes after a body is let go
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._head_open, self._beside = False, 0
            self._wait(limits.seconds)
            if len(self.pipeline) == AHEAD:
                raise ValueError("too many requests at once")  # 400, and the end of the connection
            if (
                len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
                > limits.head_bytes
            ):
                raise ValueError("too long, though it came in one piece")
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._beside = max(0, self._beside - len(body) - CHUNK_BYTES)
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._head_open, self._beside = True, 0
            self._wait(None)
            super().on_message_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._answer_clock is None:
                self._answer_clock = self.loop.call_later(limits.seconds, self.transport.abort)

        def resume_writing(self) -> None:
            if self._answer_clock:
                self._answer_clock.cancel()
                self._answer_clock = None
            super().resume_writing()

        def _wait(self, seconds: float | None) -> None:
            if self._clock:
                self._clock.cancel()
            self._clock = None if seconds is None else self.loop.call_later(seconds, self._late)

        def _late(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self._wait(1)  # an answer is on its way, if only that the body is late
            elif not self.transport.is_closing():
                self.transport.close()

        def _refuse(self) -> None:
            if self._head_open:
                self.send_400_response("The head of the request is too long.")
            else:  # an answer may have begun
                self.transport.close()

    return Bounded
