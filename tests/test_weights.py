"""The reader of legacy PyTorch files: honest files give their tensors, hostile ones run nothing.

The files are written here, instruction by instruction (see `pickletools` for what each does).
"""

from __future__ import annotations

import contextlib
import copyreg
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topwork.errors import InputError
from topwork.hub import builtin
from topwork.hub.weights import MAGIC, load_weights

WORDS = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
ORDERED = b"ccollections\nOrderedDict\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


# --- a writer ---------------------------------------------------------------------------------------------


def _put(value: object) -> bytes:
    """The instructions that leave a plain value on the stack; bytes are instructions already."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_put, value)) + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(_put(k) + _put(v) for k, v in value.items()) + b"u"
    return pickle.dumps(value, protocol=2)[2:-1]  # without PROTO and STOP: numbers, None, lists of text


def _call(function: bytes, *args: object) -> bytes:
    return function + _put(args) + b"R"


def _storage(key: object, count: object, dtype: str = "FloatStorage", *, view: object = None) -> bytes:
    return _put(("storage", f"ctorch\n{dtype}\n".encode(), key, "cpu", count, view)) + b"Q"


def _tensor(storage: bytes, shape: object, strides: object, offset: object = 0) -> bytes:
    return _call(REBUILD, storage, offset, shape, strides, False, _call(ORDERED))


def _pickled(instructions: bytes) -> bytes:
    return b"\x80\x02" + instructions + b"."


def _table(tensors: dict[str, bytes]) -> bytes:
    return ORDERED + b")R" + b"(" + b"".join(_put(k) + v for k, v in tensors.items()) + b"u"


def _file(table: bytes, storages: dict[str, np.ndarray[Any, Any]], *, names: object = None) -> bytes:
    parts = [_pickled(_put(part)) for part in (MAGIC, 1001, WORDS)]
    parts += [_pickled(table), _pickled(_put(list(storages) if names is None else names))]
    for data in storages.values():
        parts += [struct.pack("<q", data.size), data.tobytes()]
    return b"".join(parts)


KERNEL = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
HONEST = {
    # Channels-last: memory order (out, row, column, in).
    "kernel": _tensor(_storage("7", 24), (2, 3, 2, 2), (12, 1, 6, 3)),
    "bias": _tensor(_storage("8", 5, "HalfStorage"), (3,), (1,), 2),
    "steps": _tensor(_storage("9", 1, "LongStorage"), (), ()),
}
STORAGES = {
    "7": np.ascontiguousarray(KERNEL.transpose(0, 2, 3, 1)).ravel(),
    "8": np.array([9, 9, 1, 2, 3], np.float16),
    "9": np.array([2**40], np.int64),
}
WHOLE = _file(_table(HONEST), STORAGES)


def _load(data: bytes, folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    path = folder / "weights.pth"
    path.write_bytes(data)
    return load_weights(path)


def _one(folder: Path, tensor: bytes, data: object = (0, 1, 2, 3, 4, 5)) -> np.ndarray[Any, Any]:
    return _load(_file(_table({"w": tensor}), {"7": np.array(data, np.float32)}), folder)["w"]


# --- honest files -----------------------------------------------------------------------------------------


def test_an_honest_file_gives_its_tensors_in_order(tmp_path: Path) -> None:
    found = _load(WHOLE, tmp_path)
    assert list(found) == ["kernel", "bias", "steps"]
    np.testing.assert_array_equal(found["kernel"], KERNEL)
    assert found["kernel"].flags.c_contiguous
    np.testing.assert_array_equal(found["bias"], np.array([1, 2, 3], np.float16))
    assert found["steps"].shape == ()
    assert int(found["steps"]) == 2**40
    assert [a.dtype.str for a in found.values()] == ["<f4", "<f2", "<i8"]


def test_any_strides_within_the_storage_are_numpys(tmp_path: Path) -> None:
    found = _one(tmp_path, _tensor(_storage("7", 6), (2, 2), (1, 3), 1))
    np.testing.assert_array_equal(found, [[1, 4], [2, 5]])


def test_a_tensor_of_no_elements(tmp_path: Path) -> None:
    assert _one(tmp_path, _tensor(_storage("7", 6), (0, 3), (3, 1))).shape == (0, 3)


def test_the_attributes_that_pytorch_gives_a_state_dictionary_are_passed_over(tmp_path: Path) -> None:
    table = _table(HONEST) + _put({"_metadata": _call(ORDERED)}) + b"b"
    assert list(_load(_file(table, STORAGES), tmp_path)) == list(HONEST)


def test_the_published_file() -> None:
    found = builtin._read(builtin.LITES["efficientnet-lite0"])
    assert len(found) == 296
    assert next(iter(found)) == "_conv_stem.weight"
    assert found["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert found["_fc.weight"].shape == (1000, 1280)
    blocks = {name.split(".")[1] for name in found if name.startswith("_blocks.")}
    assert blocks == {str(i) for i in range(16)}
    assert found["_blocks.15._project_conv.weight"].shape == (320, 1152, 1, 1)
    for array in found.values():
        assert array.dtype == np.float32 or array.shape == ()  # the counters of batches seen
        assert np.isfinite(array).all()
    # 4.65 million, as the model's page in the TPU repository says ("4.7M").
    learnt = [a.size for n, a in found.items() if "running" not in n and "num_batches" not in n]
    assert sum(learnt) == 4_652_008


# --- hostile pickles --------------------------------------------------------------------------------------


def _attacks(command: str) -> dict[str, bytes]:
    """Pickles, each of which runs `command` when it is loaded without care."""
    code = f"__import__('os').system({command!r})"
    module = os.system.__module__  # posix, or nt
    short = pickle.SHORT_BINUNICODE
    named = b"".join(short + bytes([len(n)]) + n for n in (module.encode(), b"system"))
    call = _put((command,)) + b"R"
    deep = _call(b"cbuiltins\ngetattr\n", _call(b"cbuiltins\n__import__\n", "os"), "system") + call
    return {
        "REDUCE": f"c{module}\nsystem\n".encode() + call,
        "eval": _call(b"cbuiltins\neval\n", code),
        "getattr": deep,
        "STACK_GLOBAL": b"\x80\x04" + named + b"\x93" + call,
        "dotted": b"\x80\x04" + short + b"\x07topwork" + short + b"\x09__class__\x93"
        if False
        else b"\x80\x04" + short + b"\x02os" + short + b"\x06system\x93" + call,
        "INST": b"(" + _put(command) + f"i{module}\nsystem\n".encode(),
        "OBJ": f"(c{module}\nsystem\n".encode() + _put(command) + b"o",
        "NEWOBJ_EX": deep,
        "EXT1": b"\x82\xf7" + call,
        "EXT2": b"\x83\xf7\x00" + call,
        "EXT4": b"\x84\xf7\x00\x00\x00" + call,
        "inside a table": _put({"w": f"c{module}\nsystem\n".encode() + call}),
        "old name": b"c__builtin__\neval\n" + _put((code,)) + b"R",
    }


ATTACKS = tuple(_attacks(""))
