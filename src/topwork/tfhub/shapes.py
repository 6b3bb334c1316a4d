"""`output_shape`: the shape, or nest of shapes, of a module's outputs without the batch dimension."""

from __future__ import annotations

from typing import Any

from topwork.errors import InputError
from topwork.tfhub.frameworks import tf

Nest = Any


def to_shapes(given: Nest) -> Nest:
    """The nest with each tuple or list of sizes converted to a `tf.TensorShape`.

    Raises:
        InputError: an element is neither a shape nor a list, tuple or dict.
    """
    if isinstance(given, dict):
        return {key: to_shapes(value) for key, value in given.items()}
    if isinstance(given, tf.TensorShape):
        return given
    if isinstance(given, list | tuple):
        if all(size is None or isinstance(size, int) for size in given):
            return tf.TensorShape(given)
        return type(given)([to_shapes(value) for value in given])
    raise InputError(
        "`output_shape` must be a shape without the batch dimension, such as (1280,), or a list, tuple or dict of "
        f"such shapes; got {given!r}"
    )


def from_shapes(shapes: Nest) -> Nest:
    """The inverse of `to_shapes`: plain tuples, for a config."""
    return tf.nest.map_structure(lambda shape: tuple(shape.as_list()), shapes)


def batched(shapes: Nest, batch_size: int | None) -> Nest:
    """The shapes with the batch dimension first, as tuples."""
    return tf.nest.map_structure(lambda shape: (batch_size, *shape.as_list()), shapes)


def set_shapes(outputs: Nest, shapes: Nest, inputs: Nest) -> None:
    """Set the static shapes of the outputs. The batch size is the first input's, if it is known.

    Raises:
        InputError: the nests differ, or an output has another shape.
    """
    first = tf.nest.flatten(inputs)[0].shape
    batch_size = tf.TensorShape([first[0] if first.rank else None])
    try:
        tf.nest.assert_same_structure(outputs, shapes, check_types=False)
        for tensor, shape in zip(tf.nest.flatten(outputs), tf.nest.flatten(shapes), strict=True):
            if hasattr(tensor, "set_shape"):  # ragged tensors have no set_shape
                tensor.set_shape(batch_size.concatenate(shape))
    except (TypeError, ValueError) as error:
        found = tf.nest.map_structure(lambda tensor: tuple(tensor.shape), outputs)
        raise InputError(
            f"`output_shape`={from_shapes(shapes)!r} doesn't match the module's outputs, whose shapes are {found!r}. "
            "Pass one shape, without the batch dimension, for each output"
        ) from error
