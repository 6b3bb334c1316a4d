"""Whether the machine is busy, and how many threads that leaves to a product."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from topwork import parallel
from topwork.parallel import blas_threads, busy, core_count


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the load of a minute has to do")
def test_a_busy_loop_is_seen_at_once() -> None:
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        until = time.monotonic() + 20
        while not busy() and time.monotonic() < until:
            time.sleep(0.05)  # until it has started
        assert busy()
        assert blas_threads(10**6, least=1000) == 1
    finally:
        loop.kill()
        loop.wait()


def test_what_runs_for_a_moment_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    running = iter([1, 5, 1, 1, 9, 2, 2, 1, 2, 1])
    monkeypatch.setattr(parallel, "_running", lambda: next(running))
    assert not busy()
    assert busy()


def test_threads_by_images_and_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> int:
        raise FileNotFoundError

    monkeypatch.setattr(parallel, "_running", fails)  # no Linux
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 9.0, 9.0))
    assert blas_threads(1000, least=1000) is None
    assert blas_threads(999, least=1000) == 1
    monkeypatch.setattr("os.getloadavg", lambda: (9.0 * core_count(), 0.0, 0.0))
    assert blas_threads(10**6, least=1000) == 1
