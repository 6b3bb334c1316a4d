"""Timing of a job's steps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Clock:
    """Seconds per named step, and in total since its creation."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._steps: dict[str, float] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._steps[name] = time.perf_counter() - began

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add the steps of another clock, whose total this one already includes."""
        self._steps |= {name: s for name, s in seconds.items() if name != "total"}

    def seconds(self) -> dict[str, float]:
        total = time.perf_counter() - self._began
        return {name: round(s, 3) for name, s in {"total": total, **self._steps}.items()}
