"""Read the tensors of a legacy PyTorch file (`torch.save` before 1.6) without PyTorch and without trust.

The file is a row of pickles (a magic number, a protocol version, a dictionary of the writer's word sizes, the
object, the storages' names) and then the storages' raw bytes. A pickle can call anything that it names, so
the reader names what may be called: ordered dictionaries and tensors of numbers; and which of the pickle
machine's instructions may do it: those that such a file is made of. Everything else is refused before it
runs. (Format: `torch/serialization.py`, `_legacy_save`.)
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from topwork.errors import InputError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}
# What PyTorch writes (pickle's protocol 2). Among those left out are ways around `find_class` (the extension
# registry's EXT1 hands out what it found before, unasked).
OPCODES = {
    *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
    *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
}
MOST_TUPLES = 10_000  # a tensor takes four; a deep nest of them can overflow Python's own stack
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load_weights(path: str | Path) -> dict[str, Array]:
    """The named tensors of a legacy PyTorch state dictionary, as C-contiguous arrays, in the file's order.

    Raises:
        InputError: the file is damaged, is of another format, or asks for anything but tensors.
    """
    path = Path(path)
    try:
        # All of it first: a read from memory can't be asked to set aside more than there is.
        file, size = io.BytesIO(path.read_bytes()), path.stat().st_size
        tensors, names = _read_pickles(file)
        storages = _read_storages(file, tensors, names, size=size)
        if sum(math.prod(t.shape) * t.storage.dtype.itemsize for t in tensors.values()) > size:
            raise ValueError("its tensors claim more than the file holds")
        return {name: _gather(tensor, storages) for name, tensor in tensors.items()}
    except _Refused as refused:
        raise InputError(f"{path}: expected a PyTorch file of tensors alone; {refused}; not loaded") from None
    except _DAMAGES as error:
        raise InputError(
            f"{path}: expected a legacy PyTorch weights file; it can't be read ({error})"
        ) from None


class _Refused(Exception):
    """The file asks for something that a table of weights has no need of."""


# Every way in which a damaged pickle is known to fail.
_DAMAGES = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
    Warning,  # where warnings are errors: `pickletools` gives one for odd escapes in a name
)


class _TensorUnpickler(pickle.Unpickler):
    """Knows an ordered dictionary, a tensor and the storages' types; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            # requires_grad and hooks follow: of no use here. A new function each time, for a pickle may set
            # the attributes of what it was given.
            return lambda *args: _Tensor(*args[:4])
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        raise _Refused(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _location, count, *view = pid
        if kind != "storage" or any(v is not None for v in view):
            raise _Refused("a storage of an unknown kind")
        return _Storage(key, dtype, count)


def _read_pickles(file: BinaryIO) -> tuple[Mapping[str, _Tensor], list[str]]:
    if file.read(4) == b"PK\x03\x04":
        raise _Refused(
            "this is the zip format that PyTorch writes since 1.6: save it again with "
            "`torch.save(weights, path, _use_new_zipfile_serialization=False)`"
        )
    file.seek(0)

    def load() -> Any:
        return _TensorUnpickler(io.BytesIO(_next_pickle(file))).load()

    if load() != MAGIC or load() != PROTOCOL:
        raise ValueError("its first numbers are not PyTorch's")
    words = load()
    if not isinstance(words, dict) or words.get("little_endian") is not True:
        raise ValueError("it was not written on a little-endian machine")
    tensors, names = load(), load()
    if not isinstance(tensors, dict):
        raise _Refused(f"it holds a {type(tensors).__name__}")
    # A plain copy: a pickle can give an ordered dictionary an attribute `items` that hides its own.
    tensors = dict(dict.items(tensors))
    for name, tensor in tensors.items():
        _check(name, tensor)
    if not isinstance(names, list) or len(set(names)) != len(names):
        raise ValueError("its list of storages is damaged")
    return tensors, names


def _next_pickle(file: BinaryIO) -> bytes:
    """The bytes of the pickle that begins here, once each of its instructions is known to be one of ours."""
    start = file.tell()
    tuples = puts = 0
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name not in OPCODES:
            raise _Refused(f"it asks for pickle's {opcode.name}")
        tuples += opcode.name.startswith("TUPLE")
        if opcode.name.endswith("BINPUT"):
            # PyTorch numbers what it remembers from 0 on; the unpickler reserves memory up to any number.
            if argument is None or argument > puts:
                raise _Refused("it claims memory that it has no use for")
            puts += 1
    if tuples > MOST_TUPLES:
        raise _Refused("it nests tuples")
    end = file.tell()
    file.seek(start)
    return file.read(end - start)


def _check(name: object, tensor: object) -> None:
    # Once all is unpickled, not while: a pickle may change a record after it was made.
    if not isinstance(name, str) or not isinstance(tensor, _Tensor):
        raise _Refused("it holds something else than named tensors")
    storage = tensor.storage
    if not (
        isinstance(storage, _Storage) and isinstance(storage.dtype, np.dtype) and type(storage.key) is str
    ):
        raise _Refused(f"{name!r} has a storage of an unknown kind")
    extents = ((storage.count, tensor.offset), tensor.shape, tensor.strides)
    if not all(type(e) is tuple and all(type(n) is int and n >= 0 for n in e) for e in extents):
        raise _Refused(f"{name!r} has a shape that is not made of whole numbers")
    if len(tensor.shape) != len(tensor.strides):
        raise _Refused(f"{name!r} has a shape and strides of different lengths")


def _read_storages(
    file: BinaryIO, tensors: Mapping[str, _Tensor], names: list[str], *, size: int
) -> dict[str, Array]:
    declared = {t.storage.key: t.storage for t in tensors.values()}
    if set(declared) != set(names):
        raise ValueError("its storages are not those that its tensors name")
    found = {}
    for name in names:
        storage = declared[name]
        count = int.from_bytes(file.read(8), "little", signed=True)
        n_bytes = storage.count * storage.dtype.itemsize
        # Compared with the file's size before anything is read: a false length can't claim memory.
        if count != storage.count or n_bytes > size - file.tell():
            raise ValueError("it is shorter than it says: the download may have broken off")
        found[name] = np.frombuffer(file.read(n_bytes), storage.dtype)
    return found


def _gather(tensor: _Tensor, storages: Mapping[str, Array]) -> Array:
    """The tensor's elements, copied out by its strides: published files do hold channels-last kernels."""
    data = storages[tensor.storage.key]
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    n_elements = math.prod(tensor.shape)
    # Stride 0 would let a small storage claim a huge array: a table of weights never repeats an element.
    if n_elements > max(data.size, 1) or (n_elements and last >= data.size):
        raise ValueError("a tensor reaches past its storage")
    view = np.lib.stride_tricks.as_strided(
        data[tensor.offset :], tensor.shape, [s * data.itemsize for s in tensor.strides], writeable=False
    )
    return np.array(view, order="C")
