"""Transformers from ONNX files: their layout, their tokens as features, and their stages, against NumPy."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from openvino import opset13 as op

from exact import in_f32
from onnx_transformer import BLOCKS, COUNT, SIZE_PX, WIDTH, in_numpy, write_onnx
from photos import write_shapes
from topwork.backbones.backbone import LAST, load_backbone
from topwork.backbones.module import Module, load_module
from topwork.errors import InputError
from topwork.graphs.read import find_image_input, read_graph
from topwork.graphs.tokens import before_patches, pooled
from topwork.images.framing import Framing
from topwork.jobs.train import train
from topwork.recipe import BackboneRecipe, Pool, Recipe

Array = np.ndarray[Any, Any]


def picture() -> Array:
    return np.random.default_rng(1).integers(0, 256, (SIZE_PX, SIZE_PX, 3)).astype(np.uint8)


def pixels_of(image: Array) -> Array:
    """As `--pixels=-1..1` has it: (3, S, S)."""
    return (image / np.float32(127.5) - 1).transpose(2, 0, 1)


def loaded(path: Path, **more: Any) -> Module:
    return load_module(str(path), **({"size_px": SIZE_PX, "range": "-1..1"} | more))


def outputs(module: Module) -> dict[str, Array]:
    made = in_f32(module.graph)(picture()[None])
    return {name: np.array(made[name]) for name in (*module.stages, "last")}


def assert_close(made: Array, expected: Array, share: float = 1e-5) -> None:
    assert made.shape == expected.shape
    assert np.abs(made - expected).max() <= share * np.abs(expected).max()


# --- which tokens are patches -------------------------------------------------------------------------------


@given(side=st.integers(2, 60), before=st.sampled_from([0, 1, 5]))
def test_what_stands_before_a_square(side: int, before: int) -> None:
    """Class tokens alone or with four registers are as usual; only where a square is one, too, is it in doubt."""
    found = before_patches(side * side + before)
    assert found is not None
    assert math.isqrt(side * side + before - found) ** 2 == side * side + before - found
    if side > 3:
        assert found == before


KNOWN = {197: 1, 198: 2, 201: 5, 196: 0, 257: 1, 261: 5, 50: 1, 5: 1, 4: 0, 13: 4, 3: None, 1: None, 60: None}


@pytest.mark.parametrize(("count", "before"), KNOWN.items())
def test_counts_of_known_networks(count: int, before: int | None) -> None:
    """ViT at 224 px has 196 and a class token; DeiT a distillation token, DINOv3 four registers besides."""
    assert before_patches(count) == before


@pytest.mark.parametrize(
    ("pool", "expected", "words"),
    [
        ("auto", lambda t: t[0], "the class token"),
        ("cls", lambda t: t[0], "the class token"),
        ("mean", lambda t: t[1:].mean(0), "the mean of its patches"),
        ("cls+mean", lambda t: np.r_[t[0], t[1:].mean(0)], "the class token and the mean of its patches"),
    ],
)
def test_pooled_tokens(pool: Pool, expected: Any, words: str) -> None:
    tokens = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    x = op.parameter([1, 10, 4], ov.Type.f32)
    made, how = pooled(x.output(0), pool, "net")
    assert how == words
    found = in_f32(ov.Model([made], [x], "tokens"))(tokens[None])[0]
    assert_close(found[0], expected(tokens).astype(np.float32))


@pytest.mark.parametrize(
    ("count", "pool", "message"),
    [
        (10, "pooler", "net: it has no pooler of its own; --pool mean or cls"),
        (16, "pooler", "net: it has no pooler of its own; --pool mean"),
        (16, "cls", "net: it has no class token; --pool mean"),
        (16, "cls+mean", "net: it has no class token; --pool mean"),
        (60, "cls", "net: it has no class token; --pool mean"),
    ],
)
def test_pools_that_it_has_not(count: int, pool: Pool, message: str) -> None:
    x = op.parameter([1, count, 4], ov.Type.f32)
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        pooled(x.output(0), pool, "net")


# --- ONNX files ---------------------------------------------------------------------------------------------


def test_the_layout_of_free_axes_is_that_of_the_first_convolution(tmp_path: Path) -> None:
    entry = find_image_input(read_graph(write_onnx(tmp_path / "net.onnx")), name="net")
    assert (entry.layout, entry.size_px) == ("NCHW", None)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_free_axes_before_a_turn(layout: str) -> None:
    """TensorFlow's files turn channels first for their convolutions."""
    x = op.parameter(ov.PartialShape([-1, -1, -1, -1]), ov.Type.f32)
    turned = op.transpose(x, op.constant(np.array([0, 3, 1, 2]))) if layout == "NHWC" else op.relu(x)
    kernel = op.constant(np.ones((4, 3, 3, 3), np.float32))
    graph = ov.Model([op.convolution(turned, kernel, [1, 1], [0, 0], [0, 0], [1, 1])], [x], "net")
    assert find_image_input(graph, name="net").layout == layout


