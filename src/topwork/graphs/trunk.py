"""Find a network's trunk: its feature vector before the classifier, and its intermediate stages.

A published network may end in a feature vector, a feature map, or class scores. `find_trunk` returns a graph with the
outputs `last`, its features, and `stage1`, `stage2` …: the rectified activations after its spatial convolutions.
Their averages give a head information on texture and edges that the last layer no longer has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.errors import InputError
from topwork.graphs import tokens
from topwork.recipe import Pool

if TYPE_CHECKING:
    import openvino as ov

LAST = "last"
CLASS_COUNTS = {
    1000,
    1001,
    21841,
    21842,
    21843,
    22000,
}  # ImageNet-1k, -21k and -22k, with and without "background"
FEATURE_NAMES = (
    "feature_vector",
    "features",
    "pooler_output",
    "image_embeds",
    "default",
    "embedding",
    "output_0",
)
SCORE_NAMES = ("logits", "prob", "softmax", "predictions", "classes", "scores")
RECTIFIED = ("Relu", "Sigmoid", "Softmax", "HSigmoid")
ACTIVATIONS = (*RECTIFIED, "Clamp", "Swish", "HSwish", "Gelu", "Elu", "Mish", "PRelu")
FEW = 64  # outputs of a dense layer, which then may be a classifier's
SCALES = ("Divide", "Multiply")  # by one number, before it is rounded
QUANTISING = ("Subtract", "Convert", "Clamp", "Add", "Round", "Divide", "Multiply", "FakeQuantize")
MOST_STAGES = 64


@dataclass(frozen=True, slots=True, eq=False)
class Trunk:
    """A network without its classifier."""

    graph: (
        ov.Model
    )  # image → `last` (1, D) and the stages: (1, C, H, W), non-negative; of a transformer (1, C)
    stages: tuple[str, ...]  # the names of their outputs
    rectified: bool  # whether `last` is non-negative too
    cut: str  # a description of what was removed; empty if nothing was
    signed: bool = False  # whether stages may be negative
    pooled: str = ""  # how tokens became features, in words
    doubt: str = ""  # why its output may be no features, a sentence


def find_trunk(graph: ov.Model, *, name: str, pool: Pool = "auto") -> Trunk:
    """Reduce a network (as returned by `read.dress`) to its features. `graph` is consumed.

    Args:
        pool: how a transformer's tokens become features; "auto" for its own pooler if that was trained, else the
            class token, else the mean.

    Raises:
        InputError: it has several outputs and none can be chosen, or its output is neither a vector nor a map.
    """
    import openvino as ov
    from openvino import opset13 as op

    output = _choose_output(graph, name, pool)
    scores = any(part in word.lower() for word in output.get_names() for part in SCORE_NAMES)
    source = output.get_node().input_value(0)
    before = _before_classifier(source, named_scores=scores)
    cut = "" if before is None else f"the classifier of {before[1]} classes"
    source, pooled = _as_vector(source if before is None else before[0], name, pool)
    if not pooled and pool != "auto" and pool != "pooler":
        raise InputError(
            f"{name}: its output is no row of tokens, so it can't be pooled otherwise; leave --pool out"
        )
    rectified = _is_rectified(source)
    outputs: list[Any] = []
    names: list[str] = []
    for node in _stages(source.get_node()):
        stage = node if _is_nonnegative(node) else op.relu(node)
        names.append(f"stage{len(names) + 1}")
        outputs.append(_in_f32(stage.output(0)))
        outputs[-1].set_names({names[-1]})
    signed = not names
    for averages in tokens.stages(source.get_node()) if signed else ():
        names.append(f"stage{len(names) + 1}")
        outputs.append(_in_f32(averages))
        outputs[-1].set_names({names[-1]})
    end = _in_f32(source)
    end.set_names({LAST})
    whole = ov.Model([*outputs, end], graph.get_parameters(), name)
    doubt = "" if cut else _doubt(end)
    return Trunk(whole, tuple(names), rectified, cut, signed and bool(names), pooled, doubt)


def _doubt(output: Any) -> str:
    """Few numbers from a dense layer may be a small classifier's scores, which nothing tells."""
    node = output.get_node()
    while node.get_type_name() in ("Sigmoid", "Add", "Convert", "Reshape", "Squeeze", "Tanh"):
        sides = [value.get_node() for value in node.input_values() if not _is_constant(value.get_node())]
        if len(sides) != 1:
            return ""
        node = sides[0]
    width = int(output.shape[-1])
    if width > FEW or node.get_type_name() != "MatMul":
        return ""
    return (
        f"its {width} outputs come from a dense layer and may be class scores rather than features: if so, export it "
        "without its last layer, or name its output 'logits'"
    )


