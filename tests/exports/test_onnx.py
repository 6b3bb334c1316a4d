"""Graphs as ONNX: every operator gives in ONNX Runtime what it gives in OpenVINO; whole classifiers do, too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from openvino import opset13 as op

from small_graphs import (
    CONVOLUTIONS,
    EACH,
    GROUPS,
    POOLS,
    Array,
    Body,
    graph_of,
    ints,
    normal,
    pooled,
    run_graph,
)
from topwork.cli.text.export import exported_text
from topwork.errors import TopworkError
from topwork.exports.onnx.file import convert
from topwork.jobs.export import export
from topwork.jobs.train import Run


def _run(model: Any, images: Array) -> Array:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate(
        [np.atleast_1d(session.run(["features"], {"image": image[None]})[0]) for image in images]
    )


def _agrees(body: Body, *, offset: float = 0.0) -> None:
    graph = graph_of(body)
    images = normal(2, 8, 7, 6) + np.float32(offset)
    found, expected = _run(convert(graph), images), run_graph(graph, images)
    assert found.shape == expected.shape
    np.testing.assert_allclose(
        found, expected, atol=1e-5 * max(1.0, float(np.abs(expected).max())), rtol=1e-4
    )


@pytest.mark.parametrize("name", [*CONVOLUTIONS, *GROUPS])
def test_convolution(name: str) -> None:
    _agrees((CONVOLUTIONS | GROUPS)[name])


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("name", POOLS)
def test_pooling(name: str, exclude: bool) -> None:
    _agrees(pooled("average", **POOLS[name], exclude=exclude), offset=1)
    _agrees(pooled("max", **POOLS[name]), offset=-5)


@pytest.mark.parametrize("name", sorted(EACH.keys() - {"pad by mirror"}))
def test_operator(name: str) -> None:
    _agrees(EACH[name])


MORE: dict[str, Body] = {
    "split": lambda x: op.concat(list(reversed(op.split(x, op.constant(np.int64(1)), 4).outputs())), 1),
    "uneven split": lambda x: op.concat(
        list(reversed(op.variadic_split(x, op.constant(np.int64(3)), ints(1, 3, 2)).outputs())), 3
    ),
    "cut by masks": lambda x: op.strided_slice(
        x, ints(9, 3, 0, 2), ints(0, 4, 9, 9), ints(1, 1, 2, 1), [1, 0, 1, 0], [1, 0, 1, 0], [0] * 4, [0, 1, 0, 0]
    ),
    "cut, with a new axis": lambda x: op.strided_slice(
        x, ints(0, 0, -1), ints(0, 0, -9), ints(1, 1, -2), [1, 1, 0], [1, 1, 0], [0, 1, 0], [0] * 3
    ),
    "cut behind an ellipsis": lambda x: op.strided_slice(
        x, ints(0, -1), ints(0, 0), ints(1, 1), [0, 0], [0, 0], [0, 0], [0, 1], [1, 0]
    ),
    "softplus": op.softplus,
    "mish": op.mish,
    "einsum": lambda x: op.einsum([x, op.constant(normal(8, 5))], "bchw,cd->bdhw"),
    "select": lambda x: op.select(op.greater(x, op.constant(np.float32(0))), x, op.floor(x)),
}  # fmt: skip


@pytest.mark.parametrize("name", MORE)
def test_operators_that_are_not_trained(name: str) -> None:
    _agrees(MORE[name])


def test_what_has_no_counterpart_is_named() -> None:
    mirrored = graph_of(EACH["pad by mirror"])
    with pytest.raises(TopworkError, match=r"Pad .* can't be written as ONNX: its mode is 'symmetric'; use"):
        convert(mirrored)
    unknown = graph_of(lambda x: op.cum_sum(x, op.constant(np.int64(1))))
    with pytest.raises(TopworkError, match=r"CumSum .* the operator is not supported; use --format openvino"):
        convert(unknown)


@pytest.mark.slow
@pytest.mark.parametrize("input", ["sized", "any"])
def test_a_classifier(run: Run, tmp_path: Path, input: str) -> None:
    exported = export(run.path, tmp_path / "out", format="onnx", input=input)  # type: ignore[arg-type]
    assert exported.path.name == "out.onnx"
    assert exported.parity is not None
    assert exported.parity.gap < (1e-3 if input == "sized" else 0.02)
    model = onnx.load(exported.path)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(told["topwork"])["input"] == input
    assert told["classes"].splitlines() == list(run.classifier.classes)
    assert {entry.domain for entry in model.opset_import} == {""}
    if input == "sized":
        session = onnxruntime.InferenceSession(exported.path)
        assert session.get_inputs()[0].shape == ["N", 32, 32, 3]
        several = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
        alone = np.concatenate([session.run(["probabilities"], {"image": p[None]})[0] for p in several])
        np.testing.assert_allclose(session.run(["probabilities"], {"image": several})[0], alone, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "input", "share"), [("fp16", "sized", 0.6), ("int8", "sized", 0.4), ("int8", "any", 0.4)]
)
def test_smaller_numbers(run: Run, tmp_path: Path, precision: str, input: str, share: float) -> None:
    exported = export(run.path, tmp_path / "out.onnx", format="onnx", precision=precision, input=input)  # type: ignore[arg-type]
    parity = exported.parity
    assert parity is not None
    assert parity.holds
    assert exported.path.stat().st_size < share * (run.path / "model.bin").stat().st_size
    model = onnx.load(exported.path)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    kernels = {made_by.get(node.input[1]) for node in convolutions}
    assert (kernels == {"DequantizeLinear"}) is (precision == "int8")
    whole = [node for node in convolutions if {a.name: a.i for a in node.attribute}["group"] == 1]
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    narrowed = {name: node.input[0] for node in model.graph.node for name in node.output}
    for node in whole if precision == "int8" else []:
        kernel = stored[narrowed[node.input[1]]].astype(int)
        assert np.abs(kernel).max() <= 64  # pairs of products overflow else, on some processors
    others = {
        made_by.get(name) for node in model.graph.node if node.op_type == "MatMul" for name in node.input
    }
    assert "DequantizeLinear" not in others  # neither the head nor the resizer
    low, high = parity.interval
    assert low <= parity.change <= high
    assert parity.change == pytest.approx(parity.accuracy_exported - parity.accuracy)
    cost = re.search(
        r"accuracy on them ([+-]\S+) points \(95 % ([+-]\S+) to ([+-]\S+)\)", exported_text(exported)
    )
    assert (cost is not None) is (precision == "int8")
    if cost is not None:
        assert [float(n) for n in cost.groups()] == pytest.approx(
            [100 * n for n in (parity.change, low, high)], abs=0.06
        )


def test_a_shape_whose_computation_has_no_counterpart_is_that_of_one_picture() -> None:
    from topwork.exports.onnx.file import _convert_for_any_number

    def body(x: Any) -> Any:
        shape = op.scatter_update(op.shape_of(x), ints(1), ints(336), op.constant(np.int64(0)))
        return op.reshape(x, op.slice(shape, ints(0), ints(2), ints(1)), False)

    graph = graph_of(body, batch=-1)
    graph.reshape([1, 8, 7, 6])
    model = _convert_for_any_number(graph)
    assert [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim] == [1, 8, 7, 6]
    np.testing.assert_array_equal(_run(model, normal(2, 8, 7, 6)), normal(2, 8, 7, 6).reshape(2, 336))


def test_a_network_that_mixes_pictures_takes_one_at_a_time() -> None:
    from topwork.exports.onnx.file import _for_any_number

    single = graph_of(lambda x: op.reduce_mean(x, ints(2, 3), False))
    assert _for_any_number(single).inputs[0].get_partial_shape()[0].is_dynamic
    for body in (
        lambda x: op.reshape(x, ints(1, 8, 42), False),
        lambda x: op.reshape(x, ints(8, 42), False),
        lambda x: op.concat([x, op.constant(normal(1, 8, 7, 6))], 1),
        lambda x: op.softmax(x, 0),
    ):
        assert _for_any_number(graph_of(body)).inputs[0].get_partial_shape().is_static, body