def test_free_axes_without_a_convolution_are_tensorflows() -> None:
    x = op.parameter(ov.PartialShape([-1] * 4), ov.Type.f32)
    assert find_image_input(ov.Model([op.relu(x)], [x], "net"), name="net").layout == "NHWC"


def test_a_pooler_with_tanh_is_not_preferred_to_the_class_token(tmp_path: Path) -> None:
    """BERT's pooler, which few checkpoints of vision transformers train."""
    after, _ = in_numpy(pixels_of(picture()))
    module = loaded(write_onnx(tmp_path / "net.onnx"))
    assert_close(outputs(module)["last"][0], after[-1][0])
    assert "its features are the class token" in module.notes


def test_a_pooler_without_tanh_is_preferred(tmp_path: Path) -> None:
    _, pooler = in_numpy(pixels_of(picture()))
    module = loaded(write_onnx(tmp_path / "net.onnx", tanh=False))
    assert_close(outputs(module)["last"][0], pooler)
    assert not any("its features are" in note for note in module.notes)


@pytest.mark.parametrize("tanh", [True, False])
@pytest.mark.parametrize("pool", ["cls", "mean", "cls+mean", "pooler"])
def test_a_pool_that_is_asked_for(tanh: bool, pool: Pool, tmp_path: Path) -> None:
    after, pooler = in_numpy(pixels_of(picture()))
    tokens = after[-1]
    expected = {
        "cls": tokens[0],
        "mean": tokens[1:].mean(0),
        "cls+mean": np.r_[tokens[0], tokens[1:].mean(0)],
        "pooler": np.tanh(pooler) if tanh else pooler,
    }[pool]
    module = loaded(write_onnx(tmp_path / "net.onnx", tanh=tanh), pool=pool)
    assert_close(outputs(module)["last"][0], expected)


@pytest.mark.parametrize(
    ("before", "expected"), [(1, lambda t: t[0]), (5, lambda t: t[0]), (0, lambda t: t.mean(0))]
)
def test_tokens_alone(before: int, expected: Any, tmp_path: Path) -> None:
    after, _ = in_numpy(pixels_of(picture()), before)
    module = loaded(write_onnx(tmp_path / "net.onnx", before=before, outputs=["last_hidden_state"]))
    assert_close(outputs(module)["last"][0], expected(after[-1]))


@pytest.mark.parametrize("before", [0, 1, 5])
def test_each_block_is_a_stage_of_its_patches(before: int, tmp_path: Path) -> None:
    after, _ = in_numpy(pixels_of(picture()), before)
    module = loaded(write_onnx(tmp_path / "net.onnx", before=before))
    assert module.signed
    assert module.stages == tuple(f"stage{n + 1}" for n in range(BLOCKS))
    made = outputs(module)
    for stage, tokens in zip(module.stages, after, strict=True):
        assert tokens.shape == (COUNT + before, WIDTH)
        assert_close(made[stage][0], tokens[before:].mean(0))


def test_a_vector_can_not_be_pooled_otherwise(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "net.onnx", outputs=["pooler_output"])
    with pytest.raises(
        InputError, match=re.escape("its output is no row of tokens, so it can't be pooled otherwise;")
    ):
        loaded(path, pool="mean")
    assert outputs(loaded(path, pool="pooler"))["last"].shape == (1, WIDTH)


def test_a_network_of_words_and_pictures_is_refused_with_the_file_to_take(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "net.onnx", text=True)
    message = (
        f"{path}: it takes input_ids [?,?], pixel_values [?,?,?,?]: a network for pictures and text in one; take the "
        "file of its tower for pictures alone, such as onnx/vision_model.onnx"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        loaded(path)


def test_a_size_that_its_positions_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"it can't take pictures of 64 px \(.*\); omit --size, or try a multiple"
    ):
        loaded(write_onnx(tmp_path / "net.onnx"), size_px=64)


# --- half precision -----------------------------------------------------------------------------------------


def test_features_of_half_precision_are_float32(tmp_path: Path) -> None:
    after, _ = in_numpy(pixels_of(picture()))
    module = loaded(write_onnx(tmp_path / "net.onnx", half=True))
    made = outputs(module)
    assert {output.get_element_type() for output in module.graph.outputs} == {ov.Type.f32}
    assert_close(made["last"][0], after[-1][0], 5e-3)
    for stage, tokens in zip(module.stages, after, strict=True):
        assert_close(made[stage][0], tokens[1:].mean(0), 5e-3)