def _in_f32(output: Any) -> Any:
    """A value as float32: a network in half precision gives half precision."""
    import openvino as ov
    from openvino import opset13 as op

    if output.get_element_type() == ov.Type.f32:
        return output
    return op.convert(output, ov.Type.f32).output(0)


def _choose_output(graph: ov.Model, name: str, pool: Pool) -> Any:
    outputs = [o for o in graph.outputs if o.get_element_type().is_real() and len(o.shape) in (2, 3, 4)]
    if len(outputs) == 1:
        return outputs[0]
    rows = [o for o in outputs if len(o.shape) == 3]
    own = pool == "pooler" or (pool == "auto" and not _untrained_pooler(outputs))
    if len(rows) == 1 and not own:
        return rows[0]
    for wanted in FEATURE_NAMES:
        for output in outputs:
            if wanted in {word.split(":")[0] for word in output.get_names()}:
                return output
    vectors = [o for o in outputs if len(_core(o.shape)) == 1]
    if len(vectors) == 1:
        return vectors[0]
    told = ", ".join(f"{'/'.join(sorted(o.get_names()))} {tuple(o.shape)}" for o in graph.outputs)
    raise InputError(
        f"{name}: expected one output, or one named {', '.join(FEATURE_NAMES)}; its outputs are {told}; export it "
        "with one output"
    )


def _before_classifier(source: Any, *, named_scores: bool) -> tuple[Any, int] | None:
    """The input of the last dense layer and its number of classes, if that layer computes class scores."""
    node, certain = source.get_node(), named_scores
    while node.get_type_name() in ("Softmax", "Sigmoid", "Reshape", "Squeeze", "Convert", "LogSoftmax"):
        certain = certain or node.get_type_name() in ("Softmax", "LogSoftmax")
        node = node.input_value(0).get_node()
    if node.get_type_name() == "Add":
        sides = [node.input_value(i).get_node() for i in range(2)]
        bias = [_is_constant(side) for side in sides]
        if sum(bias) != 1:
            return None
        node = sides[bias.index(False)]
        while node.get_type_name() in ("Reshape", "Squeeze"):
            node = node.input_value(0).get_node()
    node = _scaled(node)
    kind = node.get_type_name()
    if kind not in ("MatMul", "Convolution") or not _is_constant(node.input_value(1).get_node()):
        return None
    shape = tuple(node.output(0).shape)
    classes = _core(shape)
    if len(classes) != 1 or (kind == "Convolution" and tuple(node.input_value(0).shape[2:]) != (1, 1)):
        return None
    if not certain and classes[0] not in CLASS_COUNTS:
        return None
    return _before_quantising(node.input_value(0)), classes[0]


def _scaled(node: Any) -> Any:
    """Of a quantised layer, which is converted and multiplied by one number, the layer; else the node itself."""
    at = node
    while at.get_type_name() in ("Multiply", "Convert"):
        sides = [value for value in at.input_values() if len(_core(value.shape))]
        if len(sides) != 1:
            return node
        at = sides[0].get_node()
    return at if at.get_type_name() in ("MatMul", "Convolution") else node


def _before_quantising(value: Any) -> Any:
    """The floats that a layer's input was made whole numbers of; the value itself if it isn't quantised."""
    at, rounded = value, False
    while (kind := at.get_node().get_type_name()) in (SCALES if rounded else QUANTISING):
        sides = [one for one in at.get_node().input_values() if len(_core(one.shape))]
        if len(sides) != 1:
            break
        at, rounded = sides[0], rounded or kind in ("Round", "FakeQuantize")
    return at if rounded else value


