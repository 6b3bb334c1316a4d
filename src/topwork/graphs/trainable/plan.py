"""What a graph computes, read out of OpenVINO once: plain records that a layer can follow with no graph at hand.

The graph is read for one image: its batch is set to 1, so that every shape is known, and what depends on no
image is folded into constants. Each record remembers its node's number in the graph that was given, so that a
tuned constant finds its way back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.errors import InputError, TopworkError, one_of
from topwork.graphs import features as graphs

if TYPE_CHECKING:
    import openvino as ov

HANDFUL = (
    4  # an operand of so few numbers (a mean and scale of each colour, a divisor) is arithmetic, not a weight
)
WEIGHTED = {"Convolution", "GroupConvolution", "MatMul"}  # any float constant that goes in here is a weight
SCALED = {"Add", "Subtract", "Multiply", "Divide"}  # and here one of more than a handful of numbers
POINTWISE = "PointwiseConvolution"  # OpenVINO has no such kind: see `with_products`
Shape = tuple[int, ...]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """An output of a node of the given graph: the node's number in the order of `get_ordered_ops`, and the port."""

    node: int
    port: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One operator. `shapes`: those of its outputs, for one image. `name`: what the graph calls it."""

    kind: str
    attributes: Mapping[str, Any]
    inputs: tuple[Place, ...]
    place: Place
    shapes: tuple[Shape, ...]
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A constant, whether it can be trained, and the first operator that it goes into."""

    value: Array
    trainable: bool
    used_by: str


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All steps in the order of computing. `image`: the input, of `image_shape` for one image; `result`: the output.

    `digest`: that of the graph it was read from.
    """

    steps: tuple[Step, ...]
    constants: Mapping[Place, Constant]
    image: Place
    image_shape: Shape
    result: Place
    result_shape: Shape
    digest: str


def read(graph: ov.Model, *, output: str | None = None) -> Plan:
    """Read how `output` is computed; None where the graph has only one.

    Raises:
        InputError: no such output, several and none named, or not one input.
        TopworkError: the graph can't be made to take a single image.
    """
    import openvino as ov
    from openvino.passes import ConstantFolding, Manager

    result = _output(graph, output)
    if len(graph.inputs) != 1:
        raise InputError(f"expected a graph with one input, its images; this one has {len(graph.inputs)}")
    work = graph.clone()
    names = [node.get_friendly_name() for node in work.get_ordered_ops()]
    for number, node in enumerate(work.get_ordered_ops()):
        node.set_friendly_name(
            f"#{number}"
        )  # folding hands it on: "#7" folded, or "#7.1" where it had more outputs
    work = ov.Model([work.outputs[result].get_node().input_value(0)], work.get_parameters())
    _for_one_image(work)
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(work)

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
        elif kind == "Convert" and inputs[0] in constants:  # weights kept in half precision
            constants[place] = _converted(node, constants[inputs[0]].value)
        else:
            shapes = tuple(tuple(out.get_shape()) for out in node.outputs())
            steps.append(Step(kind, dict(node.get_attributes()), inputs, place, shapes, names[place.node]))
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
    """The same, but convolutions by one pixel are marked as what they are: matrix products."""

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
    """Which of the graph's outputs is meant."""
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
            f"expected an input of known size, (N, ...); got {shape}; fix the image's size first"
        )
    if not (shape[0].is_static and shape[0].get_length() == 1):
        shape[0] = 1
        try:
            graph.reshape(shape)
        except RuntimeError as error:
            raise TopworkError(
                f"the graph can't take a single image (its input is {shape}): {error}"
            ) from error
    dynamic = [
        out for node in graph.get_ordered_ops() for out in node.outputs() if out.partial_shape.is_dynamic
    ]
    if dynamic:
        node = dynamic[0].get_node()
        raise TopworkError(
            f"the size of what {node.get_type_name()} gives depends on the picture's content "
            f"({dynamic[0].partial_shape}); such a graph can't be trained: keep it frozen"
        )


def _check_known(used: list[Place], steps: list[Step], given: set[Place]) -> None:
    """Of an operator with several outputs only the first can be followed."""
    made = {step.place: step for step in steps}
    for place in used:
        if place not in given and place not in made:
            raise TopworkError(unsupported(made[Place(place.node)], f"its output {place.port} is used"))


def unsupported(step: Step, reason: str) -> str:
    """The text for what can't be trained."""
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


def _converted(node: Any, value: Array) -> Constant:
    value = value.astype(node.get_element_type().to_dtype())
    return Constant(value, *_use(node, value))


def _use(node: Any, value: Array) -> tuple[bool, str]:
    """Whether the constant is a weight, and what it goes into."""
    kinds = [target.get_node().get_type_name() for target in node.output(0).get_target_inputs()]
    for kind in kinds:
        if kind in WEIGHTED or (kind in SCALED and value.size > HANDFUL):
            return value.dtype == np.float32, kind
    return False, kinds[0] if kinds else ""
