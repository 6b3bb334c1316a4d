"""Checks: weights, frozen and trainable, batch norm, regularisation losses, `fit` and a loop by hand."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfhub_modules import module
from tfhub_promises import X, classifier, differ, equal, fit, keras_of, promise, refused, values

KERNEL_LOSS = 1 + 4 + 1 + 0.25 + 1 + 9  # of the published module: the sum of its kernel's squares
GAMMA_LOSS = 0.5 * 3
TRAINED = {"dense_kernel", "bn_gamma", "bn_beta"}


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {name for name in before if np.abs(before[name] - after[name]).max() > 1e-7}


@promise("5.1")
def trainable_variables_are_trained(hub: Any, folder: Path) -> None:
    """Weights: `obj.trainable_variables` are the trainable ones."""
    layer = hub.KerasLayer(module(folder, "steady"), trainable=True)
    assert {v.name.split(":")[0].replace("/", "_") for v in layer.trainable_weights} == TRAINED


@promise("5.2")
def the_rest_of_variables_is_not(hub: Any, folder: Path) -> None:
    """The rest of `obj.variables` is non-trainable; none is there twice."""
    layer = hub.KerasLayer(module(folder, "steady"), trainable=True)
    rest = {v.name.split(":")[0].replace("/", "_") for v in layer.non_trainable_weights}
    assert rest == {"bn_mean", "bn_variance"}
    assert len(layer.weights) == len(layer.variables) == 5


@promise("5.3")
def a_frozen_layer_has_no_trainable_weights(hub: Any, folder: Path) -> None:
    """A frozen layer, which is the default, has no trainable weights; they come back when it is thawed."""
    layer = hub.KerasLayer(module(folder, "steady"))
    assert (len(layer.trainable_weights), len(layer.non_trainable_weights)) == (0, 5)
    layer.trainable = True
    assert (len(layer.trainable_weights), len(layer.non_trainable_weights)) == (3, 2)


@promise("5.4")
def weights_are_the_modules_own(hub: Any, folder: Path) -> None:
    """A change of the layer's weights is a change of the module, and back."""
    layer = hub.KerasLayer(module(folder, "steady"))
    inner = layer.resolved_object.inner
    next(v for v in layer.weights if "beta" in v.name).assign([1.0, 2.0, 3.0])
    equal(inner.beta, [1, 2, 3])
    inner.gamma.assign([0.0, 0.0, 0.0])
    equal(values(layer)["bn_gamma"], [0, 0, 0])
    equal(layer(X), np.tile([1.0, 2.0, 3.0], (4, 1)))


@promise("3.3")
def no_trainable_weight_is_logged_once(hub: Any, folder: Path) -> None:
    """Trainable with no trainable weight: logged once."""
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("absl", "topwork.tfhub")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        layer = hub.KerasLayer(module(folder, "arguments"), trainable=True)
        silent = hub.KerasLayer(module(folder, "steady"), trainable=True)
        for _ in range(3):
            layer(X)
            silent(X)
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    assert len([text for text in seen if "zero trainable weights" in text]) == 1


@promise("4.6")
def a_frozen_batch_norm_never_moves(hub: Any, folder: Path) -> None:
    """A frozen batch norm never moves: not in `fit`, not when called with `training=True`."""
    model, layer = classifier(hub, module(folder, "steady"))
    before = values(layer)
    expected = np.array(layer(X))
    equal(layer(X, training=True), expected)
    fit(model, 2)
    assert not changed(before, values(layer))
    equal(layer(X), expected)


@promise("4.7")
def a_trainable_batch_norm_learns_its_statistics(hub: Any, folder: Path) -> None:
    """A trainable batch norm learns its statistics in training, and only there."""
    layer = hub.KerasLayer(module(folder, "steady"), trainable=True)
    before = values(layer)
    layer(X)
    layer(X, training=False)
    assert not changed(before, values(layer))
    layer(X, training=True)
    assert changed(before, values(layer)) == {"bn_mean", "bn_variance"}
    equal(values(layer)["bn_mean"], 0.5 * (X @ before["dense_kernel"]).mean(0))


