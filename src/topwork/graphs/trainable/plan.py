"""A graph's computation as plain records, read from OpenVINO once, which a layer executes without the graph.

The batch size is set to 1, so all shapes are known, and nodes that don't depend on the image's pixels are folded into
constants. Each record keeps its node's index in the original graph, where trained constants are written back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.errors import InputError, TopworkError, one_of
from topwork.graphs import features as graphs
from topwork.graphs.fold import fold

if TYPE_CHECKING:
    import openvino as ov

HANDFUL = 4  # a constant with at most so many numbers (a mean per colour, a divisor) is not a weight
WEIGHTED = {"Convolution", "GroupConvolution", "MatMul"}  # every float constant used by these is a weight
SHIFTED = {"Add", "Subtract", "ScaledDotProductAttention"}  # … if larger than `HANDFUL` and not a mask
SCALED = {
    "Multiply",
    "Divide",
    "PRelu",
    "GroupNormalization",
}  # … if larger, with a single axis longer than 1
JOINED = {"Concat"}  # … if it is tokens (1, number, width) and not all numbers are equal
MASKED = -100.0  # added to what attention must not see, or a lower number
SPLIT = {"Split", "VariadicSplit"}  # operators with several outputs, each of which is a step of its own
POINTWISE = "PointwiseConvolution"  # not an operator of OpenVINO: see `with_products`
Shape = tuple[int, ...]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """An output of a node in the original graph: the node's index in `get_ordered_ops`, and the port."""

    node: int
    port: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One operator, or one output of a split (number `place.port`).

    `shapes` are those of its outputs for one image, beginning with this one; `name` is its name in the graph.
    """

    kind: str
    attributes: Mapping[str, Any]
    inputs: tuple[Place, ...]
    place: Place
    shapes: tuple[Shape, ...]
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A constant, whether it is trainable, and the kind of the first operator that uses it."""

    value: Array
    trainable: bool
    used_by: str


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All steps in order of computation."""

    steps: tuple[Step, ...]
    constants: Mapping[Place, Constant]
    image: Place  # the input
    image_shape: Shape  # for one image
    result: Place  # the output
    result_shape: Shape  # for one image
    digest: str  # of the original graph


def read(graph: ov.Model, *, output: str | None = None) -> Plan:
    """Read how `output` is computed; None if the graph has only one output.

    Raises:
        InputError: there is no such output, or `output` is None and there are several, or the graph doesn't have
            exactly one input.
        TopworkError: the graph can't take a single image.
    """
    import openvino as ov

    result = _output(graph, output)
    if len(graph.inputs) != 1:
        raise InputError(f"expected a graph with one input, the images; this one has {len(graph.inputs)}")
    work = graph.clone()
    names = [node.get_friendly_name() for node in work.get_ordered_ops()]
    for number, node in enumerate(work.get_ordered_ops()):
        node.set_friendly_name(
            f"#{number}"
        )  # folding keeps the name: "#7", or "#7.1" for a node with several outputs
    work = ov.Model([work.outputs[result].get_node().input_value(0)], work.get_parameters())
    _for_one_image(work)
    fold(work)
    _check_sizes(work)

    steps: list[Step] = []
    constants: dict[Place, Constant] = {}
    for node in work.get_ordered_ops():
        kind = node.get_type_name()
        if kind in ("Parameter", "Result"):
            continue
        place = _place(node.get_friendly_name())
        inputs = tuple(_source(value) for value in node.input_values())
        if kind == "Constant":
            constants[place] = _constant(node)
            continue
        shapes = tuple(tuple(out.get_shape()) for out in node.outputs())
        first = Step(kind, dict(node.get_attributes()), inputs, place, shapes, names[place.node])
        steps.append(first)
        if kind in SPLIT:
            steps += [
                replace(first, place=Place(place.node, port), shapes=shapes[port:])
                for port in range(1, len(shapes))
            ]
    image = _place(work.inputs[0].get_node().get_friendly_name())
    end = _source(work.outputs[0].get_node().input_value(0))
    _check_known([*(source for step in steps for source in step.inputs), end], steps, {image, *constants})
    return Plan(
        steps=tuple(steps),
        constants=constants,
        image=image,
        image_shape=tuple(work.inputs[0].get_shape()),
        result=end,
        result_shape=tuple(work.outputs[0].get_shape()),
        digest=graphs.digest(graph),
    )


def with_products(plan: Plan) -> Plan:
    """The same plan with 1x1 convolutions replaced by matrix products."""

    def marked(step: Step) -> Step:
        kernel = plan.constants.get(step.inputs[1]) if step.kind == "Convolution" else None
        if kernel is None or set(kernel.value.shape[2:]) != {1}:
            return step
        attributes = step.attributes
        bare = attributes["auto_pad"] == "valid" or not any(
            [*attributes["pads_begin"], *attributes["pads_end"]]
        )
        return replace(step, kind=POINTWISE) if bare and set(attributes["strides"]) == {1} else step

    return replace(plan, steps=tuple(map(marked, plan.steps)))


def _output(graph: ov.Model, name: str | None) -> int:
    """The index of the output `name`."""
    names = [sorted(out.get_names()) for out in graph.outputs]
    if name is None and len(names) == 1:
        return 0
    known = [some[0] if some else f"output {i}" for i, some in enumerate(names)]
    if name is None:
        raise InputError(f"the graph has {len(names)} outputs; name the one to use: {', '.join(known)}")
    for i, some in enumerate(names):
        if name in some:
            return i
    raise InputError(one_of(name, known, what="output"))


def _for_one_image(graph: ov.Model) -> None:
    shape = graph.inputs[0].get_partial_shape()
    rank = shape.rank.get_length() if shape.rank.is_static else 0
    if rank < 2 or any(shape[i].is_dynamic for i in range(1, rank)):
        raise InputError(
            f"expected an input with a fixed size, (N, ...); got {shape}; fix the image size first"
        )
    if not (shape[0].is_static and shape[0].get_length() == 1):
        shape[0] = 1
        try:
            graph.reshape(shape)
        except RuntimeError as error:
            raise TopworkError(
                f"the graph can't take a single image (its input is {shape}): {error}"
            ) from error


def _check_sizes(graph: ov.Model) -> None:
    dynamic = [
        out for node in graph.get_ordered_ops() for out in node.outputs() if out.partial_shape.is_dynamic
    ]
    if dynamic:
        node = dynamic[0].get_node()
        raise TopworkError(
            f"the output size of {node.get_type_name()} depends on the picture's content "
            f"({dynamic[0].partial_shape}); such a graph can't be trained: use it frozen"
        )


def _check_known(used: list[Place], steps: list[Step], given: set[Place]) -> None:
    """Check that only the first output of each operator is used, except of splits."""
    made = {step.place: step for step in steps}
    for place in used:
        if place not in given and place not in made:
            raise TopworkError(unsupported(made[Place(place.node)], f"its output {place.port} is used"))


def unsupported(step: Step, reason: str) -> str:
    """The error message for an operator that can't be trained."""
    return (
        f"the operator {step.kind} ({step.name!r}, node {step.place.node} of the graph) can't be trained: {reason}; "
        "a network with it can still be used frozen"
    )


