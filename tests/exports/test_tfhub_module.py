"""Publishing a backbone: what TensorFlow, OpenVINO and the original tensorflow_hub make of the module."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import keras
import numpy as np
import openvino as ov
import pytest
import tensorflow as tf
from openvino import opset13 as op

from exact import in_f32
from topwork.backbones.efficientnet_lite import build
from topwork.errors import InputError, TopworkError
from topwork.exports import tfhub_module
from topwork.exports.tfhub_module import publish_backbone
from topwork.graphs.features import average_views, pool

Array = np.ndarray[Any, Any]
SIDE, COUNT = 32, 6
RTOL = 1e-4
PROGRAM = Path(__file__).parents[1] / "tfhub" / "tfhub_program.py"
PROJECT = PROGRAM.parents[2]


def _network(*, views: Any = "one", waves: bool = False, steep: bool = False) -> ov.Model:
    """A small backbone: two convolutions, and a root, which has no slope at 0, where channels are dead.

    `steep`: then the tent map twelve times, which takes rounding to four thousand times of it.
    """
    rng = np.random.default_rng(11)
    image = op.parameter([1, SIDE, SIDE, 3], ov.Type.u8, name="image")
    image.output(0).set_names({"image"})
    x = op.divide(
        op.subtract(op.convert(image, ov.Type.f32), op.constant(np.float32(127))), op.constant(np.float32(64))
    )
    x = op.transpose(x, op.constant(np.array([0, 3, 1, 2])))
    x = op.atan(x) if waves else x
    for channels, came in ((8, 3), (12, 8)):
        kernel = op.constant(rng.normal(size=(channels, came, 3, 3), scale=0.3).astype(np.float32))
        x = op.convolution(x, kernel, [2, 2], [0, 0], [0, 0], [1, 1], auto_pad="same_upper")
        x = op.clamp(
            op.add(x, op.constant(rng.normal(size=(1, channels, 1, 1)).astype(np.float32))), 0.0, 6.0
        )
    x = op.multiply(x, op.constant(np.float32(1 / 6))) if steep else x
    for _ in range(12 if steep else 0):
        up, down = op.clamp(x, 0.0, 0.5), op.clamp(op.subtract(x, op.constant(np.float32(0.5))), 0.0, 0.5)
        x = op.multiply(op.subtract(up, down), op.constant(np.float32(2)))
    x.output(0).set_names({"last"})
    return average_views(pool(ov.Model([x], [image], "small"), ["last"], rooted=["last"]), views)  # (1, 24)


def _pictures() -> Array:
    return np.random.default_rng(5).integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8)


def _as_floats(pictures: Array) -> Array:
    return np.float32(pictures) / np.float32(255)


def _features(graph: ov.Model | Path, pictures: Array) -> Array:
    """By OpenVINO, one by one."""
    compiled = in_f32(graph)
    return np.concatenate([compiled(picture[None])[0] for picture in pictures])


def _gap(found: Any, expected: Array) -> float:
    found = np.asarray(found)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_backbone(_network(), tmp_path_factory.mktemp("modules") / "deep" / "small", size_px=SIDE)


def test_the_reusable_interface(published: Path) -> None:
    module = tf.saved_model.load(str(published))
    expected = _features(_network(), _pictures())
    for options in ({}, {"training": False}, {"training": True}):
        features = module(tf.constant(_as_floats(_pictures())), **options)
        assert features.dtype == tf.float32
        assert _gap(features, expected) < RTOL
    assert [tuple(v.shape) for v in module.trainable_variables] == [
        (8, 3, 3, 3), (1, 8, 1, 1), (12, 8, 3, 3), (1, 12, 1, 1),
    ]  # fmt: skip
    assert {v.ref() for v in module.variables} == {v.ref() for v in module.trainable_variables}
    assert all(v.trainable for v in module.trainable_variables)
    assert list(module.regularization_losses) == []


def test_the_signature(published: Path) -> None:
    signature = tf.saved_model.load(str(published)).signatures["serving_default"]
    specification = signature.structured_input_signature[1]
    assert specification == {"images": tf.TensorSpec((None, SIDE, SIDE, 3), tf.float32, name="images")}
    found = signature(images=tf.constant(_as_floats(_pictures())))
    assert set(found) == {"features"}
    assert _gap(found["features"], _features(_network(), _pictures())) < RTOL


@pytest.mark.parametrize("views", ["one", "flip", "dihedral"])
def test_openvino_reads_it_back(views: Any, published: Path, tmp_path: Path) -> None:
    folder = published
    if views != "one":
        folder = publish_backbone(_network(views=views), tmp_path / views, size_px=SIDE)
    expected = _features(_network(views=views), _pictures())
    assert _gap(_features(folder, _as_floats(_pictures())), expected) < RTOL
    together = in_f32(folder)
    assert _gap(together(_as_floats(_pictures()))[0], expected) < RTOL  # a batch: images don't mix
    if views != "one":
        assert _gap(expected, _features(_network(), _pictures())) > 0.01


def test_pixels_are_not_rounded(published: Path) -> None:
    """Half of one of 255 steps brighter must show."""
    module = tf.saved_model.load(str(published))
    pictures = _as_floats(_pictures() // 2)
    low, high = (module(tf.constant(pictures + np.float32(shift / 255))).numpy() for shift in (0, 0.4))
    assert np.abs(high - low).max() > 1e-4


def test_the_default_network(tmp_path: Path) -> None:
    graph = pool(build("efficientnet-lite0", size_px=64), ["last"])
    folder = publish_backbone(graph, tmp_path / "lite0", size_px=64)
    pictures = np.random.default_rng(5).integers(0, 256, (2, 64, 64, 3), np.uint8)
    expected = _features(graph, pictures)
    assert _gap(_features(folder, _as_floats(pictures)), expected) < RTOL
    module = tf.saved_model.load(str(folder))
    assert _gap(module(tf.constant(_as_floats(pictures))), expected) < RTOL


def test_keras_settings_make_no_difference_and_stay(tmp_path: Path) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.set_image_data_format("channels_first")
    try:
        folder = publish_backbone(_network(), tmp_path / "m", size_px=SIDE)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_dtype_policy("float32")
        keras.config.set_image_data_format("channels_last")
    found = _features(folder, _as_floats(_pictures()))
    assert _gap(found, _features(_network(), _pictures())) < RTOL


def _python_of_tfhub() -> str:
    default = PROJECT / ".venv-tfhub" / "bin" / "python"
    python = os.environ.get("TOPWORK_TFHUB_PYTHON", str(default))
    if not Path(python).exists():
        pytest.fail(
            f"{python}: no such Python. The original tensorflow_hub needs its own environment: python -m venv "
            ".venv-tfhub && .venv-tfhub/bin/pip install -r tests/requirements-tfhub.txt, or name another's Python in "
            "TOPWORK_TFHUB_PYTHON"
        )
    return python


@pytest.fixture(scope="module")
def told(published: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program for the original tensorflow_hub found."""
    pictures = tmp_path_factory.mktemp("pictures") / "pictures.npy"
    np.save(pictures, _as_floats(_pictures()))
    environment = {
        k: v for k, v in os.environ.items() if k not in ("KERAS_BACKEND", "PYTHONPATH", "PYTHONHOME")
    }
    done = subprocess.run(
        [_python_of_tfhub(), str(PROGRAM), str(published), str(pictures)],
        env=environment | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.mark.slow
def test_the_original_tensorflow_hub_gives_the_same_features(told: dict[str, Any]) -> None:
    assert told["version"] == "0.16.1"
    expected = _features(_network(), _pictures())
    for name in ("frozen", "tuned"):
        assert _gap(told[name]["features"], expected) < RTOL
        assert told[name]["in_training"] == [COUNT, 24]
        assert told[name]["regularization"] == 0


@pytest.mark.slow
def test_the_original_tensorflow_hub_freezes_it(told: dict[str, Any]) -> None:
    frozen = told["frozen"]
    assert (frozen["variables"], frozen["trainable"], frozen["moved"]) == (4, 0, 0)
    assert frozen["losses"][1] < frozen["losses"][0]


@pytest.mark.slow
def test_the_original_tensorflow_hub_fine_tunes_it(told: dict[str, Any]) -> None:
    tuned = told["tuned"]
    assert (tuned["variables"], tuned["trainable"], tuned["moved"]) == (4, 4, 4)
    assert tuned["losses"][1] < min(0.5 * tuned["losses"][0], told["frozen"]["losses"][1])


def test_a_folder_that_is_taken(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    with pytest.raises(
        InputError, match=r"taken: expected a new or empty folder, found files in it; choose another"
    ):
        publish_backbone(_network(), taken, size_px=SIDE)
    with pytest.raises(
        InputError, match=r"notes\.txt: expected a new or empty folder, found a file; choose another"
    ):
        publish_backbone(_network(), taken / "notes.txt", size_px=SIDE)
    with pytest.raises(InputError, match=r"its folder can't be created \(.*\); choose another"):
        publish_backbone(_network(), taken / "notes.txt" / "a" / "b", size_px=SIDE)
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "notes.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert publish_backbone(_network(), tmp_path, size_px=SIDE) == tmp_path
    assert (tmp_path / "saved_model.pb").exists()


def test_a_published_folder_can_be_read_by_others(published: Path) -> None:
    (beside := published.with_name("plain")).mkdir()
    assert published.stat().st_mode == beside.stat().st_mode
    beside.rmdir()


def test_a_graph_that_is_no_backbone(tmp_path: Path) -> None:
    message = r"with one input uint8 \(1, 64, 64, 3\); got u8 \[1,32,32,3\]"
    with pytest.raises(InputError, match=message):
        publish_backbone(_network(), tmp_path / "m", size_px=64)
    with pytest.raises(InputError, match="with an output 'features'; its outputs are block1, block10, "):
        publish_backbone(build("efficientnet-lite0", size_px=32), tmp_path / "m", size_px=32)
    assert not list(tmp_path.iterdir())


def test_an_operator_that_cannot_be_trained_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        TopworkError, match=r"the operator Atan \(.*\) can't be trained: the operator is not supported; a"
    ):
        publish_backbone(_network(waves=True), tmp_path / "m", size_px=SIDE)
    assert not list(tmp_path.iterdir())


def _saved_with(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written has other weights, by so much."""
    save = tfhub_module._save

    def changed(layer: Any, folder: Path, size_px: int) -> None:
        weight = layer.weights_in_order[0]
        weight.assign(weight * factor)
        save(layer, folder, size_px)

    monkeypatch.setattr(tfhub_module, "_save", changed)


@pytest.mark.parametrize("steep", [False, True])
def test_a_module_that_reads_back_otherwise_is_not_written(
    steep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _saved_with(1.01, monkeypatch)
    with pytest.raises(
        TopworkError, match=r"the published module's features differ .* by .*e.*: it was not written"
    ):
        publish_backbone(_network(steep=steep), tmp_path / "m", size_px=SIDE)
    assert not list(tmp_path.iterdir())


def test_a_network_that_takes_rounding_far_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _saved_with(1 + 1e-6, monkeypatch)
    publish_backbone(_network(steep=True), tmp_path / "m", size_px=SIDE)
    compiled = in_f32(tmp_path / "m")
    found = compiled([_as_floats(_pictures()[:1])])[0]
    expected = _features(_network(steep=True), _pictures()[:1])
    assert np.linalg.norm(found - expected) > tfhub_module.AGREEMENT * np.linalg.norm(expected)
