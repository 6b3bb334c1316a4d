"""Checks: `.keras` files and Keras' safe mode, weights files, clones, SavedModels of models with a module inside."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfhub_modules import KERNEL, module
from tfhub_promises import X, classifier, differ, equal, fit, fresh, keras_of, promise, refused, values


def saved(model: Any, folder: Path) -> str:
    path = str(fresh(folder) / "model.keras")
    model.save(path)
    return path


def export(model: Any, path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):  # Keras tells what it exports
        model.export(str(path))


@promise("13.1", original=False)
def safe_mode_refuses_a_keras_file(hub: Any, folder: Path) -> None:
    """A `.keras` file holding the layer is refused in Keras' safe mode; the error names the handle and the mend."""
    keras = keras_of(hub)
    model, _ = classifier(hub, module(folder, "feature_vector"))
    path = saved(model, folder)
    for custom in ({}, {"KerasLayer": hub.KerasLayer}):
        with refused(ValueError, "safe_mode=False"):
            keras.models.load_model(path, custom_objects=custom)
    with refused(ValueError, module(folder, "feature_vector")):
        keras.models.load_model(path)


@promise("13.2", original=False)
def safe_mode_refuses_before_the_module_is_loaded(hub: Any, folder: Path) -> None:
    """Safe mode refuses without touching the handle."""
    keras = keras_of(hub)
    model, _ = classifier(hub, module(folder, "feature_vector"))
    path = Path(saved(model, folder))
    foreign = path.with_name("foreign.keras")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(foreign, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name == "config.json":
                text = text.replace(json.dumps(module(folder, "feature_vector")).encode(), b'"/not/there"')
            new.writestr(name, text)
    with refused(ValueError, "safe_mode=False"):
        keras.models.load_model(str(foreign))


@promise("13.3")
def a_keras_file_keeps_what_was_learned(hub: Any, folder: Path) -> None:
    """A `.keras` file loads with `safe_mode=False`: weights that were trained, statistics, predictions."""
    keras = keras_of(hub)
    model, layer = classifier(hub, module(folder, "steady"), trainable=True)
    published = values(layer)
    fit(model, 3)
    again = keras.models.load_model(
        saved(model, folder), custom_objects={"KerasLayer": hub.KerasLayer}, safe_mode=False
    )
    found = values(again.layers[0])
    for name, value in values(layer).items():
        equal(found[name], value)
        differ(value, published[name])
    equal(again(X), model(X))
    assert again.layers[0].trainable


@promise("13.4", original=False)
def a_keras_file_needs_no_custom_objects(hub: Any, folder: Path) -> None:
    """A `.keras` file loads without `custom_objects` where the library was imported."""
    keras = keras_of(hub)
    model, _ = classifier(hub, module(folder, "steady"))
    again = keras.models.load_model(saved(model, folder), safe_mode=False)
    assert type(again.layers[0]) is hub.KerasLayer
    equal(again(X), model(X))


@promise("13.5")
def a_keras_file_keeps_a_frozen_one_frozen(hub: Any, folder: Path) -> None:
    """A frozen layer is frozen again, and can be thawed with all of its weights."""
    keras = keras_of(hub)
    model, _ = classifier(hub, module(folder, "steady"))
    path = saved(model, folder)
    again = keras.models.load_model(path, custom_objects={"KerasLayer": hub.KerasLayer}, safe_mode=False)
    before = values(again.layers[0])
    fit(again)
    for name, value in values(again.layers[0]).items():
        equal(value, before[name])
    again.layers[0].trainable = True
    assert len(again.trainable_weights) == 5


@promise("13.6")
def a_keras_file_keeps_words(hub: Any, folder: Path) -> None:
    """A `.keras` file with a string module: its table is there again, and what it learned."""
    keras = keras_of(hub)
    layer = hub.KerasLayer(module(folder, "strings"), input_shape=[], dtype=tf.string, trainable=True)
    model = keras.Sequential([layer, keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile("sgd", "mse")
    model.fit(tf.constant(["root"]), tf.constant([[0.0]]), verbose=0)
    words = tf.constant(["root", "bark", "stone"])
    path = saved(model, folder)
    again = keras.models.load_model(path, custom_objects={"KerasLayer": hub.KerasLayer}, safe_mode=False)
    differ(layer(words)[0], [10, 11])
    equal(again(words), model(words))


@promise("13.7")
def a_model_can_be_cloned(hub: Any, folder: Path) -> None:
    """A user's own `clone_model` needs no leave: the clone has the module's published weights of its own."""
    keras = keras_of(hub)
    model, layer = classifier(hub, module(folder, "steady"), trainable=True)
    fit(model)
    clone = keras.models.clone_model(model)
    equal(clone.layers[0](X), hub.KerasLayer(module(folder, "steady"))(X))
    differ(clone.layers[0](X), layer(X))
    clone.set_weights(model.get_weights())
    equal(clone(X), model(X))


@promise("13.8")
def a_weights_file_goes_back_and_forth(hub: Any, folder: Path) -> None:
    """`save_weights` and `load_weights`, in a fixed order, into a frozen layer too."""
    model, _ = classifier(hub, module(folder, "steady"), trainable=True)
    fit(model, 3)
    path = str(fresh(folder) / "m.weights.h5")
    model.save_weights(path)
    again, _ = classifier(hub, module(folder, "steady"))
    differ(again(X), model(X))
    again.load_weights(path)
    equal(again(X), model(X))


@promise("10.4")
def words_are_exported_with_their_assets(hub: Any, folder: Path) -> None:
    """A model that holds a string module can be exported as a SavedModel with its assets."""
    keras = keras_of(hub)
    layer = hub.KerasLayer(module(folder, "strings"), input_shape=[], dtype=tf.string)
    model = keras.Sequential([layer, keras.layers.Dense(1, kernel_initializer="ones")])
    path = fresh(folder) / "exported"
    export(model, path)
    assert [file.name for file in (path / "assets").iterdir()] == ["vocabulary.txt"]
    moved = path.with_name("moved")
    shutil.move(path, moved)  # nothing may point to where the first module was
    words = tf.constant(["root", "stone"])
    loaded = tf.saved_model.load(str(moved))
    equal(loaded.serve(words), [[21], [-2]])


@promise("10.5")
def tf_saved_model_save_takes_it(hub: Any, folder: Path) -> None:
    """`tf.saved_model.save` of the layer alone: its table, assets and weights go along."""
    layer = hub.KerasLayer(module(folder, "strings"), dtype=tf.string)
    layer(tf.constant(["root"]))
    layer.weights[0].assign(layer.weights[0].numpy() + 100)
    serve = tf.function(layer.__call__, input_signature=[tf.TensorSpec([None], tf.string)])
    path = fresh(folder)
    tf.saved_model.save(layer, str(path), signatures={"serve": serve})
    assert [file.name for file in (path / "assets").iterdir()] == ["vocabulary.txt"]
    outputs = tf.saved_model.load(str(path)).signatures["serve"](tf.constant(["root"]))
    equal(next(iter(outputs.values())), [[110, 111]])


@promise("10.6")
def a_trained_model_is_exported(hub: Any, folder: Path) -> None:
    """A trained model's export predicts what the model predicts, and is itself a SavedModel that a layer takes."""
    model, layer = classifier(hub, module(folder, "regularized"), trainable=True)
    fit(model, 2)
    differ(values(layer)["dense_kernel"], KERNEL)
    path = fresh(folder) / "exported"
    export(model, path)
    loaded = tf.saved_model.load(str(path))
    equal(loaded.serve(X), model(X))
    again = hub.KerasLayer(str(path), signature="serving_default", output_key="output_0")
    equal(again(X), model(X))


@promise("13.9")
def a_checkpoint_goes_back_and_forth(hub: Any, folder: Path) -> None:
    """`tf.train.Checkpoint` of a model saves and restores the module's weights."""
    model, _ = classifier(hub, module(folder, "steady"), trainable=True)
    fit(model, 2)
    path = tf.train.Checkpoint(model=model).save(str(fresh(folder) / "point"))
    again, _ = classifier(hub, module(folder, "steady"))
    differ(again(X), model(X))
    tf.train.Checkpoint(model=again).restore(path).assert_existing_objects_matched()
    equal(again(X), model(X))
