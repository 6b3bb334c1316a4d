"""Read `.safetensors` files: named tensors, with no pickle and nothing that runs.

The format (https://github.com/huggingface/safetensors#format): eight bytes, the header's length N; N bytes of JSON,
`{name: {dtype, shape, data_offsets: [begin, end]}}`; then the tensors' bytes, without holes. A file that says
anything else is refused before a tensor is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topwork.errors import InputError

Array = np.ndarray[Any, np.dtype[Any]]

SUFFIX, INDEX = ".safetensors", ".safetensors.index.json"
MOST_HEADER = 100_000_000  # bytes; the format's own limit
MOST_RANK = 8
BF16 = "BF16"
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", BF16: "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "u1",
}  # fmt: skip
FLOATS = ("F64", "F32", "F16", BF16)


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor lies: its file, type, shape, and the offset of its first byte in the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class Tensors(Mapping[str, Array]):
    """The tensors of one or several files by name; each is read when it is asked for.

    Floats are given as float32, whatever they are stored as; integers as they are.
    """

    entries: Mapping[str, Entry]

    def __getitem__(self, name: str) -> Array:
        entry = self.entries[name]
        dtype = np.dtype(DTYPES[entry.dtype])
        if not math.prod(entry.shape):
            return np.zeros(entry.shape, np.float32 if entry.dtype in FLOATS else dtype)
        stored = np.memmap(entry.file, dtype, "r", entry.offset, entry.shape)
        if entry.dtype == BF16:  # the upper half of a float32
            return (stored.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # of float64, beyond float32
            return np.array(stored, np.float32) if dtype.kind == "f" else np.array(stored)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.entries[name].shape

    def dtype(self, name: str) -> str:
        """What it is stored as, one of `DTYPES`."""
        return self.entries[name].dtype

    def below(self, prefix: str) -> Tensors:
        """Those whose names begin with `prefix`, without it."""
        cut = len(prefix)
        return Tensors({name[cut:]: entry for name, entry in self.entries.items() if name.startswith(prefix)})


def read_tensors(path: Path) -> Tensors:
    """The tensors of a `.safetensors` file, or of all the files that a `.safetensors.index.json` names.

    Raises:
        InputError: a file is missing, incomplete or not of the format.
    """
    if not path.name.endswith(INDEX):
        return Tensors(_entries(path))
    try:
        index = _json(path, path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from error
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not all(_plain_name(name) for name in files.values()):
        raise InputError(f"{path}: expected a weight_map from tensors to files beside it")
    entries: dict[str, Entry] = {}
    for name in sorted(set(files.values())):
        if not _is_file(path.parent / name):
            raise InputError(f"{path} names {_short(name)}, which is not there: fetch it, too")
        entries |= {
            tensor: e for tensor, e in _entries(path.parent / name).items() if files.get(tensor) == name
        }
    if missing := files.keys() - entries.keys():
        raise InputError(
            f"{path}: {len(missing)} tensors are in none of its files, such as {_short(min(missing))}"
        )
    return Tensors(entries)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as of a name that is too long
        return False


def _plain_name(name: Any) -> bool:
    return isinstance(name, str) and name.endswith(SUFFIX) and Path(name).name == name


def _entries(path: Path) -> dict[str, Entry]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MOST_HEADER, size - 8):
                raise InputError(
                    f"{path}: expected a complete {SUFFIX} file; its header would be {length:,} bytes"
                )
            header = _json(path, file.read(length))
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from error
    if not isinstance(header, dict):
        raise InputError(f"{path}: expected a {SUFFIX} file; its header is not a table of tensors")
    start, entries, ranges = 8 + length, {}, []
    for name, told in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape = told["dtype"], tuple(told["shape"])
            begin, end = told["data_offsets"]
            sound = isinstance(dtype, str) and len(shape) <= MOST_RANK
            sound = sound and all(type(n) is int and 0 <= n < 2**63 for n in (*shape, begin, end))
            sound = sound and math.prod(n or 1 for n in shape) < 2**60
        except (TypeError, KeyError, ValueError):
            sound = False
        if not sound:
            raise InputError(f"{path}: expected dtype, shape and data_offsets for the tensor {_short(name)}")
        if dtype not in DTYPES:
            known = ", ".join(DTYPES)
            raise InputError(f"{path}: {_short(name)} is stored as {_short(dtype)}; expected one of {known}")
        if end - begin != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
            raise InputError(
                f"{path}: {_short(name)} {list(shape)} of {dtype} does not fit in bytes {begin} to {end}"
            )
        ranges.append((begin, end))
        entries[name] = Entry(path, dtype, shape, start + begin)
    at = 0
    for begin, end in sorted(ranges):
        if begin != at:
            raise InputError(f"{path}: its tensors overlap, or bytes between them belong to none")
        at = end
    if start + at != size:
        raise InputError(
            f"{path}: expected {start + at:,} bytes by its header; it has {size:,}: fetch it again"
        )
    return entries


def _short(name: str) -> str:
    """A name for a message: a hostile one may have millions of letters, or lines."""
    return name if len(name) < 200 and name.isprintable() else repr(name[:100])


def _json(path: Path, data: bytes) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            raise ValueError("a name stands twice")
        return table

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON; it can't be read ({str(error)[:100]})") from None
