"""TFRecord files and their `tf.train.Example` messages: locate each value without reading the images.

A record consists of its length (uint64), a checksum, the data, and a checksum. An Example is the Protocol Buffers
message `{features: {feature: map<string, Feature>}}`; a Feature is a list of bytes (1), floats (2) or integers (3).
See https://www.tensorflow.org/tutorials/load_data/tfrecord and
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from topwork.data.dataset import readable
from topwork.errors import ImageError, InputError

Buffer = bytes | mmap.mmap
_BYTES, _INTEGERS = 1, 3  # field numbers in Feature
_HEAD, _TAIL = 12, 4  # bytes around a record


@dataclass(frozen=True, slots=True)
class RecordImage:
    """An image's bytes in a TFRecord file, read in place; thread-safe.

    The record's checksum is not verified: damage is detected when the image is decoded, if at all.
    """

    file: str
    name: str
    offset: int  # of the image's bytes
    size_bytes: int

    def read(self) -> bytes:
        """The encoded bytes. Raises `OSError`, or `ImageError` if the file is truncated."""
        with Path(self.file).open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size_bytes)
        if len(data) < self.size_bytes:
            raise ImageError("damaged: the record file ends inside this image")
        return data

    def __str__(self) -> str:
        return readable(f"{self.file}!{self.name}")


@dataclass(frozen=True, slots=True)
class Record:
    """One Example. `places` maps each feature to the kind of its list and its start and end in `data`."""

    data: Buffer
    places: dict[str, tuple[int, int, int]]

    def span(self, feature: str) -> tuple[int, int] | None:
        """Start and end of a feature's first byte string; None if there is none."""
        return self._first(feature, _BYTES)

    def text(self, feature: str) -> str | None:
        """A feature's first byte string, as text; None if there is none."""
        span = self.span(feature)
        return None if span is None else self.data[slice(*span)].decode("utf-8", "backslashreplace")

    def integer(self, feature: str) -> int | None:
        """A feature's first integer; None if there is none."""
        span = self._first(feature, _INTEGERS)
        if span is None or span[0] == span[1]:
            return None
        value, _ = _varint(self.data, span[0], span[1])  # the first value comes first, packed or not
        return value - (1 << 64) if value >> 63 else value

    def _first(self, feature: str, kind: int) -> tuple[int, int] | None:
        found, begin, end = self.places.get(feature, (0, 0, 0))
        values = _fields(self.data, begin, end) if found == kind else iter(())
        return next(((begin, end) for number, begin, end in values if number == 1), None)


def read_records(path: str, *, skip: int, take: int) -> Iterator[Record]:
    """Yield `take` Examples of a TFRecord file after skipping `skip`, in order.

    The file is memory-mapped, and only the first page of each image is touched, so memory does not grow with the
    file's size.

    Raises:
        InputError: the file is damaged, or has fewer records.
    """
    number = 0
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size:  # an empty file can't be mapped
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    for begin, end in _record_spans(data, size):
                        if number >= skip + take:
                            return
                        if number >= skip:
                            yield parse_example(data, begin, end)
                        number += 1
    except (ValueError, struct.error):
        raise InputError(
            f"{readable(path)} is damaged at record {number}: expected a TFRecord file of tf.train.Examples; "
            "prepare the dataset again"
        ) from None
    if number < skip + take:
        raise InputError(
            f"{readable(path)} is truncated: expected at least {skip + take} records, found {number}; prepare "
            "the dataset again"
        )


def parse_example(data: Buffer, begin: int, end: int) -> Record:
    """Locate the features of the Example at `data[begin:end]`. Raises `ValueError` if it is not an Example."""
    places = {}
    for _, features_begin, features_end in _only(1, data, begin, end):
        for _, entry_begin, entry_end in _only(1, data, features_begin, features_end):
            name, place = "", (0, 0, 0)
            for number, at, stop in _fields(data, entry_begin, entry_end):
                if number == 1:
                    name = data[at:stop].decode("utf-8", "backslashreplace")
                elif number == 2:
                    place = next(_fields(data, at, stop), place)
            places[name] = place
    return Record(data, places)


def _record_spans(data: Buffer, size: int) -> Iterator[tuple[int, int]]:
    at = 0
    while at < size:
        (length,) = struct.unpack_from("<Q", data, at)
        at, end = at + _HEAD, at + _HEAD + length
        if end + _TAIL > size:
            raise ValueError("the file ends inside a record")
        yield at, end
        at = end + _TAIL


def _only(wanted: int, data: Buffer, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    for field in _fields(data, begin, end):
        if field[0] == wanted:
            yield field


def _fields(data: Buffer, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of the message at `data[at:end]`: number, start and end of the value."""
    while at < end:
        key, at = _varint(data, at, end)
        wire = key & 7
        if wire == 2:  # bytes, text, a message, a packed list
            length, at = _varint(data, at, end)
            stop = at + length
        elif wire == 0:
            _, stop = _varint(data, at, end)
        elif wire in (1, 5):
            stop = at + (8 if wire == 1 else 4)
        else:
            raise ValueError(f"unknown wire type: {wire}")
        if stop > end:
            raise ValueError("a field ends outside its message")
        yield key >> 3, at, stop
        at = stop


def _varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    """The varint at `at` (seven bits per byte, lowest first), and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, at
    raise ValueError("unterminated varint")
