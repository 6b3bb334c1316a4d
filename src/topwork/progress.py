"""What a long job tells while it runs. The library is silent; the command line draws bars."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Advance = Callable[[int], None]  # told how many more items are done
Fetching = Callable[[int, int | None], None]  # told how many bytes came so far, and how many there are


class Bar(Protocol):
    """An open progress bar."""

    def __call__(self, done: int, note: str | None = None, /) -> None:
        """`done` more items; and what the bar says beside them from now on, such as the loss."""


class Watch(Protocol):
    """Someone who looks on."""

    def say(self, text: str) -> None:
        """A line for the person who waits."""

    def download(self, title: str) -> Fetching:
        """A progress bar for a download, told of bytes so far, and in all if known; it opens at the first call."""

    def bar(self, title: str, total: int | None) -> AbstractContextManager[Bar]:
        """A progress bar over `total` items, if it is known how many; open while the block runs."""


class Silent:
    """Looks on and says nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def download(self, title: str) -> Fetching:
        """No bar."""
        return lambda done, total: None

    def bar(self, title: str, total: int | None) -> AbstractContextManager[Bar]:
        """No bar."""
        return nullcontext(lambda done, note=None: None)
