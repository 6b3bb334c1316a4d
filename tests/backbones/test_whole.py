"""Models in single files: whole ones pass, cut ones don't."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from https_server import zipped
from topwork.backbones.hub.unpack import DamagedError
from topwork.backbones.hub.whole import check_whole


def onnx_model() -> bytes:
    """A small ONNX model, written by the format's own library."""
    onnx = pytest.importorskip("onnx")
    weights = onnx.numpy_helper.from_array(np.arange(200, dtype=np.float32).reshape(2, 100), "w")
    put = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 2])]
    got = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 100])]
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "tiny", put, got, [weights])
    data: bytes = onnx.helper.make_model(graph).SerializeToString()
    return data


def tflite_model(weights: bytes = b"w" * 200) -> bytes:
    """The tables of a TFLite file down to its weights, by hand: Model → buffers → Buffer → data."""
    # At 8 the Model's vtable, at 24 the Model, at 32 the list of two Buffers, at 44 their vtable, at 52 and 60 they,
    # at 68 the bytes that both hold. A table begins with the way back to its vtable, then its fields.
    model_vtable = struct.pack("<7H", 14, 8, 0, 0, 0, 0, 4) + bytes(
        2
    )  # the fifth field, 4 bytes into the table
    model = struct.pack("<iI", 24 - 8, 32 - 28)
    buffers = struct.pack("<III", 2, 52 - 36, 60 - 40)
    vtable = struct.pack("<3H", 6, 8, 4) + bytes(2)
    tables = struct.pack("<iIiI", 52 - 44, 68 - 56, 60 - 44, 68 - 64)
    held = struct.pack("<I", len(weights)) + weights
    return struct.pack("<I4s", 24, b"TFL3") + model_vtable + model + buffers + vtable + tables + held


def keras_model() -> bytes:
    return zipped({"metadata.json": b"{}", "config.json": json.dumps({"class_name": "Sequential"}).encode()})


MODELS = {".onnx": onnx_model, ".tflite": tflite_model, ".keras": keras_model}


def check(folder: Path, suffix: str, data: bytes) -> None:
    path = folder / "file"
    path.write_bytes(data)
    check_whole(path, suffix, shown="https://h/m")


@pytest.mark.parametrize("suffix", MODELS)
def test_a_whole_model_passes_and_no_part_of_it_does(tmp_path, suffix):
    data = MODELS[suffix]()
    check(tmp_path, suffix, data)
    # ONNX ends with the operators' version: a part without its last bytes lacks it or breaks off.
    for cut in {0, 3, 10, 50, len(data) // 2, len(data) - 1}:
        with pytest.raises(DamagedError, match="https://h/m"):
            check(tmp_path, suffix, data[:cut])


def test_what_is_said(tmp_path):
    data = onnx_model()
    with pytest.raises(
        DamagedError, match=r"expected a whole \.onnx file; it breaks off after 200 of [0-9]+ bytes"
    ):
        check(tmp_path, ".onnx", data[:200])
    with pytest.raises(DamagedError, match=r"whole \.onnx file; it holds no graph"):
        check(tmp_path, ".onnx", data[:2])
    with pytest.raises(DamagedError, match=r"whole \.onnx file; its bytes are not those of a model"):
        check(tmp_path, ".onnx", b"not a model at all")
    with pytest.raises(DamagedError, match=r"whole \.tflite file; its bytes are not those of a model"):
        check(tmp_path, ".tflite", b"not a model at all")
    with pytest.raises(
        DamagedError, match=r"whole \.tflite file; it breaks off after 271 of at least 272 bytes"
    ):
        check(tmp_path, ".tflite", tflite_model()[:-1])
    with pytest.raises(DamagedError, match=r"whole \.keras file; it holds no config\.json"):
        check(tmp_path, ".keras", zipped({"a.json": b"{}"}))
    with pytest.raises(DamagedError, match="is damaged: File is not a zip file"):
        check(tmp_path, ".keras", b"PK\3\4 not a zip")


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_noise_is_an_error_and_nothing_worse(tmp_path, suffix):
    random = np.random.default_rng(0)
    for length in random.integers(1, 400, 300):
        noise = bytearray(random.bytes(int(length)))
        noise[4:8] = b"TFL3"
        try:
            check(tmp_path, suffix, bytes(noise))
        except DamagedError:
            continue
        pytest.fail(f"passed as a model: {bytes(noise)!r}")


@pytest.mark.slow
def test_a_converters_own_file_passes(tmp_path):
    """What TensorFlow writes, whole, and less its last 4 bytes, which lie in the list of operators."""
    tf = pytest.importorskip("tensorflow")

    class Tiny(tf.Module):
        def __init__(self):
            self.weights = tf.Variable(np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec([1, 64])])
        def __call__(self, x):
            return tf.matmul(x, self.weights)

    tiny = Tiny()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([tiny.__call__.get_concrete_function()], tiny)
    data = converter.convert()
    check(tmp_path, ".tflite", data)
    for cut in (4, 100, 4000):
        with pytest.raises(DamagedError, match="breaks off"):
            check(tmp_path, ".tflite", data[:-cut])
