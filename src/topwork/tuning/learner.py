"""The trainable part of a classifier: a tail with a linear head, as one Keras model.

It starts from the solved head, so that the first steps don't distort the features (LP-FT: Kumar et al. 2022,
"Fine-tuning can distort pretrained features and underperform out-of-distribution"). It uses AdamW (Loshchilov and
Hutter 2019) with a linear warm-up and cosine decay (2017, "SGDR"); lower learning rates for lower stages (Howard and
Ruder 2018, "Universal language model fine-tuning") and for a wide head; label smoothing (Szegedy et al. 2016,
"Rethinking the Inception architecture"); gradient clipping (Pascanu et al. 2013); and a moving average of the
weights (Polyak and Juditsky 1992). Batch norm is folded into the weights, so its statistics are frozen.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras  # noqa: TID253
import numpy as np

from topwork.graphs.trainable.layer import GraphLayer
from topwork.tuning.checkpoint import State

if TYPE_CHECKING:
    import openvino as ov

    from topwork.recipe import FinetuneRecipe

Array = np.ndarray[Any, Any]
WARM_UP = 0.1  # share of the steps
CLIP = 1.0  # largest global norm of the gradients
# Adam moves each weight by the learning rate, however small its gradient: with ten thousand features, one step can
# overturn a head. Above this width, its rate falls with the width (Yang et al. 2022, "Tensor programs V").
HEAD_WIDTH = 256


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """The trainable part below the head."""

    layer: Any  # a Keras layer or model: inputs to features (N, D)
    shape: tuple[int, ...]  # of an input, without the batch
    weights: tuple[Any, ...]  # the variables that a checkpoint must save
    rates: tuple[float, ...]  # for each of `weights`, the factor of its learning rate


def graph_body(
    graph: ov.Model,
    recipe: FinetuneRecipe,
    *,
    depth: Mapping[str, int] | None = None,
    fixed: Collection[str] = (),
) -> Body:
    """A graph as a trainable body; lower stages learn more slowly, and the nodes named in `fixed` are frozen.

    Args:
        graph: from pictures or activations to features.
        recipe: gives `rate_decay`.
        depth: the stage of each node by name (`topwork.graphs.cuts.depths`); None: all learn at one rate.
        fixed: names of nodes.

    Raises:
        TopworkError: the graph has an operator that can't be trained; the message names it.
    """
    layer = GraphLayer(graph, products=True, name="tail")
    nodes = graph.get_ordered_ops()
    names = [nodes[place.node].get_friendly_name() for place in layer.places]
    for name, weight in zip(names, layer.weights_in_order, strict=True):
        weight.trainable = name not in fixed
    rates = [1.0] * len(names)
    if depth is not None:
        deepest = max(depth[name] for name in names) + 1
        rates = [recipe.rate_decay ** (deepest - depth[name]) for name in names]
    shape = tuple(graph.inputs[0].get_shape())[1:]
    return Body(layer, shape, tuple(layer.weights_in_order), tuple(rates))


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A solved linear head: features → (features − mean) / deviation · weight + bias. All arrays are float32."""

    mean: Array  # (D,)
    deviation: Array  # (D,)
    weight: Array  # (D, K)
    bias: Array  # (K,)


class LinearHead(keras.layers.Layer):  # type: ignore[misc]
    """Logits from features, which are standardised first so that one learning rate suits all weights."""

    def __init__(self, start: Start, **options: Any) -> None:
        super().__init__(**options)
        self.start = start
        self.kernel = keras.Variable(start.weight, dtype="float32", name="head_kernel")
        self.bias = keras.Variable(start.bias, dtype="float32", name="head_bias")
        self.built = True

    def call(self, features: Any) -> Any:
        """float32 (N, D) → logits (N, K)."""
        mean, deviation = map(keras.ops.convert_to_tensor, (self.start.mean, self.start.deviation))
        z = (features - mean) / deviation
        return keras.ops.matmul(z, self.kernel) + self.bias

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        return (shape[0], self.start.bias.shape[0])


