"""Work on a stream of items by several threads at once, in order, in bounded memory."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

AHEAD = 4  # images in flight for each worker: enough to hide a slow one, few enough for memory to stay flat
Item = TypeVar("Item")
Result = TypeVar("Result")


def core_count() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_limit = threading.Lock()
_limited: list[Any] = []  # the limit that is in force, and how many blocks are within it


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Matrix products on one thread each while the block runs; blocks may overlap, in any threads.

    Work is shared out by images instead (`stream`): BLAS threads that wait for each other took up to sixty times as
    long on a machine with other programs, and their number changes the last bits of a result.
    """
    from threadpoolctl import threadpool_limits

    with _limit:  # setting a limit takes milliseconds: only the first block does, and the last one ends it
        if not _limited:
            _limited.extend((threadpool_limits(1, user_api="blas"), 0))
        _limited[1] += 1
    try:
        yield
    finally:
        with _limit:
            _limited[1] -= 1
            if not _limited[1]:
                _limited[0].restore_original_limits()
                _limited.clear()


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
