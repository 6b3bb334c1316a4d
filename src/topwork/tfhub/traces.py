"""What a module's function takes: its `training` argument, and the structure and dtypes it was traced with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from topwork.tfhub.frameworks import keras, tf

Nest = Any  # a tensor (or its spec, or its shape), or lists, tuples and dicts of them


def takes_training(function: Callable[..., Any]) -> bool:
    """Whether `training` is among the named parameters of the function, or of the object's `__call__`."""
    called: Any = function.call if isinstance(function, keras.layers.Layer) else function
    for candidate in (called.__call__, called):
        try:
            parameters = inspect.signature(candidate).parameters
        except (TypeError, ValueError):  # built-in callables have none
            continue
        if "training" in parameters:
            return True
    return False


def input_specs(function: Callable[..., Any]) -> list[Nest]:
    """What each trace takes as its first positional argument: nests of `tf.TensorSpec`; none if never traced."""
    call = function if hasattr(function, "concrete_functions") else getattr(function, "__call__", None)  # noqa: B004
    traces = [trace.structured_input_signature for trace in getattr(call, "concrete_functions", ())]
    firsts = [positional[0] for positional, _ in traces if positional]
    for declared in (getattr(function, "input_signature", None), getattr(call, "input_signature", None)):
        if not firsts and declared:
            firsts = [declared[0]]
    return firsts


def signature_specs(signature: Any) -> dict[str, Any]:
    """What a signature takes: name → `tf.TensorSpec`."""
    structured = signature.structured_input_signature
    return dict(structured[1]) if structured else {}


def common_dtype(specs: Sequence[Nest]) -> str | None:
    """The one dtype of all inputs in all traces; None if there are several, or no trace."""
    dtypes = {leaf.dtype.name for leaf in tf.nest.flatten(list(specs)) if hasattr(leaf, "dtype")}
    return dtypes.pop() if len(dtypes) == 1 else None


def conform(inputs: Nest, specs: Sequence[Nest], fallback: str | None) -> Nest:
    """The inputs as tensors that a trace accepts: floats get the float dtype that it was traced with.

    A trace that needs no cast goes first. No other cast is made: 0..255 integers are not 0..1 floats. With no
    trace, floats become `fallback` (None: they stay).
    """
    cast: Nest = None
    for spec in specs:
        try:
            tensors = keras.tree.map_structure_up_to(spec, _tensor_like, spec, inputs)
        except (TypeError, ValueError):  # another structure
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
    """Keras' stand-ins for tensors of these shapes, with the dtypes of a trace of as many inputs."""
    count = len(keras.tree.flatten(keras.tree.map_shape_structure(lambda _: 0, shapes)))
    of_count = [leaves for spec in specs if len(leaves := tf.nest.flatten(spec)) == count]
    dtypes = iter([leaf.dtype.name for leaf in of_count[0]] if of_count else [fallback] * count)
    return keras.tree.map_shape_structure(lambda shape: keras.KerasTensor(shape, dtype=next(dtypes)), shapes)


def _tensor_like(spec: Any, value: Any) -> Any:
    return _tensor(value, _dtype(spec))


def _tensor(value: Any, hint: Any) -> Any:
    if tf.is_tensor(value) or value is None:
        return value
    # Python numbers have no dtype of their own; with a hint, TensorFlow would cast an array's integers too.
    return tf.convert_to_tensor(value, dtype_hint=None if hasattr(value, "dtype") else hint)


def _dtype(value: Any) -> Any:
    return getattr(value, "dtype", None)


def _castable(tensor: Any, dtype: Any) -> bool:
    found = _dtype(tensor)
    return found == dtype or bool(found and dtype and found.is_floating and dtype.is_floating)


def _cast(tensor: Any, dtype: Any) -> Any:
    castable = dtype is not None and _dtype(tensor) != dtype and _castable(tensor, dtype)
    return tf.cast(tensor, dtype) if castable else tensor
