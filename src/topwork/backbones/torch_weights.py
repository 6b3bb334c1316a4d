"""Read the published weights: PyTorch's file format of before 1.6, without PyTorch.

Such a file is five pickles (a magic number, a protocol version, the writer's word sizes, the object, the storages'
names) and then the storages' bytes (`torch/serialization.py`, `_legacy_save`). Only files whose SHA-256 is that of a
published one are read here (see `efficientnet_lite`); and even so a pickle may name nothing but tensors of numbers.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
Array = np.ndarray[Any, np.dtype[Any]]


class _Tensor(NamedTuple):
    storage: tuple[str, np.dtype[Any]]  # its key, and the type of its elements
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements: published files do hold channels-last kernels


class _TensorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *args: _Tensor(*args[:4])  # requires_grad and hooks follow
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        raise pickle.UnpicklingError(f"expected tensors alone; the file asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype[Any]]:
        _, dtype, key, *_ = pid
        return key, dtype


def load_weights(path: str | Path) -> dict[str, Array]:
    """The named tensors of a published weights file, C-contiguous, in the file's order.

    Raises:
        ValueError, pickle.UnpicklingError: it is no such file.
    """
    with Path(path).open("rb") as file:
        magic, _protocol, _words, tensors, names = (_TensorUnpickler(file).load() for _ in range(5))
        if magic != MAGIC:
            raise ValueError(f"{path}: expected a PyTorch file of before 1.6")
        dtypes = dict(tensor.storage for tensor in tensors.values())
        storages = {name: _read_storage(file, dtypes[name]) for name in names}
    return {name: _gather(tensor, storages[tensor.storage[0]]) for name, tensor in tensors.items()}


def _read_storage(file: BinaryIO, dtype: np.dtype[Any]) -> Array:
    count = int.from_bytes(file.read(8), "little")
    return np.frombuffer(file.read(count * dtype.itemsize), dtype, count)


def _gather(tensor: _Tensor, data: Array) -> Array:
    strides = [stride * data.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(data[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.array(view, order="C")
