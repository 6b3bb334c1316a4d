"""Random tensors of which each term of a network matters, the same wherever they are drawn: by their names alone."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def random_tensor(name: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    """float32, by what a parameter of this name is; whole numbers for a count of batches."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    noise = rng.standard_normal(shape, np.float32)
    if "gamma" in name or "layer_scale" in name or "grn" in name:
        return np.float32(0.5) + np.float32(0.1) * noise
    if len(shape) > 1:
        return noise / np.float32(math.sqrt(math.prod(shape[1:])))
    return np.float32(0.1) * noise + np.float32(name.endswith("weight"))


def random_pixels(size_px: int, seed: int = 0) -> Array:
    """(1, 3, S, S) float32."""
    return np.random.default_rng([seed, size_px]).standard_normal((1, 3, size_px, size_px), np.float32)


def write_safetensors(path: Path, tensors: Mapping[str, Array]) -> None:
    header: dict[str, Any] = {}
    at = 0
    for name, tensor in tensors.items():
        dtype = "F32" if tensor.dtype == np.float32 else "I64"
        header[name] = {
            "dtype": dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor).tobytes())
