"""HTTP on one connection, with bounds on bytes and time against slow or hostile clients."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from topwork.serving.settings import Limits

CHUNK_BYTES = 64  # allowed framing around each chunk of a chunked body
AHEAD = 8  # most pipelined requests on one connection; uvicorn sets no limit


def bounded(limits: Limits) -> type[Any]:
    """The protocol class with limits on the size of a request's head and framing, and on time.

    The head, the body (whether or not it is read) and the client's reading of the response may each take at most
    `limits.seconds`.
    """

    class Bounded(HttpToolsProtocol):
        _head_open, _beside = True, 0  # whether a head is expected; bytes of this request outside its body
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
            if self._head_open:  # trailers after a body are dropped
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._head_open, self._beside = False, 0
            self._wait(limits.seconds)
            if len(self.pipeline) == AHEAD:
                raise ValueError("too many requests at once")  # answered with 400; closes the connection
            if (
                len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
                > limits.head_bytes
            ):
                raise ValueError("the head is too long")
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
                self._wait(1)  # a response is pending, perhaps the 408 for this body
            elif not self.transport.is_closing():
                self.transport.close()

        def _refuse(self) -> None:
            if self._head_open:
                self.send_400_response("The head of the request is too long.")
            else:  # a response may have started
                self.transport.close()

    return Bounded
