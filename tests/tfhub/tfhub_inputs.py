"""Checks: the dtypes of inputs, mixed precision, words, `load` and `resolve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfhub_modules import KERNEL, module
from tfhub_promises import BN, X, equal, fresh, keras_of, promise, refused


@promise("9.1", original=False)
def a_module_keeps_its_dtype_under_mixed_precision(hub: Any, folder: Path) -> None:
    """Works under mixed precision: the module keeps its own dtype."""
    keras = keras_of(hub)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layer = hub.KerasLayer(module(folder, "feature_vector"))
        model = keras.Sequential(
            [layer, keras.layers.Dense(2)]
        )  # no Input: Keras makes one of the layer's dtype
        model.build((None, 2))
        fine = np.array([[1.001, 2.003]], np.float32)  # which bfloat16 would round to 1, 2
        features = layer(fine)
        whole = keras.Model(model.inputs[0], model.layers[0].output)(fine)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    expected = fine @ np.asarray(KERNEL) / np.sqrt(1.001)
    for found in (features, whole):
        assert found.dtype == tf.float32
        equal(found, expected)
    assert {str(weight.dtype) for weight in layer.weights} == {"float32"}


@promise("9.2", original=False)
def floats_are_cast_to_the_dtypes_of_the_trace(hub: Any, folder: Path) -> None:
    """Works under mixed precision: each input gets the dtype that the module was traced with."""
    layer = hub.KerasLayer(module(folder, "mixed_dtypes"))
    outputs = layer({"ids": np.array([1, 0], np.int32), "weights": np.array([[1, 2], [3, 4]], np.float64)})
    assert outputs.dtype == tf.float16
    equal(outputs, [[3, 8], [3, 8]])
    equal(hub.KerasLayer(module(folder, "feature_vector"))(tf.cast(X, tf.bfloat16)), BN)


@promise("9.3")
def integers_are_not_taken_for_floats(hub: Any, folder: Path) -> None:
    """0..255 integers are not silently taken for floats in [0, 1]."""
    with refused((ValueError, TypeError), "matching", "uint8"):
        hub.KerasLayer(module(folder, "images"))(np.zeros((1, 8, 8, 3), np.uint8))


@promise("10.1")
def words_go_in(hub: Any, folder: Path) -> None:
    """String-input modules work, with their vocabulary file and table."""
    layer = hub.KerasLayer(module(folder, "strings"), dtype=tf.string)
    equal(layer(tf.constant(["root", "stone", "leaf"])), [[10, 11], [-1, -1], [0, 1]])


@promise("10.2")
def words_need_no_dtype(hub: Any, folder: Path) -> None:
    """String-input modules work as NumPy arrays and lists, without `dtype`."""
    layer = hub.KerasLayer(module(folder, "strings"))
    equal(layer(np.array(["root"])), [[10, 11]])
    equal(layer(["bark", "leaf"]), [[20, 21], [0, 1]])


@promise("10.3")
def words_go_into_a_sequential(hub: Any, folder: Path) -> None:
    """Also as `KerasLayer(h, input_shape=[], dtype=tf.string)` first in a Sequential."""
    keras = keras_of(hub)
    layer = hub.KerasLayer(module(folder, "strings"), input_shape=[], dtype=tf.string, trainable=True)
    model = keras.Sequential([layer, keras.layers.Dense(1, kernel_initializer="ones")])
    assert (model.inputs[0].dtype, tuple(model.inputs[0].shape)) == ("string", (None,))
    equal(model(tf.constant(["root", "bark"])), [[21], [41]])
    model.compile("sgd", "mse")
    model.fit(tf.constant(["root", "bark"]), tf.constant([[0.0], [0.0]]), verbose=0)
    assert float(model(tf.constant(["bark"]))[0, 0]) != 41
    again = hub.KerasLayer.from_config(layer.get_config())
    assert tuple(keras.Sequential([again, keras.layers.Dense(1)]).input_shape) == (None,)


@promise("16.1")
def load_gives_the_object(hub: Any, folder: Path) -> None:
    """`load(handle)` is `tf.saved_model.load` of what `resolve(handle)` gives."""
    handle = module(folder, "serving")
    assert hub.resolve(handle) == handle
    loaded = hub.load(handle)
    equal(loaded(tf.constant(X)), BN)
    assert set(loaded.signatures) == {"serving_default", "other"}
    assert set(hub.load(module(folder, "legacy")).signatures) == {"default"}


@promise("16.2")
def load_refuses_what_is_no_saved_model(hub: Any, folder: Path) -> None:
    """A folder without a SavedModel: ValueError that says what was expected."""
    with refused(ValueError, "saved_model.pb"):
        hub.load(str(fresh(folder)))


@promise("16.3")
def load_options_and_tags_reach_tensorflow(hub: Any, folder: Path) -> None:
    """`load(handle, tags, options)` hands both on."""
    handle = module(folder, "feature_vector")
    options = tf.saved_model.LoadOptions(experimental_skip_checkpoint=True)
    loaded = hub.load(handle, tags=["serve"], options=options)
    assert not loaded.inner.kernel.is_initialized()  # no weights were read, as the options ask
    with refused((ValueError, RuntimeError), "nowhere"):
        hub.load(handle, tags=["nowhere"])
    with refused((ValueError, RuntimeError), "nowhere"):
        hub.KerasLayer(handle, tags=["nowhere"])


@promise("16.4", original=False)
def optimizer_slots_say_the_mend(hub: Any, folder: Path) -> None:
    """SavedModels with Keras 2 optimizer slots fail unless tf_keras is imported first: the error says so."""
    with refused(Exception, "import tf_keras"):
        hub.load(module(folder, "optimizer_slots"))
