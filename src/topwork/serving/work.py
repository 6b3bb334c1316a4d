"""Who may come in, and who does the work: a bounded number of pictures, a thread a core.

Each worker takes one picture from its bytes to its answer. Several in one call of the network gain nothing on
a processor whose cores are all busy with one each (docs/benchmarks.md, "Serving"), so none waits for others.
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
FADING = 0.05  # how fast the mean seconds of a picture follow the last ones


class Desk:
    """Pictures come in with `do`, and are turned away when `limits.queue` are inside."""

    def __init__(self, limits: Limits, *, workers: int) -> None:
        self.limits, self.workers = limits, workers
        self.inside = 0
        self._seconds = 0.02
        self._turn = threading.Lock()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="topwork-serve")

    def check(self, count: int = 1) -> None:
        """Whether `count` pictures may come in now; asked for one, before a body is read for nothing.

        Raises:
            Refused: too many are inside.
        """
        if self.inside + count > self.limits.queue:
            wait = self._wait_s()
            told = f"{self.inside} pictures are waiting; come again in {wait} s"
            raise Refused(429, "busy", told, retry_s=wait)

    async def do(self, jobs: list[Callable[[], Result]]) -> list[Result]:
        """The results of `jobs`, in order, all of them or none.

        Raises:
            Refused: too many are inside already, or it took too long.
        """
        if len(jobs) > self.limits.queue:
            raise Refused(
                413,
                "too_many",
                f"{len(jobs)} pictures in one request; the limit is {self.limits.queue}: send fewer",
            )
        with self._turn:
            self.check(len(jobs))
            self.inside += len(jobs)
        futures = [self._pool.submit(self._timed, job) for job in jobs]
        for future in futures:
            future.add_done_callback(self._left)
        try:
            async with asyncio.timeout(self.limits.seconds):
                return [await asyncio.wrap_future(future) for future in futures]
        except TimeoutError:
            for future in futures:
                future.cancel()
            told = f"not answered within {self.limits.seconds:g} s; send fewer or smaller pictures, or come again"
            raise Refused(429, "timeout", told, retry_s=self._wait_s()) from None

    async def aside(self, job: Callable[[], Result]) -> Result:
        """Work that is no picture. The workers end with the process, not before: a network's requests are theirs."""
        return await asyncio.wrap_future(self._pool.submit(job))

    def _wait_s(self) -> int:
        return max(1, math.ceil(self.inside * self._seconds / self.workers))

    def _timed(self, job: Callable[[], Result]) -> Result:
        began = time.perf_counter()
        try:
            return job()
        finally:
            self._seconds += FADING * (time.perf_counter() - began - self._seconds)

    def _left(self, _: Future[Result]) -> None:
        with self._turn:
            self.inside -= 1
