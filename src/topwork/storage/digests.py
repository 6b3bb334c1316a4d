"""Which of very many names were met before: 16 bytes a name, whatever its length."""

from __future__ import annotations

import hashlib
import os
from pathlib import PurePosixPath
from typing import Any

import numpy as np

_LOOSE = 2**16  # digests in a set, before they are sorted into an array


class Digests:
    """A set of names, each as 128 bits of BLAKE2b: a million are 16 MB (32 while arrays are merged), not 100.

    Of a billion names, two share a digest with a chance of one in 10^20. Spellings of one path that differ by
    "./", "//" or a "/" at the end are one name.

    >>> names = Digests()
    >>> names.add("a/1.jpg"), names.add("./a//1.jpg"), "a/2.jpg" in names, len(names)
    (True, False, False, 1)
    """

    def __init__(self) -> None:
        self._loose: set[bytes] = set()
        # Sorted, each longer than the next: a name is merged about log2(N / 65,536) times.
        self._arrays: list[np.ndarray[Any, np.dtype[np.bytes_]]] = []

    def __len__(self) -> int:
        return len(self._loose) + sum(map(len, self._arrays))

    def __contains__(self, name: str) -> bool:
        return self._holds(_digest(name))

    def add(self, name: str) -> bool:
        """Add a name; whether it is new."""
        digest = _digest(name)
        if self._holds(digest):
            return False
        self._loose.add(digest)
        if len(self._loose) >= _LOOSE:
            array = np.sort(np.frombuffer(b"".join(self._loose), "S16"))
            self._loose = set()
            while self._arrays and len(self._arrays[-1]) <= len(array):
                array = np.concatenate((self._arrays.pop(), array))
                array.sort()
            self._arrays.append(array)
        return True

    def _holds(self, digest: bytes) -> bool:
        if digest in self._loose:
            return True
        wanted = np.array(digest, "S16")  # bytes of zero at the end are left out on both sides
        for array in self._arrays:
            place = int(array.searchsorted(wanted))
            if place < len(array) and array[place] == wanted:
                return True
        return False


def _digest(name: str) -> bytes:
    plain = name.replace(os.sep, "/")
    if "//" in plain or "./" in plain or plain.endswith(("/", "/.")):  # seldom, and slow
        plain = PurePosixPath(plain).as_posix()
    return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest()