def _place(name: str) -> Place:
    number, _, port = name.removeprefix("#").partition(".")
    return Place(int(number), int(port or 0))


def _source(value: Any) -> Place:
    place = _place(value.get_node().get_friendly_name())
    return Place(place.node, place.port + value.get_index())


def _constant(node: Any) -> Constant:
    value = np.array(node.data)
    return Constant(value, *_use(node, value))


def _use(node: Any, value: Array) -> tuple[bool, str]:
    """Whether the constant is a weight, and the kind of operator that uses it.

    Not weights: the numbers that appended channels are filled with, rotary positions (a table with a number for every
    token and channel, which are multiplied), and what hides tokens from attention.
    """
    kinds = [target.get_node().get_type_name() for target in node.output(0).get_target_inputs()]
    return next(((True, kind) for kind in kinds if _is_weight(value, kind)), (False, next(iter(kinds), "")))


def _is_weight(value: Array, kind: str) -> bool:
    if value.dtype != np.float32:
        return False
    if kind in WEIGHTED or value.size <= HANDFUL:
        return kind in WEIGHTED
    if kind in SCALED:
        return value.squeeze().ndim == 1
    if kind in JOINED:
        return value.ndim == 3 and len(value) == 1 and bool(np.ptp(value))
    return kind in SHIFTED and not _is_mask(value)


def _is_mask(value: Array) -> bool:
    """Whether the numbers are 0 where attention may see, and at most `MASKED` elsewhere; or some are infinite."""
    low = value <= MASKED
    return bool((low.any() and (low | (value == 0)).all()) or not np.isfinite(value).all())