def test_a_network_in_half_precision_trains(tmp_path: Path) -> None:
    photos = write_shapes(tmp_path / "photos", 8)
    path = write_onnx(tmp_path / "net.onnx", half=True)
    recipe = Recipe(backbone=BackboneRecipe(str(path), size_px=SIZE_PX, pixels="-1..1", precision="f32"))
    run = train(photos, tmp_path / "run", recipe=recipe)
    assert run.classifier.backbone.facts.width == (BLOCKS + 1) * WIDTH
    assert 0 <= run.test.accuracy <= 1
    again = run.classifier.predict([str(photos / "circle" / "000.png")])
    assert len(list(again)) == 1


# --- what lies one folder above -----------------------------------------------------------------------------


def test_what_the_folder_above_onnx_states_is_followed(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "onnx" / "model.onnx")
    stated = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": SIZE_PX, "width": SIZE_PX},
        "resample": 3,
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.3, 0.4],
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    module = load_module(str(path))
    assert (module.size_px, module.framing, module.license) == (SIZE_PX, Framing("stretch", "bicubic"), "mit")
    assert module.pixels.range == "mean 0.4 0.5 0.6, deviation 0.2 0.3 0.4"
    assert module.assumed == ()
    image = picture()
    mean, deviation = np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.3, 0.4])
    after, _ = in_numpy(((image / np.float32(255) - mean) / deviation).transpose(2, 0, 1))
    assert_close(outputs(module)["last"][0], after[-1][0])
    backbone = load_backbone(str(path), precision="f32")
    features = np.array(in_f32(backbone.graph)(image[None])[0])
    assert_close(features[0, backbone.facts.columns((LAST,))], after[-1][0])
    # a folder of another name has nothing to do with what lies above it
    other = load_module(
        str(path.rename(tmp_path / "onnx" / "other.onnx").rename(tmp_path.parent / "moved.onnx")),
        size_px=SIZE_PX,
    )
    assert other.framing is None
    assert other.pixels.how == "assumed"


def test_the_classifier_of_a_quantised_file_is_taken_off(tmp_path: Path) -> None:
    """As onnxruntime's `quantize_dynamic` writes it: whole numbers around the last dense layer."""
    quantization = pytest.importorskip("onnxruntime.quantization", exc_type=ImportError)
    random = np.random.default_rng(0)
    kernel, weight = random.standard_normal((16, 3, 4, 4)), random.standard_normal((16, 1000))
    nodes = [
        helper.make_node("Conv", ["pixels", "kernel"], ["map"], strides=[4, 4]),
        helper.make_node("Clip", ["map", "low", "high"], ["clipped"]),
        helper.make_node("GlobalAveragePool", ["clipped"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["row"]),
        helper.make_node("MatMul", ["row", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["out"]),
    ]
    values = {"kernel": kernel, "weight": weight, "bias": random.standard_normal(1000), "low": 0, "high": 6}
    held = [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in values.items()]
    shapes = ([1, 3, 32, 32], [1, 1000])
    info = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in zip(("pixels", "out"), shapes, strict=True)
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "net", info[:1], info[1:], held), opset_imports=[helper.make_opsetid("", 13)]
    )
    onnx.save(model, tmp_path / "whole.onnx")
    quantization.quantize_dynamic(
        tmp_path / "whole.onnx", tmp_path / "quantised.onnx", op_types_to_quantize=["MatMul"]
    )
    whole, quantised = (load_module(str(tmp_path / f"{n}.onnx")) for n in ("whole", "quantised"))
    picture = random.integers(0, 256, (1, 32, 32, 3), np.uint8)
    expected, made = (in_f32(m.graph)({0: picture})["last"] for m in (whole, quantised))
    assert made.shape == (1, 16)
    np.testing.assert_allclose(made, expected, rtol=1e-5)  # what the classifier saw before it was rounded
    assert "the classifier of 1000 classes was taken off" in quantised.notes


@pytest.mark.parametrize(("width", "doubted"), [(10, True), (128, False)])
def test_few_outputs_of_a_dense_layer_are_doubted(width: int, doubted: bool, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = {"kernel": random.standard_normal((16, 3, 4, 4)), "weight": random.standard_normal((16, width))}
    nodes = [
        helper.make_node("Conv", ["pixels", "kernel"], ["map"], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["row"]),
        helper.make_node("Gemm", ["row", "weight"], ["out"]),
    ]
    held = [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in values.items()]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("pixels", [1, 3, 32, 32]), ("out", [1, width]))
    ]
    onnx.save(helper.make_model(helper.make_graph(nodes, "net", *ends, held)), tmp_path / "net.onnx")
    notes = load_module(str(tmp_path / "net.onnx")).assumed
    said = f"its {width} outputs come from a dense layer and may be class scores rather than features"
    assert any(note.startswith(said) for note in notes) == doubted
