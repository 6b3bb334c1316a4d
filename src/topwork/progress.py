"""Progress reports of long jobs. The library is silent; the command line draws bars."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Advance = Callable[[int], None]  # called with the number of newly finished items
Fetching = Callable[[int, int | None], None]  # called with the bytes received so far and the total


class Bar(Protocol):
    """An open progress bar."""

    def __call__(self, done: int, note: str | None = None, /) -> None:
        """Advance by `done` items; `note` is shown beside the bar from now on, such as the loss."""


class Watch(Protocol):
    """Receives progress: lines and bars."""

    def say(self, text: str) -> None:
        """Show a line of text."""

    def download(self, title: str) -> Fetching:
        """A progress bar for a download; it opens at the first call."""

    def bar(self, title: str, total: int | None) -> AbstractContextManager[Bar]:
        """A progress bar over `total` items (None: unknown), open while the block runs."""


class Silent:
    """Ignores all progress."""

    def say(self, text: str) -> None:
        """Do nothing."""

    def download(self, title: str) -> Fetching:
        """No bar."""
        return lambda done, total: None

    def bar(self, title: str, total: int | None) -> AbstractContextManager[Bar]:
        """No bar."""
        return nullcontext(lambda done, note=None: None)
