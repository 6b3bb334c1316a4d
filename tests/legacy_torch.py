"""A writer of legacy PyTorch files, instruction by instruction (see `pickletools` for what each does)."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

from topwork.backbones.torch_weights import MAGIC, load_weights
from topwork.errors import InputError

WORDS = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
ORDERED = b"ccollections\nOrderedDict\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def put(value: object) -> bytes:
    """The instructions that leave a plain value on the stack; bytes are instructions already."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, tuple):
        return b"(" + b"".join(map(put, value)) + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(put(k) + put(v) for k, v in value.items()) + b"u"
    return pickle.dumps(value, protocol=2)[2:-1]  # without PROTO and STOP: numbers, None, lists of text


def call(function: bytes, *args: object) -> bytes:
    return function + put(args) + b"R"


def storage(key: object, count: object, dtype: str = "FloatStorage", *, view: object = None) -> bytes:
    return put(("storage", f"ctorch\n{dtype}\n".encode(), key, "cpu", count, view)) + b"Q"


def tensor(storage: bytes, shape: object, strides: object, offset: object = 0) -> bytes:
    return call(REBUILD, storage, offset, shape, strides, False, call(ORDERED))


def pickled(instructions: bytes) -> bytes:
    return b"\x80\x02" + instructions + b"."


def table(tensors: dict[str, bytes]) -> bytes:
    return ORDERED + b")R" + b"(" + b"".join(put(k) + v for k, v in tensors.items()) + b"u"


def file(table: bytes, storages: dict[str, np.ndarray[Any, Any]], *, names: object = None) -> bytes:
    parts = [pickled(put(part)) for part in (MAGIC, 1001, WORDS)]
    parts += [pickled(table), pickled(put(list(storages) if names is None else names))]
    for data in storages.values():
        parts += [struct.pack("<q", data.size), data.tobytes()]
    return b"".join(parts)


KERNEL = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
HONEST = {
    # Channels-last: memory order (out, row, column, in).
    "kernel": tensor(storage("7", 24), (2, 3, 2, 2), (12, 1, 6, 3)),
    "bias": tensor(storage("8", 5, "HalfStorage"), (3,), (1,), 2),
    "steps": tensor(storage("9", 1, "LongStorage"), (), ()),
}
STORAGES = {
    "7": np.ascontiguousarray(KERNEL.transpose(0, 2, 3, 1)).ravel(),
    "8": np.array([9, 9, 1, 2, 3], np.float16),
    "9": np.array([2**40], np.int64),
}
WHOLE = file(table(HONEST), STORAGES)


def load(data: bytes, folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    path = folder / "weights.pth"
    path.write_bytes(data)
    return load_weights(path)


def load_one(folder: Path, tensor: bytes, data: object = (0, 1, 2, 3, 4, 5)) -> np.ndarray[Any, Any]:
    return load(file(table({"w": tensor}), {"7": np.array(data, np.float32)}), folder)["w"]


def check_outcome(data: bytes, folder: Path) -> None:
    """An `InputError`, or plain arrays no bigger than the file."""
    try:
        found = load(data, folder)
    except InputError:
        return
    assert all(type(name) is str and type(array) is np.ndarray for name, array in found.items())
    assert sum(array.nbytes for array in found.values()) <= len(data)
