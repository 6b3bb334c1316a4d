"""ONNX: one file, converted node by node from OpenVINO's graph, with the metadata in `metadata_props`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.errors import TopworkError
from topwork.exports.contents import HEAD, KEY, Contents
from topwork.exports.onnx.builder import OPSET, GraphBuilder, onnx_type
from topwork.exports.onnx.nodes import write_node
from topwork.exports.quantise import quantised
from topwork.graphs.fold import fold

if TYPE_CHECKING:
    import openvino as ov

IR = 9  # version of the file format for operator set 18
LARGE = 1000  # numbers; smaller constants are not converted
ANY_NUMBER = "N"

Array = np.ndarray[Any, np.dtype[Any]]


def write(graph: ov.Model, contents: Contents, path: Path, *, precision: str, pictures: Array) -> None:
    """Write the new file `path`, with operator set 18. The outputs are the graph's.

    The input is `image` uint8 (N, S, S, 3), or (1, S, S, 3) if the network mixes the batch axis with others (views),
    or (1, H, W, 3) if the graph includes the resizer. "fp16" stores large constants in 16 bits; they are converted
    to float32 when the file is loaded. "int8" computes convolutions in 8 bits, by NNCF's post-training quantisation
    on `pictures`, uint8 (M, S, S, 3); the head is not quantised.
    """
    import onnx

    model = _convert_for_any_number(graph)
    if precision == "int8":
        model = _quantised(model, pictures)
    elif precision == "fp16":
        _store_narrow(model)
    model.producer_name, model.producer_version = "topwork", version("topwork")
    onnx.helper.set_model_props(model, {KEY: contents.to_json(), "classes": "\n".join(contents.classes)})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def load(path: Path) -> Callable[[Array], dict[str, Array]]:
    """Load the file in ONNX Runtime: uint8 (1, H, W, 3) → outputs by name."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(image: Array) -> dict[str, Array]:
        return dict(zip(names, session.run(names, {"image": image}), strict=True))

    return run


def convert(graph: ov.Model) -> Any:
    """Convert an OpenVINO graph with named outputs to an `onnx.ModelProto`.

    Raises:
        TopworkError: an operator has no counterpart; the message names it.
    """
    from onnx import helper, numpy_helper

    graph = graph.clone()
    fold(graph, widen=False)
    builder = GraphBuilder()
    names: dict[tuple[str, int], str] = {}
    results = {_key(result.input_value(0)): output for result, output in _named(graph)}
    for number, node in enumerate(graph.get_ordered_ops()):
        kind = node.get_type_name()
        if kind == "Result":
            continue
        own = node.get_output_size()
        out = f"{node.get_friendly_name()}:{number}"
        if kind == "Parameter":
            out = "image"
        elif own == 1 and (node.get_name(), 0) in results:
            out = results[node.get_name(), 0]
        names |= {(node.get_name(), port): f"{out}_{port}" if port else out for port in range(own)}
        if kind == "Constant":
            builder.constant(_value(node), name=out)
        elif kind != "Parameter":
            write_node(node, [names[_key(value)] for value in node.input_values()], builder, out)
    for key, name in results.items():
        if names[key] != name:
            builder.add("Identity", [names[key]], out=name)
    used = {name for node in builder.nodes for name in node.input}
    constants = [numpy_helper.from_array(v, name) for name, v in builder.constants.items() if name in used]
    inputs = [_told(graph.inputs[0], "image")]
    outputs = [_told(output, output.any_name) for output in graph.outputs]
    made = helper.make_graph(builder.nodes, graph.get_friendly_name(), inputs, outputs, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


def _named(graph: ov.Model) -> Iterator[tuple[Any, str]]:
    for result, output in zip(graph.get_results(), graph.outputs, strict=True):
        yield result, output.any_name


def _key(value: Any) -> tuple[str, int]:
    return value.get_node().get_name(), value.get_index()


def _value(node: Any) -> Array:
    return np.array(node.data)


def _told(port: Any, name: str) -> Any:
    from onnx import helper

    shape = list(port.get_partial_shape())
    sides = [
        size.get_length() if size.is_static else (ANY_NUMBER if i == 0 else "HW"[i - 1])
        for i, size in enumerate(shape)
    ]
    return helper.make_tensor_value_info(name, onnx_type(port.get_element_type()), sides)


def _convert_for_any_number(graph: ov.Model) -> Any:
    """Convert with a free batch size if possible. Computing shapes may need an operator that a fixed one doesn't."""
    free = _for_any_number(graph)
    try:
        return convert(free)
    except TopworkError:
        if free is graph:
            raise
        return convert(graph)


def _for_any_number(graph: ov.Model) -> ov.Model:
    """The graph with a free batch size, if a batch of two gives the same outputs as each picture alone."""
    import openvino as ov

    port = graph.inputs[0]
    if port.get_partial_shape().is_dynamic:
        return graph
    sides = list(port.shape)[1:]
    several = graph.clone()
    pictures = np.random.default_rng(0).integers(0, 256, (2, *sides)).astype(port.element_type.to_dtype())
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    try:
        several.reshape(ov.PartialShape([-1, *sides]))
        together = ov.Core().compile_model(several, "CPU", exact)(pictures)
    except RuntimeError:
        return graph
    alone = ov.Core().compile_model(graph, "CPU", exact)
    found = [alone(picture[None]).to_tuple() for picture in pictures]
    for number, value in enumerate(together.to_tuple()):
        expected = np.concatenate([outputs[number] for outputs in found])
        if value.shape != expected.shape or not np.allclose(value, expected, rtol=1e-3, atol=1e-4):
            return graph
    return several


def _store_narrow(model: Any) -> None:
    """Store large constants, except the head's, in 16 bits, followed by a cast."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype != np.float32 or value.size < LARGE or tensor.name.startswith(HEAD):
            continue
        wide, narrow = tensor.name, f"{tensor.name}/16"
        tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float16), narrow))
        casts.append(helper.make_node("Cast", [narrow], [wide], name=f"{wide}/cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _quantised(model: Any, pictures: Array) -> Any:
    _fold_casts(model)
    results = {output.name for output in model.graph.output}
    kept = [
        node.name for node in model.graph.node if node.name.startswith(HEAD) or set(node.output) & results
    ]
    return quantised(model, [{"image": picture[None]} for picture in pictures], kept=kept)


def _fold_casts(model: Any) -> None:
    """Replace casts of constants by constants of that type; NNCF can't handle such casts."""
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in [n for n in model.graph.node if n.op_type == "Cast" and n.input[0] in constants]:
        kind = helper.tensor_dtype_to_np_dtype(node.attribute[0].i)
        value = numpy_helper.to_array(constants[node.input[0]]).astype(kind)
        model.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        model.graph.node.remove(node)
