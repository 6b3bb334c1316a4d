"""A module's variables and regularisation losses, in the form that Keras trains."""

from __future__ import annotations

from typing import Any

from topwork.errors import InputError, TopworkError
from topwork.tfhub.frameworks import keras


def keras_variables(module: Any, layer_name: str) -> list[Any]:
    """A `keras.Variable` over each of the module's variables, sharing its value: the trainable ones first.

    `module.trainable_variables` are trainable, whatever the layer is now; the rest of `module.variables` is not.
    """
    trained = {id(variable): variable for variable in getattr(module, "trainable_variables", ())}
    every = {id(variable): variable for variable in getattr(module, "variables", ())}
    return [
        _shared(variable, trainable=key in trained, layer_name=layer_name)
        for key, variable in {**trained, **every}.items()
    ]


def attach_losses(module: Any, variables: list[Any]) -> None:
    """Make `module.regularization_losses` count while their layer is trainable.

    Keras asks a variable's regularizer for its loss only while variable and layer are trainable. So each loss hangs
    on a variable of its own while there are any; the last variable takes the rest.

    Raises:
        InputError: one of them is not callable.
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
            f"this version of Keras copied the weight {name}; topwork.tfhub needs it to be shared"
        )
    return ours
