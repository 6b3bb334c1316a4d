"""Whether a model in a single file is whole, as far as its own format tells.

ONNX: https://onnx.ai/onnx/repo-docs/IR.html, a protobuf; TFLite: the FlatBuffers schema in tensorflow/lite/schema;
Keras: a zip with `config.json`.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from topwork.backbones.hub.unpack import DamagedError, check_zip

SUFFIXES = (".onnx", ".tflite", ".keras")
TFLITE_MAGIC = b"TFL3"  # at byte 4

_GRAPH, _OPSETS = 7, 8  # fields of ONNX' ModelProto
_OPERATORS, _GRAPHS, _BUFFERS, _METADATA = 1, 2, 4, 6  # of TFLite's Model
_DATA, _OFFSET, _SIZE = 0, 1, 2  # of TFLite's Buffer


def check_whole(path: Path, suffix: str, *, shown: str) -> None:
    """Raise `DamagedError` where a file is no whole `.onnx`, `.tflite` or `.keras`, as `suffix` says it is."""
    try:
        if suffix == ".keras":
            if "config.json" not in check_zip(path, shown=shown):
                raise ValueError("it holds no config.json")
            return
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            (_check_onnx if suffix == ".onnx" else _check_tflite)(data)
    except (ValueError, LookupError) as error:  # also of an empty file
        raise DamagedError(f"{shown}: expected a whole {suffix} file; {error}") from error
    except struct.error as error:
        raise DamagedError(f"{shown}: expected a whole {suffix} file; it breaks off") from error


def _check_onnx(data: mmap.mmap) -> None:
    """Walk the fields of the whole: the last must end where the file does."""
    at, seen = 0, set()
    while at < len(data):
        tag, at = _varint(data, at)
        seen.add(tag >> 3)
        if tag & 7 == 0:
            _, at = _varint(data, at)
        elif tag & 7 == 2:
            size, at = _varint(data, at)
            at += size
        else:
            raise ValueError("its bytes are not those of a model")
    if at != len(data):
        raise ValueError(f"it breaks off after {len(data):,} of {at:,} bytes")
    if not {_GRAPH, _OPSETS} <= seen:
        raise ValueError("it holds no graph, or not the version of its operators")


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("its bytes are not those of a model")


def _check_tflite(data: mmap.mmap) -> None:
    """All that the model points at must end in the file: the operators' list and the weights come last in it."""
    if data[4:8] != TFLITE_MAGIC:
        raise ValueError("its bytes are not those of a model")
    model, end = _uint(data, 0), 0
    if not _field(data, model, _BUFFERS):
        raise ValueError("it holds no weights")
    for number in (_OPERATORS, _GRAPHS, _METADATA, _BUFFERS):
        for table in _tables(data, model, number):
            (back,) = struct.unpack_from("<i", data, table)
            length, size = struct.unpack_from("<HH", data, max(table - back, 0))
            end = max(end, table + size, table - back + length)
            if number == _BUFFERS:
                end = max(end, _buffer_end(data, table))
    if end > len(data):
        raise ValueError(f"it breaks off after {len(data):,} of at least {end:,} bytes")


def _tables(data: mmap.mmap, table: int, number: int) -> Iterator[int]:
    """Where each table in a list lies, if there is a list in that field."""
    field = _field(data, table, number)
    vector = field + _uint(data, field) if field else 0
    for place in range(vector + 4, vector + 4 + 4 * _uint(data, vector), 4) if field else ():
        yield place + _uint(data, place)


def _buffer_end(data: mmap.mmap, table: int) -> int:
    end = 0
    if held := _field(data, table, _DATA):
        start = held + _uint(data, held)
        end = start + 4 + _uint(data, start)
    offset, size = (_field(data, table, number) for number in (_OFFSET, _SIZE))
    if offset and size:  # beyond 2 GB the weights stand behind the tables
        end = max(end, sum(struct.unpack_from("<Q", data, at)[0] for at in (offset, size)))
    return end


def _uint(data: mmap.mmap, at: int) -> int:
    value: int = struct.unpack_from("<I", data, at)[0]
    return value


def _field(data: mmap.mmap, table: int, number: int) -> int:
    """Where a field of a table lies; 0 where it has none."""
    (back,) = struct.unpack_from("<i", data, table)
    vtable = table - back
    if vtable < 0:
        raise ValueError("its bytes are not those of a model")
    (size,) = struct.unpack_from("<H", data, vtable)
    entry = 4 + 2 * number
    offset = struct.unpack_from("<H", data, vtable + entry)[0] if entry < size else 0
    return table + offset if offset else 0
