"""Work on a stream of items by several threads at once, in order, in bounded memory."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

BUSY = 1.5  # of the cores: the load of a minute from which on other work is in the way
SAMPLES, SAMPLED_S = 5, 0.004  # of the threads that run now: enough to pass over what is gone in a moment
AHEAD = 4  # images in flight for each worker: enough to hide a slow one, few enough for memory to stay flat
Item = TypeVar("Item")
Result = TypeVar("Result")


def core_count() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def busy() -> bool:
    """Whether other programs want the processor now: threads that wait for each other then wait for those, too.

    Linux says how many threads run or could run at this moment; elsewhere the load of the last minute has to do.
    """
    try:
        samples = []
        for _ in range(SAMPLES):
            samples.append(_running())
            time.sleep(SAMPLED_S)
        return sorted(samples)[SAMPLES // 2] > 1  # this one runs, too
    except (OSError, ValueError, IndexError):
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # Windows has neither
        return load > BUSY * core_count()


def _running() -> int:
    with open("/proc/loadavg", encoding="ascii") as file:  # noqa: PTH123 - such as 0.20 0.18 0.12 3/214 11206
        return int(file.read().split()[3].split("/")[0])


def blas_threads(images: int, *, least: int) -> int | None:
    """How many threads may share the products over so many images: None for one a core.

    Below `least` images the products are small, and lose by it. On a busy machine threads that wait for each other
    took up to sixty times as long as one alone.
    """
    return 1 if images < least or busy() else None


def stream(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Generator[Result, None, None]:
    """`work` on each of `items`, `workers` at once; the results in the order of the items, as they come.

    Reads only a little ahead of what has been taken, so that a stream of any length needs the same memory.
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="topwork")
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # also when the caller stops early: what has not begun never will
        pool.shutdown(cancel_futures=True)
