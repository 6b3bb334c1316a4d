"""A bounded queue of pictures and a worker thread per core.

Each worker takes one picture from bytes to prediction. Batching gains nothing on a CPU whose cores are all busy
with one picture each (docs/notes/speed.md, "Serving"), so no picture waits for others.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from topwork.serving.settings import Limits, Refused

Result = TypeVar("Result")
FADING = 0.05  # weight of the last picture in the moving average of seconds per picture


class WorkQueue:
    """Runs jobs on pictures, and refuses more than `limits.queue` pending ones."""

    def __init__(self, limits: Limits, *, workers: int) -> None:
        self.limits, self.workers = limits, workers
        self.pending = 0
        self._seconds = 0.02
        self._turn = threading.Lock()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="topwork-serve")

    def check(self, count: int = 1) -> None:
        """Check that `count` more pictures fit in the queue; also called before a body is read.

        Raises:
            Refused: the queue is full.
        """
        if self.pending + count > self.limits.queue:
            wait = self._wait_s()
            told = f"{self.pending} pictures are waiting; retry in {wait} s"
            raise Refused(429, "busy", told, retry_s=wait)

    async def run(self, jobs: list[Callable[[], Result]]) -> list[Result]:
        """The results of all `jobs`, in order.

        Raises:
            Refused: the queue is full, or the work took too long.
        """
        if len(jobs) > self.limits.queue:
            raise Refused(
                413,
                "too_many",
                f"{len(jobs)} pictures in one request; the limit is {self.limits.queue}: send fewer",
            )
        with self._turn:
            self.check(len(jobs))
            self.pending += len(jobs)
        futures = [self._pool.submit(self._timed, job) for job in jobs]
        for future in futures:
            future.add_done_callback(self._left)
        try:
            async with asyncio.timeout(self.limits.seconds):
                return [await asyncio.wrap_future(future) for future in futures]
        except TimeoutError:
            for future in futures:
                future.cancel()
            told = f"not answered within {self.limits.seconds:g} s; send fewer or smaller pictures, or retry"
            raise Refused(429, "timeout", told, retry_s=self._wait_s()) from None

    async def run_job(self, job: Callable[[], Result]) -> Result:
        """Run another job on a worker thread. The threads own the network's infer requests and are never stopped."""
        return await asyncio.wrap_future(self._pool.submit(job))

    def _wait_s(self) -> int:
        return max(1, math.ceil(self.pending * self._seconds / self.workers))

    def _timed(self, job: Callable[[], Result]) -> Result:
        began = time.perf_counter()
        try:
            return job()
        finally:
            self._seconds += FADING * (time.perf_counter() - began - self._seconds)

    def _left(self, _: Future[Result]) -> None:
        with self._turn:
            self.pending -= 1
