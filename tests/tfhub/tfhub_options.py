"""Checks: `arguments`, `output_shape`, symbolic shapes and dtypes, the config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfhub_modules import module
from tfhub_promises import X, equal, keras_of, promise, refused


def shape(tensor: Any) -> tuple[int | None, ...]:
    return tuple(tensor.shape)


@promise("7.1")
def arguments_go_along(hub: Any, folder: Path) -> None:
    """`arguments`: extra keyword arguments for each call."""
    handle = module(folder, "arguments")
    equal(hub.KerasLayer(handle)(X), X)
    equal(hub.KerasLayer(handle, arguments={"scale": 3.0})(X), 3 * X)
    equal(hub.KerasLayer(handle, arguments={"scale": 3.0, "shift": 10.0})(X), 3 * X + 10)


@promise("7.2")
def arguments_go_along_with_a_signature(hub: Any, folder: Path) -> None:
    """`arguments` beside a dict of inputs; an input of that name goes first."""
    handle = module(folder, "dict")
    kwargs = {"signature": "pair", "output_key": "difference", "arguments": {"b": tf.ones((4, 2))}}
    layer = hub.KerasLayer(handle, **kwargs)
    equal(layer({"a": tf.constant(X)}), X - 1)
    equal(layer({"a": tf.constant(X), "b": tf.zeros((4, 2))}), X)


@promise("7.3")
def output_shape_settles_a_shape(hub: Any, folder: Path) -> None:
    """`output_shape`, without the batch dimension, settles what the module doesn't tell."""
    keras = keras_of(hub)
    layer = hub.KerasLayer(module(folder, "unknown_shape"), output_shape=(2,))
    assert shape(layer(keras.Input((2,), batch_size=5))) == (5, 2)
    equal(layer(X), X)


@promise("7.4")
def output_shape_may_be_a_list(hub: Any, folder: Path) -> None:
    """`output_shape` written as a list, or a list of shapes for a list of outputs."""
    keras = keras_of(hub)
    one = hub.KerasLayer(module(folder, "unknown_shape"), output_shape=[2])
    assert shape(one(keras.Input((2,), batch_size=5))) == (5, 2)
    two = hub.KerasLayer(module(folder, "list"), output_shape=[[2], (1,)])
    outputs = two([keras.Input((2,), batch_size=5), keras.Input((2,), batch_size=5)])
    assert [shape(output) for output in outputs] == [(5, 2), (5, 1)]


@promise("7.5")
def output_shape_may_be_a_nest(hub: Any, folder: Path) -> None:
    """`output_shape` may be nested: dicts and lists."""
    keras = keras_of(hub)
    shapes = {"same": (2,), "deep": [(2,), (1, 2)]}
    outputs = hub.KerasLayer(module(folder, "unknown_shapes"), output_shape=shapes)(
        keras.Input((2,), batch_size=5)
    )
    assert shape(outputs["same"]) == shape(outputs["deep"][0]) == (5, 2)
    assert shape(outputs["deep"][1]) == (5, 1, 2)


@promise("7.6")
def a_wrong_output_shape_is_refused(hub: Any, folder: Path) -> None:
    """An `output_shape` that the output doesn't have is a ValueError."""
    with refused(ValueError, "output_shape", "not compatible"):
        hub.KerasLayer(module(folder, "feature_vector"), output_shape=(7,))(X)


@promise("7.7", original=False)
def an_output_shape_of_another_structure_is_refused(hub: Any, folder: Path) -> None:
    """So is one of another structure than the outputs; and one that is no shape, at construction."""
    with refused(ValueError, "doesn't match"):
        hub.KerasLayer(module(folder, "dict"), output_shape={"sum": (2,)})(
            {"a": tf.constant(X), "b": tf.constant(X)}
        )
    with refused(ValueError, "`output_shape` must be"):
        hub.KerasLayer(module(folder, "dict"), output_shape="wide")


@promise("12.1", original=False)
def output_shape_holds_for_any_batch_size(hub: Any, folder: Path) -> None:
    """`output_shape` settles symbolic shapes also with unknown batch size: (None, 2)."""
    keras = keras_of(hub)
    layer = hub.KerasLayer(module(folder, "unknown_shape"), output_shape=(2,))
    outputs = layer(keras.Input((2,)))
    assert shape(outputs) == (None, 2)
    assert shape(keras.layers.Dense(3)(outputs)) == (None, 3)


@promise("12.2", original=False)
def an_unknown_shape_asks_for_output_shape(hub: Any, folder: Path) -> None:
    """Without it, the error asks for it."""
    with refused(ValueError, "Pass `output_shape`"):
        hub.KerasLayer(module(folder, "unknown_shape"))(keras_of(hub).Input((2,)))


@promise("12.3")
def symbolic_shapes_come_from_the_module(hub: Any, folder: Path) -> None:
    """A feature vector is `[B, num_features]`, symbolically too."""
    keras = keras_of(hub)
    assert shape(hub.KerasLayer(module(folder, "feature_vector"))(keras.Input((2,)))) == (None, 3)
    pictures = hub.KerasLayer(module(folder, "images"))(keras.Input((8, 8, 3)))
    assert (shape(pictures), pictures.dtype) == ((None, 3), "float32")


@promise("12.4")
def symbolic_dtypes_come_from_the_module(hub: Any, folder: Path) -> None:
    """A string module gives floats, symbolically too, whatever the layer's own dtype."""
    keras = keras_of(hub)
    outputs = hub.KerasLayer(module(folder, "strings"), dtype=tf.string)(keras.Input((), dtype=tf.string))
    assert (shape(outputs), outputs.dtype) == ((None, 2), "float32")


