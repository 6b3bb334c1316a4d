"""Published networks read, dressed and cut: one network in three formats, and small graphs made here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from exact import in_f32
from one_network import SIDE_PX, WIDTH, make_network
from photos import write_shapes
from topwork.backbones.backbone import LAST, LAST_ROOTED, Backbone, load_backbone
from topwork.backbones.engine import compile_graph
from topwork.backbones.module import content_digest, load_module
from topwork.errors import InputError
from topwork.graphs.pixels import find_range, pixels
from topwork.graphs.read import UnreadableError, find_image_input, read_graph

Array = np.ndarray[Any, Any]
FORMATS = ("savedmodel", "net.tflite", "net.onnx")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_network(tmp_path_factory.mktemp("network"))


def _features(backbone: Backbone, pictures: Array, block: str = LAST) -> Array:
    """As the network gives them: the engine rounds to half precision."""
    network = compile_graph(backbone, threads=1)
    found = np.concatenate([network([picture[None]])[0] for picture in pictures])
    return found[:, backbone.facts.columns((block,))]


# --- three formats ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_features_are_tensorflows(network: Path, form: str) -> None:
    backbone = load_backbone(str(network / form), precision="f32")
    expected = np.load(network / "features.npy")
    np.testing.assert_allclose(_features(backbone, np.load(network / "pictures.npy")), expected, atol=1e-5)
    facts = backbone.facts
    assert (facts.size_px, facts.pixels, facts.handle) == (SIDE_PX, "0..1", str(network / form))
    assert [b.name for b in facts.blocks] == ["stage1", "stage2", LAST_ROOTED, LAST]
    assert facts.width == 16 + 32 + 2 * WIDTH


@pytest.mark.slow
def test_stages_and_accuracy_are_the_same_in_each_format(network: Path, tmp_path: Path) -> None:
    """In processes that can't import a framework: the same features of all stages, the same score."""
    photos = write_shapes(tmp_path / "photos", 20)
    code = (
        "import sys, json\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('tensorflow', 'keras', 'torch', 'jax', 'tf_keras', 'onnx'):\n"
        "            raise ImportError(f'{name} is not there')\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import numpy, topwork\n"
        "from topwork.recipe import *\n"
        "from topwork.features.extract import open_store, extract\n"
        "run = topwork.train(sys.argv[1], sys.argv[3], recipe=Recipe(BackboneRecipe(sys.argv[2], precision='f32')))\n"
        "store = open_store(run.classifier.backbone.facts)\n"
        "found = extract(topwork.load(sys.argv[1]), run.classifier.backbone, store=store)\n"
        "numpy.save(sys.argv[3] + '/x.npy', found.matrix())\n"
        "print(json.dumps([run.test.accuracy, run.computed]))\n"
    )
    told = []
    for form in FORMATS:
        out = tmp_path / form.replace(".", "-")
        done = subprocess.run(
            [sys.executable, "-c", code, str(photos), str(network / form), str(out)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told.append((done.stdout, np.load(out / "x.npy")))
    assert told[0][0] == told[1][0] == told[2][0]
    for _, found in told[1:]:
        np.testing.assert_allclose(found, told[0][1], atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_another_size(network: Path) -> None:
    backbone = load_backbone(str(network / "net.onnx"), size_px=96, precision="f32")
    assert backbone.facts.size_px == 96
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    assert np.isfinite(_features(backbone, picture[None])).all()


@pytest.mark.slow
def test_a_digest_of_what_is_in_a_folder(network: Path, tmp_path: Path) -> None:
    import shutil

    same = Path(shutil.copytree(network / "savedmodel", tmp_path / "moved"))
    assert content_digest(same) == content_digest(network / "savedmodel")
    (same / "assets" / "x").parent.mkdir(exist_ok=True)
    (same / "assets" / "x").write_text("new")
    assert content_digest(same) != content_digest(network / "savedmodel")


# --- small graphs -----------------------------------------------------------------------------------------

Layer = Callable[[Any], Any]


def _saved(
    path: Path,
    ends: Callable[[Any], dict[str, Any]],
    *,
    shape: tuple[int, ...] = (-1, 3, 32, 32),
    type: ov.Type = ov.Type.f32,
    before: Layer = lambda x: x,
    out: int = 8,
    stride: int = 4,
    rectify: bool = True,
) -> str:
    """An .xml of a convolution (3×3) on what comes in; `ends` makes the outputs, by name, from its map."""
    rng = np.random.default_rng(5)
    entry = op.parameter(ov.PartialShape(list(shape)), type, name="input")
    entry.output(0).set_names({"input"})
    x = before(entry)
    if shape[-1] == 3:
        x = op.transpose(x, op.constant(np.array([0, 3, 1, 2])))
    kernel = rng.normal(size=(out, 3, 3, 3)).astype(np.float32)
    x = op.convolution(x, op.constant(kernel), [stride] * 2, [1, 1], [1, 1], [1, 1])
    x = op.relu(x) if rectify else op.tanh(x)
    results = []
    for name, node in ends(x).items():
        node.output(0).set_names({name})
        results.append(node.output(0))
    ov.save_model(ov.Model(results, [entry], "small"), path, compress_to_fp16=False)
    return str(path)


def _pooled(x: Any) -> Any:
    return op.reduce_mean(x, op.constant(np.array([2, 3])), False)


def _dense(x: Any, classes: int) -> Any:
    rng = np.random.default_rng(6)
    weight = op.constant(rng.normal(size=(8, classes)).astype(np.float32))
    bias = op.constant(rng.normal(size=(1, classes)).astype(np.float32))
    return op.add(op.matmul(x, weight, False, False), bias)


@pytest.fixture
def picture() -> Array:
    return np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "end", "cut"),
    [
        ("vector", lambda x: {"features": _pooled(x)}, ""),
        ("map", lambda x: {"features": x}, ""),
        ("map of TensorFlow", lambda x: {"f": op.transpose(x, op.constant(np.array([0, 2, 3, 1])))}, ""),
        ("softmax", lambda x: {"f": op.softmax(_dense(_pooled(x), 7), 1)}, "the classifier of 7 classes"),
        ("logits of ImageNet", lambda x: {"f": _dense(_pooled(x), 1001)}, "the classifier of 1001 classes"),
        ("so named", lambda x: {"my_logits": _dense(_pooled(x), 7)}, "the classifier of 7 classes"),
        ("two outputs", lambda x: {"features": _pooled(x), "other": _dense(_pooled(x), 5)}, ""),
    ],
)
def test_the_layer_before_the_classifier(
    tmp_path: Path, picture: Array, name: str, end: Callable[[Any], dict[str, Any]], cut: str
) -> None:
    module = load_module(_saved(tmp_path / "net.xml", end), range="0..1")
    plain = load_backbone(_saved(tmp_path / "plain.xml", lambda x: {"f": _pooled(x)}), pixels="0..1")
    backbone = load_backbone(str(tmp_path / "net.xml"), pixels="0..1", precision="f32")
    np.testing.assert_allclose(_features(backbone, picture), _features(plain, picture), rtol=1e-5)
    assert (
        any(cut in note for note in module.notes) if cut else not any("taken off" in n for n in module.notes)
    )
    assert module.rectified


def test_a_dense_layer_that_is_no_classifier_stays(tmp_path: Path, picture: Array) -> None:
    path = _saved(tmp_path / "net.xml", lambda x: {"embedding": _dense(_pooled(x), 7)})
    backbone = load_backbone(path, pixels="0..1")
    assert _features(backbone, picture).shape == (1, 7)
    assert [b.name for b in backbone.facts.blocks] == ["stage1", LAST]  # it may be negative: no root


def test_tokens(tmp_path: Path, picture: Array) -> None:
    def tokens(count: int) -> Callable[[Any], dict[str, Any]]:
        def end(x: Any) -> dict[str, Any]:  # (1, 8, 8, 8): 64 patches; one more before them for 65
            flat = op.transpose(
                op.reshape(x, op.constant(np.array([0, 8, 64])), True), op.constant(np.array([0, 2, 1]))
            )
            if count == 65:
                flat = op.concat(
                    [op.multiply(op.reduce_max(flat, op.constant(np.array([1])), True), np.float32(3)), flat],
                    1,
                )
            return {"last_hidden_state": flat}

        return end

    first = load_backbone(_saved(tmp_path / "a.xml", tokens(65)), pixels="0..1")
    mean = load_backbone(_saved(tmp_path / "b.xml", tokens(64)), pixels="0..1")
    maxima = load_backbone(
        _saved(tmp_path / "c.xml", lambda x: {"f": op.reduce_max(x, op.constant(np.array([2, 3])), False)}),
        pixels="0..1",
    )
    pooled = load_backbone(_saved(tmp_path / "d.xml", lambda x: {"f": _pooled(x)}), pixels="0..1")
    np.testing.assert_allclose(_features(first, picture), 3 * _features(maxima, picture), rtol=1e-4)
    np.testing.assert_allclose(_features(mean, picture), _features(pooled, picture), rtol=1e-4)


def test_activations_that_can_be_negative_are_no_rooted_last_layer(tmp_path: Path, picture: Array) -> None:
    path = _saved(tmp_path / "net.xml", lambda x: {"f": _pooled(x)}, rectify=False)
    backbone = load_backbone(path, pixels="0..1")
    assert [b.name for b in backbone.facts.blocks] == [LAST]
    assert np.isfinite(_features(backbone, picture)).all()


# --- pixels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("range", ["0..1", "-1..1", "0..255", "imagenet", "caffe"])
@pytest.mark.parametrize("shape", [(-1, 3, 32, 32), (-1, 32, 32, 3)], ids=["NCHW", "NHWC"])
def test_each_range_is_the_arithmetic_that_keras_has(
    tmp_path: Path, picture: Array, range: Any, shape: tuple[int, ...]
) -> None:
    path = _saved(tmp_path / "net.xml", lambda x: {"f": _pooled(x)}, shape=shape, rectify=False)
    found = _features(load_backbone(path, pixels=range, precision="f32"), picture)
    x = picture.astype(np.float32)
    x = {  # as keras.applications.imagenet_utils.preprocess_input has its modes
        "0..1": lambda: x / 255,
        "-1..1": lambda: x / 127.5 - 1,
        "0..255": lambda: x,
        "imagenet": lambda: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        "caffe": lambda: x[..., ::-1] - [103.939, 116.779, 123.68],
    }[range]()
    if shape[1] == 3:
        x = x.transpose(0, 3, 1, 2)
    compiled = in_f32(path)
    np.testing.assert_allclose(found, compiled([x.astype(np.float32)])[0], rtol=1e-4, atol=1e-4)


def _byte_scaling(x: Any) -> Any:
    return op.subtract(op.multiply(x, op.constant(np.float32(1 / 127.5))), op.constant(np.float32(1)))


def _torch_scaling(x: Any) -> Any:
    mean = np.float32([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
    return op.divide(
        op.subtract(x, op.constant(mean)), op.constant(np.float32([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1))
    )


def _mean_off(x: Any) -> Any:
    return op.subtract(x, op.constant(np.float32([103.939, 116.779, 123.68]).reshape(1, 3, 1, 1)))


@pytest.mark.parametrize(
    ("before", "range"),
    [
        (lambda x: x, None),
        (_byte_scaling, "0..255"),
        (lambda x: op.divide(x, op.constant(np.float32(255))), "0..255"),
        (lambda x: op.subtract(op.multiply(x, op.constant(np.float32(2))), op.constant(np.float32(1))), "0..1"),
        (_torch_scaling, "0..1"),
        (_mean_off, "0..255"),
        (lambda x: op.add(x, op.constant(np.float32(0.01))), None),
        (lambda x: op.exp(x), None),
    ],
)  # fmt: skip
def test_what_a_network_that_scales_its_input_shows(tmp_path: Path, before: Layer, range: str | None) -> None:
    graph = read_graph(Path(_saved(tmp_path / "net.xml", lambda x: {"f": _pooled(x)}, before=before)))
    assert find_range(graph, 1) == range
    module = load_module(str(tmp_path / "net.xml"))
    expected = (range, "found") if range else ("imagenet", "assumed")
    assert (module.pixels.range, module.pixels.how) == expected
    assert any("--pixels" in note for note in module.notes) == (range is None)


def test_a_network_of_bytes_takes_them_as_they_are(tmp_path: Path, picture: Array) -> None:
    path = _saved(
        tmp_path / "net.xml",
        lambda x: {"f": _pooled(x)},
        shape=(1, 32, 32, 3),
        type=ov.Type.u8,
        before=lambda x: op.convert(x, ov.Type.f32),
    )
    module = load_module(path)
    assert (module.pixels.range, module.pixels.how) == ("0..255", "stated")
    compiled = in_f32(path)
    expected = compiled([picture])[0]
    np.testing.assert_allclose(_features(load_backbone(path, precision="f32"), picture), expected, rtol=1e-5)


def test_the_arithmetic_of_each_range_keeps_to_what_it_says() -> None:
    for range, low, high in (("0..1", 0, 1), ("-1..1", -1, 1), ("0..255", 0, 255)):
        p = pixels(range, "chosen")
        np.testing.assert_allclose(list(p.offset), low, atol=1e-6)
        np.testing.assert_allclose(
            [255 * s + o for s, o in zip(p.scale, p.offset, strict=True)], high, atol=1e-6
        )


# --- sizes ------------------------------------------------------------------------------------------------


def test_a_free_size(tmp_path: Path) -> None:
    path = _saved(tmp_path / "net.xml", lambda x: {"f": _pooled(x)}, shape=(-1, 3, -1, -1))
    module = load_module(path)
    assert (module.size_px, module.size_fixed) == (224, False)
    assert any("224 px are assumed" in note for note in module.notes)
    assert load_module(path, size_px=160).size_px == 160


# --- what is refused --------------------------------------------------------------------------------------


def _refused(path: str, **options: Any) -> str:
    with pytest.raises(InputError) as told:
        load_module(path, **options)
    return str(told.value)


def test_networks_that_take_no_picture(tmp_path: Path) -> None:
    one = op.parameter([1, 10], ov.Type.f32, name="x")
    one.output(0).set_names({"x"})
    ov.save_model(ov.Model([op.relu(one).output(0)], [one]), tmp_path / "flat.xml")
    message = _refused(str(tmp_path / "flat.xml"))
    assert message.endswith(
        "expected a network with one input, a picture with three channels; its inputs are x [1,10]"
    )
    grey = op.parameter([1, 1, 32, 32], ov.Type.f32, name="x")
    ov.save_model(ov.Model([op.relu(grey).output(0)], [grey]), tmp_path / "grey.xml")
    assert "a picture with three channels" in _refused(str(tmp_path / "grey.xml"))
    wide = _saved(tmp_path / "wide.xml", lambda x: {"f": _pooled(x)}, shape=(1, 3, 32, 48))
    assert "expected a network for square pictures; it takes 32 x 48" in _refused(wide)
    eight = _saved(tmp_path / "eight.xml", lambda x: {"f": _pooled(x)}, shape=(8, 3, 32, 32))
    assert "expected a batch size of 1 or a free one; it is fixed at 8" in _refused(eight)


def test_outputs_that_cannot_be_told_apart(tmp_path: Path) -> None:
    path = _saved(tmp_path / "net.xml", lambda x: {"a": _pooled(x), "b": op.relu(_dense(_pooled(x), 3))})
    assert "expected one output, or one named feature_vector" in _refused(path)
    assert "its outputs are a (1, 8), b (1, 3)" in _refused(path)


def test_sizes_and_ranges_out_of_place(tmp_path: Path) -> None:
    path = _saved(tmp_path / "net.xml", lambda x: {"f": _pooled(x)})
    assert _refused(path, size_px=8) == "the input size must be 32 to 1024 px; got 8"
    assert _refused(path, range="0-1").startswith("unknown range of pixels '0-1'. Known: -1..1, 0..1, ")
    assert "leave --pixels out" in _refused("efficientnet-lite0", range="imagenet")
    weight = np.ones((512, 4), np.float32)

    def flattened(x: Any) -> dict[str, Any]:
        row = op.reshape(x, op.constant(np.array([0, 512])), True)
        return {"f": op.matmul(row, op.constant(weight), False, False)}

    flat = _saved(tmp_path / "flat.xml", flattened)
    assert load_module(flat).size_px == 32
    assert "it can't take pictures of 64 px" in _refused(flat, size_px=64)


@pytest.mark.parametrize("suffix", [".onnx", ".tflite", ".xml"])
@pytest.mark.parametrize("content", [b"", b"no network", bytes(500)], ids=["empty", "text", "zeros"])
def test_damaged_files(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    message = _refused(str(path))
    assert f"{path}: expected a network" in message
    assert "\n" not in message


def test_a_folder_that_openvino_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"not one")
    with pytest.raises(UnreadableError):
        read_graph(tmp_path)


def test_where_the_picture_goes_in(tmp_path: Path) -> None:
    first = read_graph(Path(_saved(tmp_path / "a.xml", lambda x: {"f": _pooled(x)})))
    found = find_image_input(first, name="a")
    assert (found.layout, found.size_px, found.takes_bytes, found.channel_axis) == ("NCHW", 32, False, 1)
    second = read_graph(Path(_saved(tmp_path / "b.xml", lambda x: {"f": _pooled(x)}, shape=(1, -1, -1, 3))))
    found = find_image_input(second, name="b")
    assert (found.layout, found.size_px, found.channel_axis) == ("NHWC", None, 3)
