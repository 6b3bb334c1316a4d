"""Checks: handles, signatures, nests of inputs and outputs, the `training` argument."""

from __future__ import annotations

import pathlib
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfhub_modules import KERNEL, module
from tfhub_promises import BN, X, differ, equal, promise, refused

TWICE = np.asarray(2 * X)


class Recorder:
    """A callable that notes what it is called with."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, x: Any, training: Any = "not given", **others: Any) -> Any:
        self.calls.append({"x": x, "training": training, **others})
        return tf.convert_to_tensor(x) * 2


@promise("1.1")
def a_handle_is_a_text(hub: Any, folder: Path) -> None:
    """`handle`: string."""
    equal(hub.KerasLayer(module(folder, "feature_vector"))(X), BN)


@promise("1.2", original=False)
def a_handle_is_a_path(hub: Any, folder: Path) -> None:
    """`handle`: a path object too, kept as a text."""
    layer = hub.KerasLayer(pathlib.Path(module(folder, "feature_vector")))
    equal(layer(X), BN)
    assert layer.get_config()["handle"] == module(folder, "feature_vector")


@promise("1.3")
def a_handle_is_a_callable(hub: Any, folder: Path) -> None:
    """`handle`: callable: a function, and an object that was loaded."""
    equal(hub.KerasLayer(lambda x: 2 * x)(X), TWICE)
    loaded = hub.load(module(folder, "feature_vector"))
    layer = hub.KerasLayer(loaded, trainable=True)
    equal(layer(X), BN)
    assert len(layer.trainable_weights) == 3


@promise("1.4")
def a_callable_excludes_tags(hub: Any, folder: Path) -> None:
    """A callable excludes `tags`."""
    with refused(ValueError, "tags"):
        hub.KerasLayer(lambda x: x, tags=["serve"])


@promise("1.5")
def a_callable_excludes_load_options(hub: Any, folder: Path) -> None:
    """A callable excludes `load_options`."""
    with refused(ValueError, "load_options"):
        hub.KerasLayer(lambda x: x, load_options=tf.saved_model.LoadOptions())


@promise("1.6")
def other_handles_are_refused(hub: Any, folder: Path) -> None:
    """`handle`: nothing else."""
    with refused(ValueError, "got 7", "string, got"):
        hub.KerasLayer(7)


@promise("2.1")
def a_signature_is_called(hub: Any, folder: Path) -> None:
    """With a signature, that is called, not the object."""
    layer = hub.KerasLayer(module(folder, "serving"), signature="other", output_key="negative")
    equal(layer(X), -X)


@promise("2.2")
def a_signature_needs_a_choice_of_outputs(hub: Any, folder: Path) -> None:
    """With a signature neither `output_key` nor `signature_outputs_as_dict`: ValueError at construction."""
    with refused(ValueError, "output_key"):
        hub.KerasLayer(module(folder, "serving"), signature="other")


@promise("2.3")
def a_signature_refuses_two_choices_of_outputs(hub: Any, folder: Path) -> None:
    """With a signature both `output_key` and `signature_outputs_as_dict`: ValueError at construction."""
    choices = {"output_key": "negative", "signature_outputs_as_dict": True}
    with refused(ValueError, "output_key"):
        hub.KerasLayer(module(folder, "serving"), signature="other", **choices)


@promise("2.4")
def signature_outputs_as_dict_gives_all(hub: Any, folder: Path) -> None:
    """`signature_outputs_as_dict=True` returns a dict of all outputs."""
    handle = module(folder, "serving")
    outputs = hub.KerasLayer(handle, signature="serving_default", signature_outputs_as_dict=True)(X)
    assert sorted(outputs) == ["features", "twice"]
    equal(outputs["twice"], 2 * BN)


@promise("2.5")
def outputs_as_dict_needs_a_signature(hub: Any, folder: Path) -> None:
    """`signature_outputs_as_dict` without a signature: ValueError."""
    with refused(ValueError, "signature"):
        hub.KerasLayer(module(folder, "feature_vector"), signature_outputs_as_dict=True)


@promise("2.6")
def a_legacy_module_has_defaults(hub: Any, folder: Path) -> None:
    """A TF1-Hub module's signature defaults to "default", and its output too."""
    equal(hub.KerasLayer(module(folder, "legacy"))(X), X @ np.asarray(KERNEL))


@promise("2.7")
def a_legacy_module_gives_all_outputs(hub: Any, folder: Path) -> None:
    """A TF1-Hub module with `signature_outputs_as_dict=True`."""
    outputs = hub.KerasLayer(module(folder, "legacy"), signature_outputs_as_dict=True)(X)
    assert sorted(outputs) == ["default", "twice"]


@promise("2.8")
def a_dict_becomes_keyword_arguments_with_a_signature(hub: Any, folder: Path) -> None:
    """Dict inputs become keyword arguments with a signature."""
    layer = hub.KerasLayer(module(folder, "dict"), signature="pair", output_key="difference")
    equal(layer({"a": tf.constant(X), "b": tf.constant(TWICE)}), -X)


