"""Progress bars and messages on standard error. Results go to standard output."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from topwork.progress import Bar, Fetching

EVERY_S = 10.0  # between two lines of a phase where there is no bar
STEPS = ("head", "audit", "learning curve", "evidence")  # bars that count steps, not images


class Console:
    """Shows progress in a terminal: a bar with rate and remaining time for each step, and lines above it."""

    def __init__(self) -> None:
        from rich.console import Console as RichConsole

        self._rich = RichConsole(stderr=True)
        self._end_fetching: Callable[[], None] = lambda: None

    def say(self, text: str) -> None:
        """Print a line, above the bar if one is open."""
        self._rich.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def download(self, title: str) -> Fetching:
        """A bar with size, rate and remaining time, which opens with the first bytes and closes with the last.

        If the total size is unknown, it closes when the next bar opens.
        """
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("·"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        )
        progress = Progress(*columns, console=self._rich, disable=not sys.stderr.isatty())
        task = progress.add_task(f"downloading {title}", total=None)

        def tell(done: int, total: int | None) -> None:
            if not progress.live.is_started:
                self._end_fetching = progress.stop
                atexit.register(progress.stop)  # restores the cursor if the download is interrupted
                progress.start()
            progress.update(task, completed=done, total=total)
            if total is not None and done >= total:
                progress.stop()

        return tell

    @contextmanager
    def bar(self, title: str, total: int | None) -> Iterator[Bar]:
        """A bar over `total` items; a line every few seconds if standard error is not a terminal."""
        if not sys.stderr.isatty():
            yield self._lines(title, total)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import Task as RichTask
        from rich.text import Text

        class Rate(TextColumn):
            """Images per second, over the last seconds."""

            def __init__(self) -> None:
                super().__init__("")

            def render(self, task: RichTask) -> Text:
                if title in STEPS:
                    return Text()
                speed = task.finished_speed or task.speed
                return Text(f"{speed:,.0f} img/s" if speed else "… img/s")

        self._end_fetching()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TextColumn("·"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self._rich) as progress:
            task = progress.add_task(title, total=total, note="")

            def advance(done: int, note: str | None = None, /) -> None:
                if note is not None:
                    progress.update(task, note=f"· {note}")
                progress.update(task, advance=done)

            yield advance

    def _lines(self, title: str, total: int | None) -> Bar:
        done, told = 0, time.monotonic()

        def advance(more: int, note: str | None = None, /) -> None:
            nonlocal done, told
            done += more
            if (now := time.monotonic()) - told >= EVERY_S:
                told = now
                self.say(f"{title}: {done:,}" + (f" of {total:,}" if total else ""))

        return advance


def quieten_tensorflow() -> None:
    """Suppress TensorFlow's messages below errors (instruction sets, retracing), which would disrupt the bars."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
