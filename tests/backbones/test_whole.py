"""Models in single files: whole ones pass, cut ones don't."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from https_server import zipped
from topwork.backbones.hub.unpack import DamagedError
from topwork.backbones.hub.whole import check_whole

# `tiny.onnx` and `tiny.tflite`: two numbers times a 2 x 2 matrix, written by the onnx and tensorflow packages.
DATA = Path(__file__).parents[1] / "support" / "data"


def keras_model() -> bytes:
    return zipped({"metadata.json": b"{}", "config.json": json.dumps({"class_name": "Sequential"}).encode()})


MODELS = {
    ".onnx": (DATA / "tiny.onnx").read_bytes(),
    ".tflite": (DATA / "tiny.tflite").read_bytes(),
    ".keras": keras_model(),
}


def check(folder: Path, suffix: str, data: bytes) -> None:
    path = folder / f"file{suffix}"
    path.write_bytes(data)
    check_whole(path, shown="https://h/m")


@pytest.mark.parametrize("suffix", MODELS)
def test_a_whole_model_passes_and_no_part_of_it_does(tmp_path, suffix):
    data = MODELS[suffix]
    check(tmp_path, suffix, data)
    for cut in range(0, len(data), 1 if suffix == ".onnx" else 7):
        with pytest.raises(DamagedError, match="https://h/m"):
            check(tmp_path, suffix, data[:cut])
    with pytest.raises(DamagedError, match="https://h/m"):
        check(tmp_path, suffix, data[:-1])


def test_what_is_said(tmp_path):
    for suffix in (".onnx", ".tflite"):
        for cut in (0, 2, len(MODELS[suffix]) // 2):
            with pytest.raises(DamagedError, match=rf"expected a complete \{suffix} file; [^\n]+$"):
                check(tmp_path, suffix, MODELS[suffix][:cut])
    with pytest.raises(DamagedError, match=r"complete \.onnx file; its bytes are not those of a model"):
        check(tmp_path, ".onnx", b"not a model at all")
    with pytest.raises(DamagedError, match=r"complete \.tflite file; its bytes are not those of a model"):
        check(tmp_path, ".tflite", b"not a model at all")
    with pytest.raises(DamagedError, match=r"complete \.keras file; it holds no config\.json"):
        check(tmp_path, ".keras", zipped({"a.json": b"{}"}))
    with pytest.raises(DamagedError, match="can't be unpacked: File is not a zip file"):
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


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_changed_bytes_are_an_error_or_nothing(tmp_path, suffix):
    """A reader in C++ must not bring the process down."""
    random = np.random.default_rng(1)
    for _ in range(300):
        data = bytearray(MODELS[suffix])
        for at in random.integers(0, len(data), 3):
            data[at] = random.integers(256)
        with contextlib.suppress(DamagedError):
            check(tmp_path, suffix, bytes(data))


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
        with pytest.raises(DamagedError, match="expected a complete"):
            check(tmp_path, ".tflite", data[:-cut])
