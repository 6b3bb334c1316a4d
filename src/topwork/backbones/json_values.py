"""Reading JSON files that others wrote: each value of the expected kind, or an error with its file and key."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topwork.errors import InputError
from topwork.images.framing import LARGEST_PX

Plain = Mapping[str, Any]
Three = tuple[float, float, float]

LARGEST_FILE = 1_000_000


def load_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: it can't be read, or is something else.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(
                f"{path}: expected less than {LARGEST_FILE:,} bytes; got {path.stat().st_size:,}"
            )
        plain = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: expected JSON; {str(error).splitlines()[0][:200]}") from None
    if not isinstance(plain, dict):
        raise InputError(f"{path}: expected an object; got {shown(plain)}")
    return plain


class Reader:
    """Values of a JSON object, each of the expected kind; null counts as absent, as in Transformers."""

    def __init__(self, plain: Plain, name: str) -> None:
        self._plain, self._name = plain, name

    def wrong(self, key: str, expected: str, found: object) -> InputError:
        """The error for a value."""
        return InputError(f"{self._name}: {key}: expected {expected}; got {shown(found)}")

    def flag(self, key: str, default: bool) -> bool:
        value = self._plain.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false", value)
        return value

    def text(self, key: str, default: str) -> str:
        value = self._plain.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(key, "text", value)
        return value

    def number(self, key: str, default: float, *, within: tuple[float, float]) -> float:
        value = self._plain.get(key)
        if value is None:
            return default
        if not _is_number(value) or not within[0] <= value <= within[1]:
            raise self.wrong(key, f"a number from {within[0]:g} to {within[1]:g}", value)
        return float(value)

    def three(self, key: str, *, positive: bool = False) -> Three | None:
        """A number for each channel; one number is all three."""
        value = self._plain.get(key)
        if value is None:
            return None
        values = [value] * 3 if _is_number(value) else value
        if isinstance(values, list) and len(values) == 1:
            values = values * 3
        least, most = (1e-6 if positive else -1e6), 1e6
        if not (
            isinstance(values, list)
            and len(values) == 3
            and all(_is_number(v) and least <= v <= most for v in values)
        ):
            kind = "above 0" if positive else "for red, green and blue"
            raise self.wrong(key, f"three numbers {kind}", value)
        return float(values[0]), float(values[1]), float(values[2])

    def sides(self, key: str, count: int) -> tuple[int, ...] | None:
        """`count` whole numbers of at least 1."""
        value = self._plain.get(key)
        if value is None:
            return None
        if not (isinstance(value, list) and len(value) == count and all(map(_is_side, value))):
            raise self.wrong(key, f"{count} whole numbers from 1 to {LARGEST_PX}", value)
        return tuple(value)

    def size(self, key: str, default: Plain, *, square: bool) -> dict[str, int]:
        """A size as the dictionary that Transformers makes of it."""
        value = self._plain.get(key)
        if value is None:
            return dict(default)
        if _is_side(value):
            return {"height": value, "width": value} if square else {"shortest_edge": value}
        if isinstance(value, list) and len(value) == 2 and all(map(_is_side, value)):
            return {"height": value[0], "width": value[1]}
        if isinstance(value, dict):
            known = {side: length for side, length in value.items() if length is not None}
            if known and all(map(_is_side, known.values())):
                return known
        raise self.wrong(key, f"sides in pixels, whole numbers from 1 to {LARGEST_PX}", value)


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond floating point
        return False


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_PX


def shown(value: object) -> str:
    """A value for a message, shortened."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # more digits or levels than Python prints
        return "a huge value"
    return text if len(text) <= 80 else f"{text[:77]}..."
