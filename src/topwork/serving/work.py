"""Admission and work: how many pictures are taken, who computes them, and for how long anyone waits.

A worker thread a core takes one picture at a time from the queue that all requests share: decoding, inferring and
drawing. Batches don't pay here. With the default network (224 px, float32) on two cores, pictures a second, median
of seven interleaved rounds (least to most): one picture on each of two streams 137 (125 to 147); two to a batch on
two streams 146 (132 to 162); four 140 (120 to 158); eight 137 (114 to 160); two to a batch on one stream of two
threads 134 (90 to 147), eight 117 (109 to 133). A batch would also wait for its last picture, and its numbers would
not be to the bit those of one picture alone.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from topwork.serving.faults import busy, gone, not_in_time, too_large
from topwork.serving.settings import Limits

SHARE_OF_LAST = 0.05  # of the last picture's time, in the moving average
FIRST_GUESS_S = 0.02
LONGEST_RETRY_S = 60

Result = TypeVar("Result")


class Work:
    """The queue and its workers. All methods belong to the event loop's thread."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.images = 0  # taken, not answered
        self.bytes = 0  # of bodies held
        self._seconds = FIRST_GUESS_S  # that a picture takes a worker
        self._pool = ThreadPoolExecutor(limits.workers, thread_name_prefix="topwork-serve")

    def retry_after_s(self) -> int:
        """Whole seconds until what waits now is done, at the rate of late: 1 to 60."""
        wait = self.images * self._seconds / self.limits.workers
        return min(max(1, math.ceil(wait)), LONGEST_RETRY_S)

    def check_room(self) -> None:
        """Refuse before a body is read, where there is no room for a single picture.

        Raises:
            Fault: 429.
        """
        if self.images >= self.limits.queue:
            raise busy(self.retry_after_s())

    @contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Room for so many pictures while the block runs.

        Raises:
            Fault: 429.
        """
        if self.images + images > self.limits.queue:
            raise busy(self.retry_after_s())
        self.images += images
        try:
            yield
        finally:
            self.images -= images

    @contextmanager
    def holding(self) -> Iterator[Callable[[int], None]]:
        """Room for a body that comes in: call it with the bytes of each piece. All of it is free behind the block.

        Raises:
            Fault: 413, this body is too long; 429, all bodies together are.
        """
        held = 0

        def take(count: int) -> None:
            nonlocal held
            held += count
            self.bytes += count
            if held > self.limits.max_bytes:
                raise too_large(self.limits.max_bytes)
            if self.bytes > self.limits.held_bodies * self.limits.max_bytes:
                raise busy(self.retry_after_s())

        try:
            yield take
        finally:
            self.bytes -= held

    async def do(
        self, calls: Sequence[Callable[[], Result]], *, left: Callable[[], Awaitable[Any]]
    ) -> list[Result]:
        """The results of `calls`, computed by the workers, in their order.

        `left` ends when the asker has gone. What hasn't begun by then, or by the deadline, is never computed.

        Raises:
            Fault: 503 behind the deadline; 499 where nobody waits any more.
        """
        began = [asyncio.wrap_future(self._pool.submit(self._timed, call)) for call in calls]
        everything = asyncio.gather(*began)
        leaving = asyncio.ensure_future(left())
        try:
            done, _ = await asyncio.wait(
                {everything, leaving}, timeout=self.limits.timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if everything in done:
                return list(everything.result())
            raise gone() if done else not_in_time(self.limits.timeout_s, self.retry_after_s())
        finally:
            leaving.cancel()
            if not everything.done():
                everything.cancel()
                with suppress(asyncio.CancelledError):
                    await everything

    def close(self) -> None:
        """Nothing new begins; what has begun ends."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _timed(self, call: Callable[[], Result]) -> Result:
        began = time.perf_counter()
        try:
            return call()
        finally:  # a float is swapped whole: an update lost between threads is no matter
            self._seconds += SHARE_OF_LAST * (time.perf_counter() - began - self._seconds)
