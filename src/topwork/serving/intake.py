"""Reading of request bodies, within limits on bytes, parts and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from topwork.serving.settings import Limits, Refused

FIELDS = 16  # most fields of a form besides its pictures


class Intake:
    """Reads bodies by `body`; they count as held until its block ends."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.held = 0  # bytes of all bodies

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body.

        Raises:
            Refused: it is too large, too slow or incomplete, or all bodies together are too large.
        """
        body = await self._read(request)
        try:
            yield body
        finally:
            self.held -= len(body)

    async def _read(self, request: Request) -> bytes:
        limits, most_held = self.limits, max(self.limits.held_bytes, self.limits.body_bytes)
        told = request.headers.get("content-length", "")
        if told.isdigit() and int(told) > limits.body_bytes:
            raise _too_large(limits)
        parts, total, whole = [], 0, False
        try:
            async with asyncio.timeout(limits.seconds):
                async for part in request.stream():
                    total += len(part)
                    self.held += len(part)
                    if total > limits.body_bytes:
                        raise _too_large(limits)
                    if self.held > most_held:
                        raise Refused(429, "busy", "too many bytes are waiting; retry in 1 s", retry_s=1)
                    parts.append(part)
            whole = True
        except TimeoutError:
            raise Refused(408, "slow", f"the body didn't arrive within {limits.seconds:g} s") from None
        except ClientDisconnect:
            raise Refused(400, "broken_off", "the connection closed before the end of the body") from None
        finally:
            if not whole:
                self.held -= total
        return b"".join(parts)


async def pictures_of(request: Request, body: bytes, limits: Limits) -> list[bytes]:
    """The pictures in a request: its body, or the files of a form. File names are ignored.

    Raises:
        Refused: there is no picture, there are too many, or the form can't be read.
    """
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/"):
        if not body:
            raise Refused(
                400, "no_picture", "expected a picture file as the body, or a form with files; got nothing"
            )
        return [body]

    async def again() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    try:
        parser = MultiPartParser(request.headers, again(), max_files=limits.pictures, max_fields=FIELDS)
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, UnicodeError) as error:
        reason = getattr(error, "message", "") or "it is incomplete"
        raise Refused(400, "bad_form", f"the form can't be read: {str(reason)[:120]}") from None
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        pictures = [await file.read() for file in files]
    finally:
        await form.close()
    if not pictures:
        raise Refused(400, "no_picture", "expected files in the form; got none")
    return pictures


def _too_large(limits: Limits) -> Refused:
    return Refused(413, "too_large", f"the body exceeds the limit of {limits.body_bytes:,} bytes")
