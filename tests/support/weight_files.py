"""Published weights for the tests: `.safetensors` files laid out by hand, and small repositories drawn at random."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Stored = tuple[str, str, tuple[int, ...], bytes]  # name, dtype, shape, bytes
NAMES = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64"}


def laid_out(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """The bytes of a file with this header, which may be anything, and its stated length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def safetensors_bytes(tensors: Iterable[Stored], metadata: Mapping[str, str] | None = None) -> bytes:
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, dtype, shape, stored in tensors:
        end = len(data) + len(stored)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), end]}
        data += stored
    return laid_out(header, data)


def write_safetensors(path: Path, tensors: Mapping[str, Array]) -> Path:
    """As the library would."""
    stored = [
        (name, NAMES[t.dtype.name], t.shape, np.array(t, order="C").tobytes()) for name, t in tensors.items()
    ]
    path.write_bytes(safetensors_bytes(stored))
    return path


def write_repository(folder: Path, config: Mapping[str, Any] | None, tensors: Mapping[str, Array]) -> Path:
    """A folder with `config.json` and `model.safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return write_safetensors(folder / "model.safetensors", tensors)


def random_tensor(name: str, shape: tuple[int, ...]) -> Array:
    """As benchmarks/parity/networks/random_tensors.py draws them."""
    rng = np.random.default_rng([0, zlib.crc32(name.encode())])
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    noise = np.asarray(rng.standard_normal(shape, np.float32))
    if "gamma" in name or "layer_scale" in name or "grn" in name:
        return np.float32(0.5) + np.float32(0.1) * noise
    if len(shape) > 1:
        return noise / np.float32(math.sqrt(math.prod(shape[1:])))
    return np.asarray(np.float32(0.1) * noise + np.float32(name.endswith("weight")))


def random_pixels(size_px: int) -> Array:
    """As benchmarks/parity/networks/random_tensors.py draws them: (1, 3, S, S) float32."""
    return np.random.default_rng([0, size_px]).standard_normal((1, 3, size_px, size_px), np.float32)


def small_transformers() -> dict[str, dict[str, Any]]:
    """The networks of `data/transformers.npz`: each one's config, shapes, sizes, and the library's outputs."""
    place = Path(__file__).parents[1] / "backbones" / "weights" / "data" / "transformers.npz"
    with np.load(place) as data:
        cases: dict[str, dict[str, Any]] = json.loads(bytes(data["cases"]))
        for key in data.files:
            name, _, output = key.partition("/")
            if output:
                cases[name][output] = data[key]
    return cases


def drawn(case: Mapping[str, Any]) -> dict[str, Array]:
    """The tensors of a network of `small_transformers`."""
    return {name: random_tensor(name, tuple(shape)) for name, shape in case["shapes"].items()}