@promise("12.5")
def compute_output_shape_works(hub: Any, folder: Path) -> None:
    """`compute_output_shape` works with what `output_shape` says, and with what the module says."""
    said = hub.KerasLayer(module(folder, "unknown_shape"), output_shape=(2,))
    assert tuple(said.compute_output_shape((5, 2))) == (5, 2)
    found = hub.KerasLayer(module(folder, "feature_vector"))
    assert tuple(found.compute_output_shape((5, 2))) == (5, 3)


@promise("12.6", original=False)
def compute_output_shape_works_for_words_and_nests(hub: Any, folder: Path) -> None:
    """`compute_output_shape` knows the inputs' dtypes from the trace, and takes and gives nests."""
    words = hub.KerasLayer(module(folder, "strings"))
    assert tuple(words.compute_output_shape((None,))) == (None, 2)
    nest = hub.KerasLayer(module(folder, "dict"))
    assert nest.compute_output_shape({"a": (5, 2), "b": (5, 2)}) == {"sum": (5, 2), "first": (5, 1)}
    said = hub.KerasLayer(
        module(folder, "unknown_shapes"), output_shape={"same": (2,), "deep": [(2,), (1, 2)]}
    )
    assert said.compute_output_shape((None, 2)) == {"same": (None, 2), "deep": [(None, 2), (None, 1, 2)]}
    mixed = hub.KerasLayer(module(folder, "mixed_dtypes"))
    assert tuple(mixed.compute_output_shape({"ids": (4,), "weights": (4, 2)})) == (4, 2)


@promise("8.1")
def the_config_keeps_the_handle_and_trainable(hub: Any, folder: Path) -> None:
    """Config round trip keeps handle, trainable and name."""
    layer = hub.KerasLayer(module(folder, "feature_vector"), trainable=True, name="trunk")
    config = layer.get_config()
    assert config["handle"] == module(folder, "feature_vector")
    again = hub.KerasLayer.from_config(config)
    assert (again.trainable, again.name, len(again.trainable_weights)) == (True, "trunk", 3)
    equal(again(X), layer(X))
    assert not hub.KerasLayer.from_config(hub.KerasLayer(config["handle"]).get_config()).trainable


@promise("8.2")
def the_config_keeps_arguments(hub: Any, folder: Path) -> None:
    """Config round trip keeps arguments."""
    layer = hub.KerasLayer(module(folder, "arguments"), arguments={"scale": 3.0})
    assert layer.get_config()["arguments"] == {"scale": 3.0}
    equal(hub.KerasLayer.from_config(layer.get_config())(X), 3 * X)


@promise("8.3")
def the_config_keeps_the_signature_and_the_key(hub: Any, folder: Path) -> None:
    """Config round trip keeps signature and output_key."""
    layer = hub.KerasLayer(module(folder, "serving"), signature="other", output_key="negative")
    config = layer.get_config()
    assert (config["signature"], config["output_key"]) == ("other", "negative")
    equal(hub.KerasLayer.from_config(config)(X), -X)


@promise("8.4")
def the_config_keeps_outputs_as_dict(hub: Any, folder: Path) -> None:
    """Config round trip keeps signature_outputs_as_dict."""
    layer = hub.KerasLayer(module(folder, "legacy"), signature_outputs_as_dict=True)
    config = layer.get_config()
    assert config["signature_outputs_as_dict"] is True
    assert sorted(hub.KerasLayer.from_config(config)(X)) == ["default", "twice"]


@promise("8.5")
def the_config_keeps_output_shape(hub: Any, folder: Path) -> None:
    """Config round trip keeps output_shape, nested too."""
    keras = keras_of(hub)
    shapes = {"same": (2,), "deep": [(2,), (None, 2)]}
    layer = hub.KerasLayer(module(folder, "unknown_shapes"), output_shape=shapes)
    again = hub.KerasLayer.from_config(layer.get_config())
    assert again.get_config()["output_shape"] == shapes
    outputs = again(keras.Input((2,), batch_size=5))
    assert shape(outputs["deep"][1]) == (5, None, 2)


@promise("8.6", original=False)
def the_config_keeps_tags(hub: Any, folder: Path) -> None:
    """Config round trip keeps tags."""
    layer = hub.KerasLayer(module(folder, "feature_vector"), tags={"serve"})
    assert layer.get_config()["tags"] == ["serve"]
    equal(hub.KerasLayer.from_config(layer.get_config())(X), layer(X))


@promise("8.7")
def a_callable_has_no_config(hub: Any, folder: Path) -> None:
    """A non-string handle can't be serialised: NotImplementedError."""
    with refused(NotImplementedError, "handle"):
        hub.KerasLayer(lambda x: x).get_config()


@promise("8.8")
def arguments_must_be_json(hub: Any, folder: Path) -> None:
    """`arguments` that JSON can't hold: ValueError that names the argument."""
    layer = hub.KerasLayer(module(folder, "arguments"), arguments={"scale": np.float32(3)})
    with refused(ValueError, "scale"):
        layer.get_config()


@promise("8.9")
def resolved_object_is_the_loaded_object(hub: Any, folder: Path) -> None:
    """`resolved_object` is the loaded object, or the callable that was given."""
    layer = hub.KerasLayer(module(folder, "serving"), signature="other", output_key="negative")
    equal(layer.resolved_object(tf.constant(X)), hub.KerasLayer(module(folder, "serving"))(X))
    assert "serving_default" in layer.resolved_object.signatures

    def double(x: Any) -> Any:
        return 2 * x

    assert hub.KerasLayer(double).resolved_object is double
