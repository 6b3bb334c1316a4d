"""A head as a file: plain arrays in an uncompressed .npz, read without running anything that is in it."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from topwork.errors import InputError, one_of
from topwork.heads.head import KINDS, Head, Layer


def save_head(head: Head, path: str | Path) -> None:
    """Write `head` to `path` as an uncompressed .npz: kind, temperature, weight_0, bias_0, …; landmarks, if any.

    The file is complete or not there: it is written beside its place, then moved.
    """
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    arrays = {"kind": np.array(head.kind), "temperature": np.array(head.temperature, dtype=np.float64)}
    for index, layer in enumerate(head.layers):
        arrays[f"weight_{index}"] = np.asarray(layer.weight, dtype=np.float32, order="C")
        arrays[f"bias_{index}"] = np.asarray(layer.bias, dtype=np.float32)
    if head.landmarks is not None:
        arrays["landmarks"] = np.asarray(head.landmarks, dtype=np.float32, order="C")
    try:
        with partial.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def load_head(path: str | Path) -> Head:
    """Read what `save_head` wrote. Nothing in the file is run, and memory stays within the file's size.

    Raises:
        InputError: there is no such file, or it is damaged, or is not a head.
    """
    place = Path(path)
    try:
        with zipfile.ZipFile(place) as archive:
            return _read_head(archive, place.stat().st_size)
    except FileNotFoundError as error:
        raise InputError(f"no head at {place}: expected the head.npz of a run folder") from error
    except Exception as error:  # a damaged archive fails in a dozen ways inside zipfile
        reason = str(error) or type(error).__name__
        raise InputError(f"{place} is not a head that Topwork saved: {reason}; train again") from error


def _read_head(archive: zipfile.ZipFile, size: int) -> Head:
    names = [entry.filename.removesuffix(".npy") for entry in archive.infolist()]
    depth = sum(name.startswith("weight_") for name in names)
    expected = ["kind", "temperature", *(f"{part}_{i}" for i in range(depth) for part in ("weight", "bias"))]
    has_landmarks = "landmarks" in names
    expected += ["landmarks"] * has_landmarks
    if depth == 0 or sorted(names) != sorted(expected):
        shown = ", ".join(sorted(names)[:8])
        raise InputError(f"expected the arrays kind, temperature, weight_0, bias_0, …; got {shown or 'none'}")
    # `save_head` compresses nothing, so nothing that is honest can come out bigger than the file.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise InputError("expected arrays stored without compression; got a compressed one")
    if sum(max(entry.file_size, entry.compress_size) for entry in archive.infolist()) > size:
        raise InputError(f"its arrays claim more than the {size} bytes of the file")

    kind = str(_read_array(archive, "kind", "<U", dimensions=0))
    if kind not in KINDS:
        raise InputError(one_of(kind, KINDS, what="kind of head"))
    temperature = float(_read_array(archive, "temperature", "<f8", dimensions=0))
    if not temperature > 0 or math.isinf(temperature):
        raise InputError(f"expected a temperature above 0; got {temperature}")
    landmarks = _read_array(archive, "landmarks", "<f4", dimensions=2) if has_landmarks else None
    if (landmarks is not None) != (kind == "kernel") or (landmarks is not None and depth != 2):
        raise InputError(f"a head of the kind {kind!r} can't have these arrays: {', '.join(sorted(names))}")
    layers: list[Layer] = []
    for index in range(depth):
        weight = _read_array(archive, f"weight_{index}", "<f4", dimensions=2)
        bias = _read_array(archive, f"bias_{index}", "<f4", dimensions=1)
        if bias.shape != weight.shape[1:] or 0 in weight.shape:
            raise InputError(
                f"weight_{index} {weight.shape} and bias_{index} {bias.shape} do not fit together"
            )
        came = layers[-1].bias.shape[0] if layers else weight.shape[0]
        if layers and landmarks is not None:
            if landmarks.shape[1] != came:
                raise InputError(
                    f"landmarks {landmarks.shape} do not take the output of layer 0, {came} wide"
                )
            came = landmarks.shape[0]
        if weight.shape[0] != came:
            raise InputError(
                f"weight_{index} {weight.shape} does not take the output of layer {index - 1}, "
                f"which is {came} wide"
            )
        layers.append(Layer(weight, bias))
    return Head(kind, tuple(layers), temperature, landmarks)


def _read_array(archive: zipfile.ZipFile, name: str, kind: str, *, dimensions: int) -> NDArray[Any]:
    """One finite array of the type `kind` ("<U" is text of any length)."""
    stream = io.BytesIO(archive.read(f"{name}.npy"))  # whole, so that its checksum is looked at
    try:
        npy.read_magic(stream)
        shape, fortran, dtype = npy.read_array_header_1_0(stream)
        plain = not fortran and dtype.names is None and all(size >= 0 for size in shape)
    except Exception:  # numpy reads the header as a Python literal, which a made-up one can fail in many ways
        plain = False
    if not plain:
        raise InputError(f"{name} does not begin as a plain array in C order does")
    if dtype.str != kind and not (kind == "<U" and dtype.str.startswith(kind)):
        raise InputError(f"{name} has the type {dtype.str}; expected {kind}")
    if len(shape) != dimensions:
        raise InputError(f"{name} has the shape {shape}; expected {dimensions} dimensions")
    data = stream.read()
    if math.prod(shape) * dtype.itemsize != len(data):
        raise InputError(f"{name} claims the shape {shape}, which is not what its bytes hold")
    array = np.frombuffer(data, dtype).reshape(shape).copy()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{name} has a value that is not a number or infinite")
    return array
