"""What can go wrong, in kinds that decide the exit code; and the hints that go with a message.

Every message says what was expected, what came, where, and the mend.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TopworkError(Exception):
    """The base of every error that Topwork raises on purpose; the command line exits with 1."""

    exit_code = 1


class InputError(TopworkError, ValueError):
    """The user's input is wrong (a path, a name, a number, a file's content); exits with 2."""

    exit_code = 2


class ImageError(TopworkError, ValueError):
    """One image's bytes can't be turned into pixels. Its text is the reason alone, without the name."""


class MissingExtra(TopworkError, ImportError):
    """An optional package is not installed. Its text names the feature and the `pip install` line."""

    exit_code = 2

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f'{feature} needs an optional part: pip install "topwork[{extra}]"')


class Stopped(BaseException):
    """The user pressed Ctrl-C. Not KeyboardInterrupt, which the option parser would answer with a word of its own."""


def one_of(name: str, known: Iterable[str], *, what: str) -> str:
    """The text for an unknown name: `unknown WHAT 'NAME'; did you mean 'X'? Known: A, B, X`.

    >>> one_of("liner", ["linear", "mlp"], what="head")
    "unknown head 'liner'; did you mean 'linear'? Known: linear, mlp"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {what} {name!r}{hint} Known: {', '.join(names)}"