@promise("2.9")
def otherwise_a_dict_is_one_argument(hub: Any, folder: Path) -> None:
    """Without a signature a dict is ONE positional argument; and a dict comes out."""
    outputs = hub.KerasLayer(module(folder, "dict"))({"a": tf.constant(X), "b": tf.constant(TWICE)})
    equal(outputs["sum"], 3 * X)
    equal(outputs["first"], X[:, :1])
    recorder = Recorder()
    hub.KerasLayer(lambda xs: recorder(xs["x"]))({"x": tf.constant(X)})
    assert len(recorder.calls) == 1


@promise("2.10")
def a_list_is_one_argument(hub: Any, folder: Path) -> None:
    """A list is ONE positional argument; and a list comes out."""
    outputs = hub.KerasLayer(module(folder, "list"))([tf.constant(X), tf.constant(TWICE)])
    assert len(outputs) == 2
    equal(outputs[0], 3 * X)


@promise("2.11")
def unknown_signatures_are_refused(hub: Any, folder: Path) -> None:
    """An unknown signature: ValueError that lists the known ones."""
    with refused(ValueError, "serving_default"):
        hub.KerasLayer(module(folder, "serving"), signature="serving_defalt", output_key="twice")


@promise("3.1")
def a_trainable_signature_fails_at_the_call(hub: Any, folder: Path) -> None:
    """Trainable with a signature: ValueError at call time, not before; set to frozen, it works."""
    layer = hub.KerasLayer(
        module(folder, "serving"), trainable=True, signature="other", output_key="negative"
    )
    with refused(ValueError, "rainable"):
        layer(X)
    layer.trainable = False
    equal(layer(X), -X)


@promise("3.2")
def a_trainable_legacy_module_fails_at_the_call(hub: Any, folder: Path) -> None:
    """Trainable with a TF1-Hub module: ValueError at call time."""
    layer = hub.KerasLayer(module(folder, "legacy"), trainable=True)
    with refused(ValueError, "TF1"):
        layer(X)


@promise("4.1")
def training_is_passed_only_where_it_is_taken(hub: Any, folder: Path) -> None:
    """`training` is passed only if `__call__` takes it."""
    layer = hub.KerasLayer(module(folder, "arguments"), trainable=True)
    equal(layer(X, training=True), X)
    recorder = Recorder()
    taker = hub.KerasLayer(recorder, trainable=True)
    taker(X, training=True)
    assert recorder.calls[-1]["training"] is True


@promise("4.2")
def training_is_a_python_bool(hub: Any, folder: Path) -> None:
    """`training` is passed as a Python bool, whatever came: also 0 and 1, tensors and nothing."""
    recorder = Recorder()
    layer = hub.KerasLayer(recorder, trainable=True)
    for training in (True, False, 1, 0, None, tf.constant(True), tf.constant(False)):
        layer(X, training=training)
        assert recorder.calls[-1]["training"] is (training is not None and bool(training))


@promise("4.3")
def a_frozen_layer_never_trains(hub: Any, folder: Path) -> None:
    """`training` equals `self.trainable and training`, as `trainable` is at the call."""
    recorder = Recorder()
    layer = hub.KerasLayer(recorder)
    for trainable in (False, True, False):
        layer.trainable = trainable
        layer(X, training=True)
        assert recorder.calls[-1]["training"] is trainable


@promise("4.4")
def a_signature_never_receives_training(hub: Any, folder: Path) -> None:
    """A named signature never receives `training`, even if it has an input of that name."""
    layer = hub.KerasLayer(module(folder, "signature_only"), signature="takes_training", output_key="chosen")
    inputs = {"x": tf.constant(X), "training": tf.constant(True)}
    equal(layer(inputs, training=False), X)


@promise("4.5")
def an_unknown_training_is_decided_in_the_graph(hub: Any, folder: Path) -> None:
    """`training` may be a tensor whose value only the running graph knows."""
    layer = hub.KerasLayer(module(folder, "steady"), trainable=True)
    run = tf.function(lambda training: layer(tf.constant(X), training=training))
    equal(run(tf.constant(False)), BN)
    differ(run(tf.constant(True)), BN)


@promise("11.1")
def output_key_narrows_a_plain_call(hub: Any, folder: Path) -> None:
    """`output_key` also narrows a dict returned by a plain call."""
    layer = hub.KerasLayer(module(folder, "dict"), output_key="first")
    equal(layer({"a": tf.constant(X), "b": tf.constant(X)}), X[:, :1])


@promise("11.2")
def a_missing_key_fails_at_the_call(hub: Any, folder: Path) -> None:
    """A missing key is a ValueError at the call."""
    layer = hub.KerasLayer(module(folder, "dict"), output_key="frist")
    with refused(ValueError, "frist"):
        layer({"a": tf.constant(X), "b": tf.constant(X)})


@promise("11.3")
def a_key_needs_a_dict(hub: Any, folder: Path) -> None:
    """`output_key` for a module that returns no dict is a ValueError at the call."""
    layer = hub.KerasLayer(module(folder, "feature_vector"), output_key="features")
    with refused(ValueError, "dict"):
        layer(X)
