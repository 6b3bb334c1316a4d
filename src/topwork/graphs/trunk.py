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
MOST_STAGES = 64


@dataclass(frozen=True, slots=True, eq=False)
class Trunk:
    """A network without its classifier."""

    graph: ov.Model  # image → `last` (1, D) and the stages, (1, C, H, W), non-negative
    stages: tuple[str, ...]  # the names of their outputs
    rectified: bool  # whether `last` is non-negative too
    cut: str  # a description of what was removed; empty if nothing was


def find_trunk(graph: ov.Model, *, name: str) -> Trunk:
    """Reduce a network (as returned by `read.dress`) to its features. `graph` is consumed.

    Raises:
        InputError: it has several outputs and none can be chosen, or its output is neither a vector nor a map.
    """
    import openvino as ov
    from openvino import opset13 as op

    output = _choose_output(graph, name)
    scores = any(part in word.lower() for word in output.get_names() for part in SCORE_NAMES)
    source = output.get_node().input_value(0)
    before = _before_classifier(source, named_scores=scores)
    cut = "" if before is None else f"the classifier of {before[1]} classes"
    source = _as_vector(source if before is None else before[0], name)
    rectified = _is_rectified(source)
    outputs: list[Any] = []
    names: list[str] = []
    for node in _stages(source.get_node()):
        stage = node if _is_nonnegative(node) else op.relu(node)
        names.append(f"stage{len(names) + 1}")
        stage.output(0).set_names({names[-1]})
        outputs.append(stage.output(0))
    last = op.convert(source, ov.Type.f32) if source.get_element_type() != ov.Type.f32 else None
    end = source if last is None else last.output(0)
    end.set_names({LAST})
    return Trunk(ov.Model([*outputs, end], graph.get_parameters(), name), tuple(names), rectified, cut)


def _choose_output(graph: ov.Model, name: str) -> Any:
    outputs = [o for o in graph.outputs if o.get_element_type().is_real() and len(o.shape) in (2, 3, 4)]
    if len(outputs) == 1:
        return outputs[0]
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
    kind = node.get_type_name()
    if kind not in ("MatMul", "Convolution") or not _is_constant(node.input_value(1).get_node()):
        return None
    shape = tuple(node.output(0).shape)
    classes = _core(shape)
    if len(classes) != 1 or (kind == "Convolution" and tuple(node.input_value(0).shape[2:]) != (1, 1)):
        return None
    if not certain and classes[0] not in CLASS_COUNTS:
        return None
    return node.input_value(0), classes[0]


def _as_vector(source: Any, name: str) -> Any:
    """The features as a vector (1, D).

    A map is averaged over its pixels. Of tokens, the first (the class token) is used if the others form a square,
    else the mean of all.
    """
    from openvino import opset13 as op

    shape = tuple(source.shape)
    if len(shape) == 2:
        return source
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
        return op.reduce_mean(source, op.constant(np.array(axes)), False).output(0)
    if len(shape) == 3:
        side = int(np.sqrt(shape[1] - 1))
        if shape[1] > 1 and side * side == shape[1] - 1:
            first = op.gather(source, op.constant(np.int64(0)), op.constant(np.int64(1)))
            return first.output(0)
        return op.reduce_mean(source, op.constant(np.array([1])), False).output(0)
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
    while node.get_type_name() in ("Convert", "Reshape"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


def _core(shape: Any) -> list[int]:
    """The dimensions other than 1."""
    return [int(side) for side in tuple(shape) if side != 1]
