"""`topwork export` as SavedModel and LiteRT: the same answers in their own runtimes, and the facts inside."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from topwork.exports import savedmodel
from topwork.jobs.export import export
from topwork.jobs.train import Run

pytestmark = [
    pytest.mark.slow,
    # Keras' own use of NumPy 2.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning"),
]


@pytest.mark.parametrize("input", ["sized", "any"])
def test_a_savedmodel(run: Run, tmp_path: Path, input: str) -> None:
    import tensorflow as tf

    exported = export(run.path, tmp_path / "out", format="savedmodel", input=input)  # type: ignore[arg-type]
    assert exported.parity is not None
    assert exported.parity.gap < (1e-4 if input == "sized" else 0.02)
    told = tf.saved_model.load(str(exported.path)).signatures["describe"]()
    assert [name.decode() for name in told["classes"].numpy()] == list(run.classifier.classes)
    assert json.loads(told["topwork"].numpy())["input"] == input
    if input == "sized":
        several = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
        answer = savedmodel.load(exported.path)
        alone = np.concatenate([answer(picture[None])["probabilities"] for picture in several])
        np.testing.assert_allclose(answer(several)["probabilities"], alone, atol=1e-5)


@pytest.mark.parametrize(("precision", "share"), [("f32", 1.1), ("fp16", 0.6)])
def test_litert(run: Run, tmp_path: Path, precision: str, share: float) -> None:
    exported = export(run.path, tmp_path / "out", format="litert", precision=precision)  # type: ignore[arg-type]
    assert exported.path.name == "out.tflite"
    assert exported.parity is not None
    assert exported.parity.holds
    assert exported.path.stat().st_size < share * (run.path / "model.bin").stat().st_size
    with zipfile.ZipFile(exported.path) as file:
        assert file.read("labels.txt").decode().splitlines() == list(run.classifier.classes)
        assert json.loads(file.read("topwork.json"))["precision"] == precision


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("openvino", {"input": "any"}),
        ("onnx", {"input": "any"}),
        ("savedmodel", {"input": "any"}),
        ("litert", {}),
        ("keras", {}),
    ],
)
def test_the_examples(run: Run, fresh: Path, tmp_path: Path, format: str, options: dict[str, str]) -> None:
    """In a process of its own, in which Topwork can't be imported."""
    path = export(run.path, tmp_path / "out", format=format, **options).path  # type: ignore[arg-type]
    picture = next(fresh.rglob("*.png"))
    program = str(EXAMPLES / f"load_{format}.py")
    code = f"import sys; sys.modules['topwork'] = None; import runpy; runpy.run_path({program!r})"
    called = [sys.executable, "-c", code, str(path), str(picture)]
    told = subprocess.run(called, capture_output=True, text=True, check=True, timeout=120).stdout
    (own,) = run.classifier.predict(str(picture))
    name, probability = own.top()[0]
    assert told.split()[0] == name
    assert float(told.split()[1]) == pytest.approx(probability, abs=0.02)