@promise("4.8")
def dropout_drops_only_in_training(hub: Any, folder: Path) -> None:
    """Dropout drops in training while the layer is trainable, and at no other time."""
    layer = hub.KerasLayer(module(folder, "feature_vector"), trainable=True)
    wide = tf.tile(X, [16, 1])
    assert 0.2 < float(np.mean(np.array(layer(wide, training=True)) == 0)) < 0.8
    assert float(np.mean(np.array(layer(wide)) == 0)) == 0
    layer.trainable = False
    assert float(np.mean(np.array(layer(wide, training=True)) == 0)) == 0


@promise("6.1")
def regularization_losses_count_while_trainable(hub: Any, folder: Path) -> None:
    """`regularization_losses` count while trainable: one loss each, of the weights as they are now."""
    layer = hub.KerasLayer(module(folder, "regularized"), trainable=True)
    layer(X)
    equal(sorted(float(loss) for loss in layer.losses), [GAMMA_LOSS, KERNEL_LOSS])
    next(v for v in layer.weights if "gamma" in v.name).assign([0.0, 0.0, 0.0])
    equal(sum(float(loss) for loss in layer.losses), KERNEL_LOSS)


@promise("6.2")
def regularization_losses_are_toggled_live(hub: Any, folder: Path) -> None:
    """`regularization_losses` count only while trainable, toggled live."""
    layer = hub.KerasLayer(module(folder, "regularized"))
    total = [sum(float(loss) for loss in layer.losses)]
    for trainable in (True, False, True):
        layer.trainable = trainable
        total.append(sum(float(loss) for loss in layer.losses))
    equal(total, [0, KERNEL_LOSS + GAMMA_LOSS, 0, KERNEL_LOSS + GAMMA_LOSS])


@promise("6.3")
def fit_adds_the_regularization_losses(hub: Any, folder: Path) -> None:
    """`fit` minimises them along with the loss; a frozen module adds nothing."""
    plain, _ = classifier(hub, module(folder, "steady"), trainable=True)
    model, layer = classifier(hub, module(folder, "regularized"), trainable=True)
    equal(fit(model), fit(plain) + KERNEL_LOSS + GAMMA_LOSS, 1e-4)
    assert (values(layer)["dense_kernel"] ** 2).sum() < KERNEL_LOSS
    frozen, _ = classifier(hub, module(folder, "regularized"))
    still, _ = classifier(hub, module(folder, "steady"))
    equal(fit(frozen), fit(still), 1e-4)


@promise("6.4")
def a_regularization_loss_must_be_callable(hub: Any, folder: Path) -> None:
    """`regularization_losses`: zero-argument callables, else ValueError."""
    with refused(ValueError, "callable"):
        hub.KerasLayer(module(folder, "loss_not_callable"))


@promise("6.5")
def a_variable_carries_several_losses(hub: Any, folder: Path) -> None:
    """All `regularization_losses` count, also where there are more of them than variables."""
    equal(
        sum(float(loss) for loss in hub.KerasLayer(module(folder, "crowded"), trainable=True).losses), 4 + 6
    )


@promise("15.1")
def frozen_in_fit_only_the_head_learns(hub: Any, folder: Path) -> None:
    """Frozen, in `keras.Sequential` and `fit`: the head learns, no weight of the module moves."""
    model, layer = classifier(hub, module(folder, "feature_vector"))
    before, head = values(layer), values(model.layers[-1])
    assert fit(model, 5) < fit(classifier(hub, module(folder, "feature_vector"))[0])
    assert not changed(before, values(layer))
    assert len(changed(head, values(model.layers[-1]))) == 2


@promise("15.2")
def trainable_in_fit_all_weights_learn(hub: Any, folder: Path) -> None:
    """Trainable, in `keras.Sequential` and `fit`: all of the module's weights and statistics move."""
    model, layer = classifier(hub, module(folder, "steady"), trainable=True)
    before = values(layer)
    fit(model)
    assert changed(before, values(layer)) == TRAINED | {"bn_mean", "bn_variance"}


@promise("15.3")
def it_works_in_the_functional_api(hub: Any, folder: Path) -> None:
    """In the functional API, with a dict of inputs and one of outputs."""
    keras = keras_of(hub)
    inputs = {"a": keras.Input((2,), name="a"), "b": keras.Input((2,), name="b")}
    outputs = hub.KerasLayer(module(folder, "dict"))(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(outputs["sum"]))
    found = model.predict({"a": X, "b": 2 * X}, verbose=0)
    equal(found, 3 * X.sum(1, keepdims=True))


