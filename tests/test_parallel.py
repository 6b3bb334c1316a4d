"""Work shared out among threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from threadpoolctl import threadpool_info

from topwork.parallel import one_blas_thread, stream


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_products_take_one_thread_while_the_block_runs() -> None:
    before = blas_threads()
    with one_blas_thread():
        assert blas_threads() == {1}
    assert blas_threads() == before


def test_the_limit_holds_until_the_last_of_overlapping_blocks_ends() -> None:
    before = blas_threads()
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    other = threading.Thread(target=second.__enter__)
    other.start()
    other.join()
    first.__exit__(None, None, None)
    assert blas_threads() == {1}
    second.__exit__(None, None, None)
    assert blas_threads() == before


def test_results_come_in_order_and_little_is_read_ahead() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for i in range(1000):
            read.append(i)
            yield i

    seen = stream(lambda i: (i, threading.get_ident()), items(), workers=2)
    first = [next(seen)[0] for _ in range(3)]
    assert first == [0, 1, 2]
    assert len(read) < 20
    assert [i for i, _ in seen] == list(range(3, 1000))
