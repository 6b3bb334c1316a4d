"""Inspect a module's function: its `training` argument, and the structure and dtypes that it was traced with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from topwork.tfhub.frameworks import keras, tf

Nest = Any  # a tensor (or its spec, or its shape), or lists, tuples and dicts of them


def takes_training(function: Callable[..., Any]) -> bool:
    """Whether the function, or the object's `__call__`, has a parameter `training`."""
    called: Any = function.call if isinstance(function, keras.layers.Layer) else function
    for candidate in (called.__call__, called):
        try:
            parameters = inspect.signature(candidate).parameters
        except (TypeError, ValueError):  # built-in callables have no signature
            continue
        if "training" in parameters:
            return True
    return False


def input_specs(function: Callable[..., Any]) -> list[Nest]:
    """The first positional argument of each trace, as a nest of `tf.TensorSpec`; empty if never traced."""
    call = function if hasattr(function, "concrete_functions") else getattr(function, "__call__", None)  # noqa: B004
    traces = [trace.structured_input_signature for trace in getattr(call, "concrete_functions", ())]
    firsts = [positional[0] for positional, _ in traces if positional]
    for declared in (getattr(function, "input_signature", None), getattr(call, "input_signature", None)):
        if not firsts and declared:
            firsts = [declared[0]]
    return firsts


def signature_specs(signature: Any) -> dict[str, Any]:
    """The inputs of a signature: name → `tf.TensorSpec`."""
    structured = signature.structured_input_signature
    return dict(structured[1]) if structured else {}


def common_dtype(specs: Sequence[Nest]) -> str | None:
    """The dtype of all inputs in all traces; None if there are several, or no trace."""
    dtypes = {leaf.dtype.name for leaf in tf.nest.flatten(list(specs)) if hasattr(leaf, "dtype")}
    return dtypes.pop() if len(dtypes) == 1 else None


def conform(inputs: Nest, specs: Sequence[Nest], fallback: str | None) -> Nest:
    """Convert the inputs to tensors that a trace accepts, casting floats to the float dtype of the trace.

    A trace that needs no cast is preferred. Integers are not cast to floats: 0..255 pixels are not 0..1 pixels.
    Without traces, floats are cast to `fallback`, unless it is None.
    """
    cast: Nest = None
    for spec in specs:
        try:
            tensors = keras.tree.map_structure_up_to(spec, _tensor_like, spec, inputs)
        except (TypeError, ValueError):  # the structure differs
            continue
        pairs = list(zip(tf.nest.flatten(spec), keras.tree.flatten(tensors), strict=False))
        if all(_dtype(tensor) == _dtype(leaf) for leaf, tensor in pairs):
            return tensors
        if cast is None and all(_castable(tensor, _dtype(leaf)) for leaf, tensor in pairs):
            cast = keras.tree.map_structure_up_to(spec, lambda s, t: _cast(t, _dtype(s)), spec, tensors)
    if cast is not None:
        return cast
    wanted = tf.as_dtype(fallback) if fallback and not specs else None
    return keras.tree.map_structure(lambda leaf: _cast(_tensor(leaf, wanted), wanted), inputs)


def symbolic(shapes: Nest, specs: Sequence[Nest], fallback: str) -> Nest:
    """`KerasTensor`s of these shapes, with the dtypes of a trace with the same number of inputs."""
    count = len(keras.tree.flatten(keras.tree.map_shape_structure(lambda _: 0, shapes)))
    of_count = [leaves for spec in specs if len(leaves := tf.nest.flatten(spec)) == count]
    dtypes = iter([leaf.dtype.name for leaf in of_count[0]] if of_count else [fallback] * count)
    return keras.tree.map_shape_structure(lambda shape: keras.KerasTensor(shape, dtype=next(dtypes)), shapes)


def _tensor_like(spec: Any, value: Any) -> Any:
    return _tensor(value, _dtype(spec))


def _tensor(value: Any, hint: Any) -> Any:
    if tf.is_tensor(value) or value is None:
        return value
    # The hint is only for Python numbers, which have no dtype; TensorFlow would also cast integer arrays.
    return tf.convert_to_tensor(value, dtype_hint=None if hasattr(value, "dtype") else hint)


def _dtype(value: Any) -> Any:
    return getattr(value, "dtype", None)


def _castable(tensor: Any, dtype: Any) -> bool:
    found = _dtype(tensor)
    return found == dtype or bool(found and dtype and found.is_floating and dtype.is_floating)


def _cast(tensor: Any, dtype: Any) -> Any:
    castable = dtype is not None and _dtype(tensor) != dtype and _castable(tensor, dtype)
    return tf.cast(tensor, dtype) if castable else tensor