@promise("15.4")
def training_reaches_it_in_the_functional_api(hub: Any, folder: Path) -> None:
    """The model's `training` reaches the module."""
    model, layer = classifier(hub, module(folder, "steady"), trainable=True)
    before = values(layer)
    model(X, training=True)
    assert changed(before, values(layer)) == {"bn_mean", "bn_variance"}


def train_by_hand(hub: Any, handle: str, trainable: bool) -> tuple[Any, list[float], set[str]]:
    """Ten steps of a loop under `tf.function`; the losses, and the names of the module's weights that moved."""
    keras = keras_of(hub)
    model, layer = classifier(hub, handle, trainable=trainable)
    optimizer = keras.optimizers.Adam(0.01)
    criterion = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    before = values(layer)

    @tf.function
    def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = criterion(y, model(x, training=True)) + sum(model.losses)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    losses = [float(step(tf.constant(X), tf.constant([0, 1, 0, 1]))) for _ in range(10)]
    return model, losses, changed(before, values(layer))


@promise("15.5")
def a_loop_by_hand_trains_it(hub: Any, folder: Path) -> None:
    """In a hand-written `GradientTape` loop under `tf.function`, trainable: weights, statistics and losses."""
    model, losses, moved = train_by_hand(hub, module(folder, "regularized"), trainable=True)
    assert moved == TRAINED | {"bn_mean", "bn_variance"}
    assert losses[0] > KERNEL_LOSS
    assert losses[-1] < losses[0]
    assert len(model.trainable_variables) == 5


@promise("15.6")
def a_loop_by_hand_leaves_a_frozen_one(hub: Any, folder: Path) -> None:
    """The same loop, frozen: only the head learns."""
    model, losses, moved = train_by_hand(hub, module(folder, "regularized"), trainable=False)
    assert not moved
    assert losses[-1] < losses[0] < KERNEL_LOSS
    assert len(model.trainable_variables) == 2


@promise("9.4", original=False)
def it_is_trained_under_mixed_precision(hub: Any, folder: Path) -> None:
    """A trainable module learns under `mixed_float16`, in float32."""
    keras = keras_of(hub)
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model, layer = classifier(hub, module(folder, "regularized"), trainable=True)
        before = values(layer)
        loss = fit(model)
        assert KERNEL_LOSS + GAMMA_LOSS < loss < KERNEL_LOSS + GAMMA_LOSS + 20
        assert model(X).dtype == tf.float16
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert changed(before, values(layer)) >= TRAINED


@promise("9.5", original=False)
def it_follows_layers_of_lower_precision(hub: Any, folder: Path) -> None:
    """Behind a layer that computes in bfloat16, a float32 module works in float32."""
    keras = keras_of(hub)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        inputs = keras.Input((2,))
        outputs = hub.KerasLayer(module(folder, "steady"))(keras.layers.Dense(2)(inputs))
        model = keras.Model(inputs, outputs)
        assert model(X).dtype == tf.float32
    finally:
        keras.mixed_precision.set_global_policy("float32")


@promise("14.1")
def a_module_must_be_callable(hub: Any, folder: Path) -> None:
    """`__call__` is required; without it, and without a signature: ValueError that asks for one."""
    with refused(ValueError, "ignature"):
        hub.KerasLayer(module(folder, "signature_only"))


@promise("14.2")
def the_other_attributes_are_optional(hub: Any, folder: Path) -> None:
    """`variables`, `trainable_variables` and `regularization_losses` are optional."""
    layer = hub.KerasLayer(module(folder, "arguments"))
    equal(layer(X), X)
    assert layer.weights == []
    assert not layer.losses


@promise("14.3", original=False)
def another_keras_layer_may_be_the_callable(hub: Any, folder: Path) -> None:
    """A Keras layer or model is a callable too: its weights count once, and it is frozen with the layer."""
    keras = keras_of(hub)
    norm = keras.layers.BatchNormalization(momentum=0.5)
    norm.build((None, 2))
    layer = hub.KerasLayer(norm)
    assert len(layer.weights) == 4
    assert layer.trainable_weights == []
    equal(layer(X, training=True), X / np.sqrt(1 + 1e-3))
    differ(hub.KerasLayer(norm, trainable=True)(X, training=True), X / np.sqrt(1 + 1e-3))