def _untrained_pooler(outputs: list[Any]) -> bool:
    """Whether there is a pooler as BERT has it, a dense layer and tanh on the class token: it is rarely trained."""
    for output in outputs:
        if "pooler_output" in output.get_names():
            return bool(output.get_node().input_value(0).get_node().get_type_name() == "Tanh")
    return False


def _as_vector(source: Any, name: str, pool: Pool) -> tuple[Any, str]:
    """The features as a vector (1, D), and how tokens became it, in words. A map is averaged over its pixels."""
    from openvino import opset13 as op

    shape = tuple(source.shape)
    if len(shape) == 2:
        return source, ""
    if len(shape) == 4:
        node = source.get_node()
        channels_last = False
        if node.get_type_name() == "Transpose":
            order = [int(i) for i in node.input_value(1).get_node().data.ravel()]
            if order == [0, 2, 3, 1]:
                source, shape = node.input_value(0), tuple(node.input_value(0).shape)
        elif shape[1] == shape[2] != shape[3]:
            channels_last = True
        axes = [1, 2] if channels_last else [2, 3]
        return op.reduce_mean(source, op.constant(np.array(axes)), False).output(0), ""
    if len(shape) == 3:
        return tokens.pooled(source, pool, name)
    raise InputError(
        f"{name}: expected features as a vector, a map or tokens; the shape of its output is {shape}"
    )


def _stages(last: Any) -> list[Any]:
    """The activations after spatial convolutions, in order; after depthwise convolutions only, if there are any."""
    found: dict[str, list[Any]] = {"GroupConvolution": [], "Convolution": []}
    for node in _ancestors(last):
        kind = node.get_type_name()
        if kind not in found or max(node.input_value(1).shape[-2:]) < 2 or len(node.output(0).shape) != 4:
            continue
        after = _only_target(node)
        if after is not None and after.get_type_name() == "Add":
            after = _only_target(after)
        while (
            after is not None
            and after.get_type_name() == "Multiply"
            and _is_constant(after.input_value(1).get_node())
        ):
            after = _only_target(after)
        if after is None or after.get_type_name() not in ACTIVATIONS:
            # Skipped: no activation, or one written out, which uses its input twice: x · sigmoid(x).
            continue
        found[kind].append(after)
    stages = found["GroupConvolution"] or found["Convolution"]
    if len(stages) > MOST_STAGES:  # evenly spaced over the depth
        stages = [stages[i] for i in np.linspace(0, len(stages) - 1, MOST_STAGES).round().astype(int)]
    return stages


def _ancestors(last: Any) -> Iterator[Any]:
    """All nodes that `last` depends on, in order of computation."""
    seen: set[str] = set()
    stack: list[tuple[Any, bool]] = [(last, False)]
    while stack:
        node, done = stack.pop()
        if done:
            yield node
            continue
        if node.get_name() in seen:
            continue
        seen.add(node.get_name())
        stack.append((node, True))
        stack.extend((value.get_node(), False) for value in reversed(node.input_values()))


def _only_target(node: Any) -> Any | None:
    targets = node.output(0).get_target_inputs()
    return next(iter(targets)).get_node() if len(targets) == 1 else None


def _is_rectified(source: Any) -> bool:
    """Whether a vector is non-negative: an average of rectified activations."""
    node = source.get_node()
    while node.get_type_name() in (
        "ReduceMean",
        "AvgPool",
        "MaxPool",
        "Reshape",
        "Squeeze",
        "Transpose",
        "Gather",
    ):
        node = node.input_value(0).get_node()
    return _is_nonnegative(node)


def _is_nonnegative(node: Any) -> bool:
    kind = node.get_type_name()
    return kind in RECTIFIED or (kind == "Clamp" and float(node.get_attributes()["min"]) >= 0)


def _is_constant(node: Any) -> bool:
    """Whether it is a constant, also one that is stored in half precision or quantised."""
    if node.get_type_name() in ("Convert", "Reshape", "Transpose", "Multiply", "Subtract", "FakeQuantize"):
        return all(_is_constant(value.get_node()) for value in node.input_values())
    return bool(node.get_type_name() == "Constant")


def _core(shape: Any) -> list[int]:
    """The dimensions other than 1."""
    return [int(side) for side in tuple(shape) if side != 1]