class Rates(keras.optimizers.AdamW):  # type: ignore[misc]
    """AdamW with a learning-rate factor for each variable, in the order of the model's variables."""

    def __init__(self, factors: Sequence[float], **options: Any) -> None:
        super().__init__(**options)
        self.factors = tuple(factors)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        factor = self.factors[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * factor)

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Decay each variable by its own rate; biases and scales are exempt."""
        for variable in variables:
            if len(variable.shape) > 1:
                factor = self.factors[self._get_variable_index(variable)] * self.weight_decay
                rate = keras.ops.cast(self.learning_rate, variable.dtype)
                variable.assign(variable - variable * (rate * factor))


class Learner:
    """A body, the head on it, and the optimiser.

    Args:
        body: the part below the head; its input is activations (1, C, H, W) or pictures (1, S, S, 3).
        start: the initial head.
        recipe: learning rate and other settings.
        steps: number of steps planned in all.
    """

    def __init__(self, body: Body, *, start: Start, recipe: FinetuneRecipe, steps: int) -> None:
        self.body = body
        self.head = LinearHead(start, name="head")
        picture = keras.Input(body.shape, name="activation")
        self.model = keras.Model(picture, self.head(body.layer(picture)))
        known = dict(zip(map(id, body.weights), body.rates, strict=True))
        known[id(self.head.kernel)] = min(1.0, HEAD_WIDTH / len(start.mean))
        factors = [known.get(id(variable), 1.0) for variable in self.model.trainable_variables]
        self.optimizer = Rates(
            factors,
            learning_rate=recipe.rate,
            weight_decay=recipe.weight_decay,
            global_clipnorm=CLIP,
        )
        self.model.compile(
            optimizer=self.optimizer,
            loss=keras.losses.CategoricalCrossentropy(
                from_logits=True, label_smoothing=recipe.label_smoothing
            ),
        )
        self.optimizer.build(self.model.trainable_variables)
        self.recipe, self.steps, self.step = recipe, steps, 0
        self.average = [w.copy() for w in self.weights()]

    def learn(self, inputs: Array, targets: Array, weights: Array) -> float:
        """Take one step and return the batch's loss. `targets` float32 (B, K); `weights` float32 (B,)."""
        self.optimizer.learning_rate = self.rate
        loss = self.model.train_on_batch(inputs, targets, sample_weight=weights)
        self.step += 1
        keep = min(self.recipe.average, self.step / (self.step + 10))
        for mean, now in zip(self.average, self.weights(), strict=True):
            mean += (1 - keep) * (now - mean)
        return float(loss)

    @property
    def rate(self) -> float:
        """The learning rate of the next step, for the head; lower stages have lower rates."""
        return self.recipe.rate * rate_at(self.step, self.steps)

    def logits(self, inputs: Array) -> Array:
        """Logits by the current weights, float32 (B, K)."""
        return np.asarray(self.model.predict_on_batch(inputs))

    def weights(self) -> list[Array]:
        """Weights of the body, then of the head."""
        variables = [*self.body.weights, self.head.kernel, self.head.bias]
        return [np.array(v.numpy()) for v in variables]

    def set_weights(self, weights: Sequence[Array]) -> None:
        """Set the weights, in the order of `weights`."""
        variables = [*self.body.weights, self.head.kernel, self.head.bias]
        for variable, value in zip(variables, weights, strict=True):
            variable.assign(value)

    def optimizer_values(self) -> list[Array]:
        """The optimiser's state, including the learning rate (which the next step overwrites)."""
        return [np.array(v.numpy()) for v in self.optimizer.variables]

    def restore(self, state: State) -> None:
        """Restore the weights, optimiser and step saved in `state`."""
        self.set_weights(state.weights)
        for variable, value in zip(self.optimizer.variables, state.optimizer, strict=True):
            variable.assign(value)
        self.average = [array.copy() for array in state.average]
        self.step = state.step


def rate_at(step: int, steps: int) -> float:
    """The learning-rate factor: linear warm-up over a tenth of the steps, then cosine decay to 0."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
