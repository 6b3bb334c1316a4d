"""A graph as a trainable Keras 3 layer, `GraphLayer`, and `patch`, which writes its weights back into the graph.

>>> layer = GraphLayer(backbone.graph)  # doctest: +SKIP
>>> model = keras.Sequential([layer, keras.layers.Dense(5)])  # doctest: +SKIP
>>> tuned = patch(backbone.graph, layer)  # after model.fit(...)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topwork.errors import InputError, MissingExtra
from topwork.graphs import features as graphs

if TYPE_CHECKING:
    import openvino as ov


try:
    import keras
except ModuleNotFoundError as error:
    if error.name not in ("keras", "tensorflow", "jax", "torch"):
        raise
    raise MissingExtra("tuning a network", "finetune") from error

from topwork.graphs.trainable.operators import OPERATORS, apply
from topwork.graphs.trainable.plan import Place, Plan, read, with_products
from topwork.graphs.trainable.values import Value, constant, plain, tensor


class GraphLayer(keras.layers.Layer):  # type: ignore[misc]
    """A graph as a trainable layer with the same inputs and outputs.

    The input is float or uint8 (N, …) with any N, whatever the graph's batch size; the output is `compute_dtype`
    (N, …). A conversion of the input from uint8 is dropped, so inputs may be fractional. Weights (kernels, biases,
    scales) are trainable variables in the graph's layout. Batch norm is folded into them, so the layer has no other
    state, and `training` has no effect.

    Args:
        graph: a graph with one input; not modified.
        output: the name of the output; None if there is only one.
        products: compute 1x1 convolutions as matrix products. This trains faster, but OpenVINO can't compile some
            SavedModels made from it.

    Raises:
        InputError: there is no such output, or `output` is None and there are several.
        TopworkError: the graph has an operator that can't be trained; the message names it.
    """

    plan: Plan
    places: tuple[Place, ...]

    def __init__(
        self, graph: ov.Model, *, output: str | None = None, products: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self.plan = read(graph, output=output)
        if products:
            self.plan = with_products(self.plan)
        for step in self.plan.steps:
            if step.kind not in OPERATORS:
                apply(step, [])  # raises the error before any variable is created
        weights = {place: found for place, found in self.plan.constants.items() if found.trainable}
        self.places = tuple(sorted(weights, key=lambda place: (place.node, place.port)))
        self.weights_in_order = [
            keras.Variable(
                found.value, trainable=True, dtype=self.variable_dtype, name=_name(place, found.used_by)
            )
            for place, found in ((place, weights[place]) for place in self.places)
        ]
        self.built = True

    def call(self, images: Any) -> Any:
        """Execute the plan."""
        self._check(tuple(images.shape))
        plan = self.plan
        known: dict[Place, Value] = {
            p: constant(c.value) for p, c in plan.constants.items() if not c.trainable
        }
        known |= {p: constant(w) for p, w in zip(self.places, self.weights_in_order, strict=True)}
        known[plan.image] = Value(
            keras.ops.cast(images, self.compute_dtype), plan.image_shape, of_images=True
        )
        for step in plan.steps:
            known[step.place] = apply(step, [known[source] for source in step.inputs])
        return tensor(plain(known[plan.result]))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        self._check(tuple(input_shape))
        first, *rest = self.plan.result_shape
        return (None if input_shape[0] is None else input_shape[0] * first, *rest)

    def compute_output_spec(self, images: Any) -> Any:
        return keras.KerasTensor(self.compute_output_shape(images.shape), dtype=self.compute_dtype)

    def _check(self, shape: tuple[int | None, ...]) -> None:
        wanted = self.plan.image_shape[1:]
        fits = len(shape) == 1 + len(wanted)
        if not fits or any(n not in (None, size) for n, size in zip(shape[1:], wanted, strict=True)):
            sides = ", ".join(map(str, wanted))
            raise InputError(f"expected images of shape (N, {sides}), the graph's input; got {shape}")


def patch(graph: ov.Model, layer: GraphLayer) -> ov.Model:
    """The graph with its weights replaced by the layer's current weights; all its outputs are kept.

    Raises:
        InputError: the layer was not made from this graph.
    """
    from openvino import opset13 as op

    if graphs.digest(graph) != layer.plan.digest:
        raise InputError("the layer was made from another graph; pass the graph that it was made from")
    graph = graph.clone()
    nodes = graph.get_ordered_ops()
    for place, weight in zip(layer.places, layer.weights_in_order, strict=True):
        old = nodes[place.node].output(place.port)
        new = op.constant(weight.numpy().astype(old.get_element_type().to_dtype()))
        new.set_friendly_name(nodes[place.node].get_friendly_name())
        old.replace(new.output(0))
    return graph


def _name(place: Place, used_by: str) -> str:
    return f"{used_by.lower()}_{place.node}" + (f"_{place.port}" if place.port else "")
