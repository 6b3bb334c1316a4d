"""A module's variables and regularisation losses, as Keras variables and regularizers."""

from __future__ import annotations

from typing import Any

from topwork.errors import InputError, TopworkError
from topwork.tfhub.frameworks import keras


def keras_variables(module: Any, layer_name: str) -> list[Any]:
    """A `keras.Variable` for each of the module's variables, sharing its value; the trainable ones come first.

    `module.trainable_variables` become trainable, regardless of the layer's current state; the other
    `module.variables` do not.
    """
    trained = {id(variable): variable for variable in getattr(module, "trainable_variables", ())}
    every = {id(variable): variable for variable in getattr(module, "variables", ())}
    return [
        _shared(variable, trainable=key in trained, layer_name=layer_name)
        for key, variable in {**trained, **every}.items()
    ]


def attach_losses(module: Any, variables: list[Any]) -> None:
    """Add `module.regularization_losses` to the loss while the layer is trainable.

    Keras uses a variable's regularizer only while the variable and its layer are trainable. So each loss becomes the
    regularizer of one variable; the last variable gets all remaining losses.

    Raises:
        InputError: a loss is not callable.
    """
    losses = list(getattr(module, "regularization_losses", ()))
    for loss in losses:
        if not callable(loss):
            raise InputError(
                "`regularization_losses` must be callables without arguments, each returning a scalar; got "
                f"{loss!r}"
            )
    for place, variable in enumerate(variables):
        share = losses[place:] if place == len(variables) - 1 else losses[place : place + 1]
        if share:
            variable.regularizer = lambda _, share=share: sum(loss() for loss in share)


def _shared(variable: Any, *, trainable: bool, layer_name: str) -> Any:
    if isinstance(variable, keras.Variable):
        return variable
    name = variable.name.split(":")[0].replace("/", "_")
    with keras.name_scope(layer_name):
        ours = keras.Variable(
            variable, dtype=variable.dtype.name, trainable=trainable, autocast=False, name=name
        )
    if ours.value is not variable:
        raise TopworkError(
            f"this version of Keras copies the weight {name}; topwork.tfhub needs Keras to share it"
        )
    return ours
