"""What is converted through TensorFlow gives the framework's own features; what can't be is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

from exact import in_f32
from topwork.backbones.conversion.applications import APPLICATIONS, prepare
from topwork.backbones.conversion.convert import (
    convert_application,
    convert_keras_file,
    convert_kerashub,
    convert_saved_model,
)
from topwork.backbones.conversion.tracing import keras_plainly, write_graph
from topwork.errors import InputError, MissingExtra, TopworkError

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
SIZE_PX = 32
# Keras' own use of NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")


def picture(size_px: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).random((1, size_px, size_px, 3), np.float32)


def run(graph: Path, image: Any) -> Any:
    model = ov.Core().read_model(graph)
    assert [(i.any_name, list(i.shape), i.element_type) for i in model.inputs] == [
        ("image", list(image.shape), ov.Type.f32)
    ]
    assert [o.any_name for o in model.outputs] == ["features"]
    assert {n.get_element_type() for n in model.get_ops() if n.get_type_name() == "Constant"} <= {
        ov.Type.f32,
        ov.Type.i32,
        ov.Type.i64,
    }  # weights are not rounded to float16
    return in_f32(model)(image)[0]


def stirred(model: Any) -> Any:
    """Each vector of weights moved off its default: an untouched batch norm would test no folding."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            centred = weight.name in ("beta", "bias", "moving_mean")
            drawn = random.normal(0, 0.3, weight.shape) if centred else random.uniform(0.5, 2, weight.shape)
            weight.assign(drawn.astype(np.float32))
    return model


# ----------------------------------------------------------------------------- Keras Applications


def test_the_table_has_all_applications_of_keras() -> None:
    theirs = {name for name in dir(keras.applications) if name[0].isupper()}
    assert theirs == set(APPLICATIONS)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_pixels_are_prepared_as_by_the_networks_own_preprocess_input(name: str) -> None:
    module = sys.modules[getattr(keras.applications, name).__module__]
    image = picture(5)
    wanted = module.preprocess_input(255 * image)
    np.testing.assert_allclose(prepare(image, APPLICATIONS[name].pixels), wanted, atol=1e-4)


@pytest.mark.parametrize(("name", "size_px"), [("MobileNet", 64), ("MobileNetV2", 96)])
@pytest.mark.slow
def test_an_application_gives_keras_own_features(name: str, size_px: int, tmp_path: Path) -> None:
    model = stirred(
        getattr(keras.applications, name)(
            include_top=False, pooling="avg", weights=None, input_shape=(size_px, size_px, 3)
        )
    )
    model.save_weights(tmp_path / "own.weights.h5")
    made = convert_application(name, tmp_path, size_px=size_px, weights=tmp_path / "own.weights.h5")
    assert (made.graph, made.size_px, made.size_fixed) == (tmp_path / "graph.xml", size_px, False)
    assert (made.range, made.notes, made.runs_code) == ("[0, 1]", (), False)
    preprocess = sys.modules[getattr(keras.applications, name).__module__].preprocess_input
    image = picture(size_px)
    wanted = model.predict(preprocess(255 * image), verbose=0)
    assert made.width == wanted.shape[1]
    found = run(made.graph, image)
    assert np.linalg.norm(found - wanted) <= 1e-3 * np.linalg.norm(wanted)
    assert np.abs(wanted).max() > 0.01
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_an_application_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"unknown Keras application 'InceptonV3'; did you mean 'InceptionV3'\?"
    ):
        convert_application("InceptonV3", tmp_path)
    with pytest.raises(InputError, match="Xception: the input size must be 71 px or more; got 64"):
        convert_application("Xception", tmp_path, size_px=64)
    with pytest.raises(InputError, match=r"expected 'imagenet' or a file of weights; none\.h5 is not there"):
        convert_application("Xception", tmp_path, weights="none.h5")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.weights.h5"
    model([keras.layers.Dense(2)]).save_weights(path)
    with pytest.raises(
        InputError, match=r"MobileNet: .*x\.weights\.h5 is no file of its weights; ValueError: "
    ):
        convert_application("MobileNet", tmp_path, size_px=32, weights=path)


def test_weights_that_cant_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr(keras.src.backend.config, "_KERAS_DIR", str(tmp_path))
    with pytest.raises(
        TopworkError, match=r"MobileNet: its weights can't be fetched from Keras' server; "
    ) as error:
        convert_application("MobileNet", tmp_path, size_px=32)
    assert str(error.value).endswith(". Try again when online")


# ------------------------------------------------------------------------------------ .keras files


def model(layers: list[Any], shape: tuple[int | None, ...] = (SIZE_PX, SIZE_PX, 3)) -> Any:
    return keras.Sequential([keras.layers.Input(shape), *layers])


def small(shape: tuple[int | None, ...] = (SIZE_PX, SIZE_PX, 3)) -> Any:
    layers = keras.layers
    return stirred(model([layers.Conv2D(5, 3), layers.BatchNormalization(), layers.ReLU()], shape))


def test_a_keras_file_gives_its_features_averaged_over_the_picture(tmp_path: Path) -> None:
    network = small()
    network.save(tmp_path / "m.keras")
    made = convert_keras_file(tmp_path / "m.keras", tmp_path / "out")
    assert (made.size_px, made.size_fixed, made.range, made.width) == (SIZE_PX, True, "unknown", 5)
    assert made.notes[0].startswith("its own preprocessing is unknown: the graph takes whatever range")
    image = 255 * picture(SIZE_PX)
    wanted = network.predict(image, verbose=0).mean((1, 2))
    np.testing.assert_allclose(run(made.graph, image), wanted, rtol=1e-4)


def test_a_keras_file_of_any_size_takes_the_one_chosen(tmp_path: Path) -> None:
    network = small((None, None, 3))
    network.save(tmp_path / "m.keras")
    with pytest.raises(
        InputError, match=r"m\.keras: it takes pictures of any size and names none: choose one"
    ):
        convert_keras_file(tmp_path / "m.keras", tmp_path / "out")
    with pytest.raises(InputError, match="the input size must be a positive number of pixels; got 0"):
        convert_keras_file(tmp_path / "m.keras", tmp_path / "out", size_px=0)
    with pytest.raises(InputError, match=r"m\.keras: it can't be run at 2 px; ValueError: "):
        convert_keras_file(tmp_path / "m.keras", tmp_path / "out", size_px=2)
    made = convert_keras_file(tmp_path / "m.keras", tmp_path / "out", size_px=20)
    assert (made.size_px, made.size_fixed) == (20, False)
    wanted = network.predict(picture(20), verbose=0).mean((1, 2))
    np.testing.assert_allclose(run(made.graph, picture(20)), wanted, rtol=1e-4)


def test_a_keras_file_that_holds_code_is_refused_and_the_code_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    name = str(ran)
    layer = keras.layers.Lambda(lambda x: (open(name, "w").close(), x)[1])  # noqa: PTH123
    model([layer, keras.layers.Flatten()]).save(tmp_path / "m.keras")
    ran.unlink(missing_ok=True)  # building the model ran it
    with pytest.raises(
        InputError, match=r"m\.keras: .* safe mode; this one holds Python code, which would run"
    ):
        convert_keras_file(tmp_path / "m.keras", tmp_path / "out")
    assert not ran.exists()


def test_a_keras_file_with_layers_of_its_own(tmp_path: Path) -> None:
    class Mine(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x

    model([Mine(), keras.layers.Flatten()]).save(tmp_path / "m.keras")
    with pytest.raises(
        InputError, match=r"m\.keras: expected a model of Keras' own layers; this one has others"
    ):
        convert_keras_file(tmp_path / "m.keras", tmp_path / "out")


def identity(shape: tuple[int, ...]) -> Any:
    return model([keras.layers.Activation("linear")], shape)


def two_inputs() -> Any:
    a, b = (keras.Input((8, 8, 3)) for _ in range(2))
    return keras.Model([a, b], keras.layers.Flatten()(a + b))


def two_outputs() -> Any:
    a = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()
    return keras.Model(a, {"one": flat(a), "two": flat(a)})


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (two_inputs, "expected a model with one input, an image; it has 2"),
        (
            lambda: identity((7,)),
            r"expected an input \(batch, height, width, 3\); its is \(None, 7\)",
        ),
        (
            lambda: identity((8, 8, 1)),
            r"expected an input .*; its is \(None, 8, 8, 1\)",
        ),
        (
            lambda: identity((8, 9, 3)),
            "expected a square input; its is 8 x 9",
        ),
        (
            lambda: model([keras.layers.Reshape((64, 3))], (8, 8, 3)),
            r"expected features \(1, D\), or activations \(1, height, width, D\); it gives \(1, 64, 3\)",
        ),
        (two_outputs, "expected one output; it has one, two"),
    ],
)
def test_a_model_that_gives_no_features_of_an_image(
    make: Callable[[], Any], text: str, tmp_path: Path
) -> None:
    make().save(tmp_path / "m.keras")
    with pytest.raises(InputError, match=rf"m\.keras: {text}"):
        convert_keras_file(tmp_path / "m.keras", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_a_file_that_is_no_keras_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.keras: expected a \.keras file .*; it is not there"):
        convert_keras_file(tmp_path / "none.keras", tmp_path)
    for name in ("m.keras", "m.h5"):
        (tmp_path / name).write_bytes(b"not a zip")
        with pytest.raises(InputError, match=rf"{name}: expected a \.keras file .*; it is not one"):
            convert_keras_file(tmp_path / name, tmp_path)
    small().save(tmp_path / "m.keras")
    whole = (tmp_path / "m.keras").read_bytes()
    (tmp_path / "m.keras").write_bytes(
        whole.replace(b'"Conv2D"', b'"Conv9D"').replace(b"PK\3\4", b"PK\3\5", 1)
    )
    with pytest.raises(InputError, match=r"m\.keras: Keras can't load it; \w+: "):
        convert_keras_file(tmp_path / "m.keras", tmp_path)


def test_a_size_that_the_model_cant_take(tmp_path: Path) -> None:
    small().save(tmp_path / "m.keras")
    with pytest.raises(InputError, match=r"its input is 32 px and no other; got 64: leave the size out"):
        convert_keras_file(tmp_path / "m.keras", tmp_path / "out", size_px=64)


# -------------------------------------------------------------------------------------- SavedModels


class Module(tf.Module):  # type: ignore[misc]
    """As a TF Hub module is: `__call__` with `training`, which normalises by the batch and moves a variable."""

    def __init__(self) -> None:
        random = tf.random.Generator.from_seed(1)
        self.kernel = tf.Variable(random.normal((3, 3, 3, 6)))
        self.mean = tf.Variable(random.normal((6,)))

    @tf.function
    def __call__(self, image: Any, training: bool = False) -> Any:
        x = tf.nn.conv2d(image, self.kernel, 2, "SAME")
        if training:
            self.mean.assign(tf.reduce_mean(x, (0, 1, 2)))
        return tf.reduce_mean(tf.nn.relu(x - self.mean), (1, 2))


def save_module(folder: Path, sides: tuple[int | None, int | None]) -> Module:
    module = Module()
    for training in (True, False):
        module.__call__.get_concrete_function(tf.TensorSpec((None, *sides, 3), tf.float32), training=training)
    tf.saved_model.save(module, str(folder))
    return module


def test_a_saved_model_is_traced_frozen(tmp_path: Path) -> None:
    module = save_module(tmp_path / "m", (SIZE_PX, SIZE_PX))
    made = convert_saved_model(tmp_path / "m", tmp_path / "out")
    assert (made.size_px, made.size_fixed, made.range, made.width) == (SIZE_PX, True, "[0, 1]", 6)
    assert made.runs_code
    assert "could read and write files" in made.notes[0]
    image = picture(SIZE_PX)
    wanted = module(image, training=False).numpy()
    np.testing.assert_allclose(run(made.graph, image), wanted, rtol=1e-4)
    assert np.abs(wanted - module(image, training=True).numpy()).max() > 0.1  # so that `frozen` was tested


def test_a_saved_model_of_any_size(tmp_path: Path) -> None:
    module = save_module(tmp_path / "m", (None, None))
    with pytest.raises(InputError, match="it takes pictures of any size and names none: choose one"):
        convert_saved_model(tmp_path / "m", tmp_path / "out")
    made = convert_saved_model(tmp_path / "m", tmp_path / "out", size_px=24)
    assert (made.size_px, made.size_fixed) == (24, False)
    np.testing.assert_allclose(
        run(made.graph, picture(24)), module(picture(24), training=False).numpy(), rtol=1e-4
    )


def test_a_saved_model_without_a_call_goes_by_its_signature(tmp_path: Path) -> None:
    network = small()
    network.export(tmp_path / "m", verbose=False)
    made = convert_saved_model(tmp_path / "m", tmp_path / "out")
    wanted = network.predict(picture(SIZE_PX), verbose=0).mean((1, 2))
    np.testing.assert_allclose(run(made.graph, picture(SIZE_PX)), wanted, rtol=1e-4)


def test_a_tf1_hub_module(tmp_path: Path) -> None:
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        image = v1.placeholder(tf.float32, (None, 16, 16, 3))
        kernel = v1.get_variable("kernel", (3, 3, 3, 4), use_resource=True)
        features = tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(image, kernel, 1, "VALID")), (1, 2))
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.signature_def_utils.predict_signature_def(
            {"images": image}, {"default": features}
        )
        builder = v1.saved_model.builder.SavedModelBuilder(str(tmp_path / "m"))
        builder.add_meta_graph_and_variables(session, [], {"default": signature})
        builder.save()
        wanted = session.run(features, {image: picture(16)})
    (tmp_path / "m" / "tfhub_module.pb").write_bytes(b"\x08\x03")
    made = convert_saved_model(tmp_path / "m", tmp_path / "out")
    np.testing.assert_allclose(run(made.graph, picture(16)), wanted, rtol=1e-4)


def test_a_saved_model_that_is_not_one_of_images(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"m: expected a SavedModel, a folder with saved_model\.pb; there is none"
    ):
        convert_saved_model(tmp_path / "m", tmp_path / "out")
    text = tf.Module()
    text.call = tf.function(lambda x: x, input_signature=[tf.TensorSpec((None,), tf.string)])
    tf.saved_model.save(text, str(tmp_path / "m"), signatures=text.call)
    with pytest.raises(
        InputError, match=r"m: expected a module of images: .*no `__call__`; signatures: serving_d"
    ):
        convert_saved_model(tmp_path / "m", tmp_path / "out")
    (tmp_path / "m" / "saved_model.pb").write_bytes(b"\xff" * 50)
    with pytest.raises(InputError, match="m: TensorFlow can't load this SavedModel; "):
        convert_saved_model(tmp_path / "m", tmp_path / "out")


# ------------------------------------------------------------------------------------------ tracing


def flat(image: Any) -> Any:
    return tf.reduce_mean(image, (1, 2))


@pytest.mark.parametrize(
    ("network", "text"),
    [
        (lambda x: flat(x) + tf.random.uniform((1, 3)), "gives other features each time it is run: expected"),
        (  # OpenVINO computes float64 in float32
            lambda x: flat(tf.cast(x, tf.float64) + 1e9) - 1e9,
            "gives other features than TensorFlow: they differ by ",
        ),
        (lambda x: flat(x) / 0.0, r"its features are not numbers \(NaN or infinite\)"),
        (lambda x: tf.numpy_function(lambda a: a, [flat(x)], tf.float32), "expected features"),
        (
            lambda x: tf.ensure_shape(tf.numpy_function(lambda a: a, [flat(x)], tf.float32), (1, 3)),
            "OpenVINO can't read it; ",
        ),
        (lambda x: [flat(x), flat(x)], "it gives a list"),
    ],
)
def test_a_graph_that_doesnt_agree_is_not_written(network: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(TopworkError, match=rf"^M: .*{text}"):
        write_graph(network, tmp_path, size_px=8, name="M")
    assert not list(tmp_path.iterdir())


def test_several_outputs_give_the_one_that_is_named_for_it(tmp_path: Path) -> None:
    path, width = write_graph(
        lambda x: {"other": flat(x), "default": flat(x) + 1}, tmp_path, size_px=8, name="M"
    )
    np.testing.assert_allclose(run(path, picture(8)), picture(8).mean((1, 2)) + 1, rtol=1e-4)
    assert width == 3


def test_a_folder_that_cant_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TopworkError, match=r"can't write the converted graph to .*file: \w+: "):
        write_graph(flat, tmp_path / "file", size_px=8, name="M")


def test_keras_is_left_as_it_was() -> None:
    keras.config.set_image_data_format("channels_first")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with keras_plainly("M"):
            assert keras.config.image_data_format() == "channels_last"
            assert keras.config.dtype_policy().name == "float32"
        assert keras.config.image_data_format() == "channels_first"
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_image_data_format("channels_last")
        keras.config.set_dtype_policy("float32")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(
        InputError, match="keras:MobileNet needs Keras on TensorFlow; it runs on jax: set KERAS_BACK"
    ):
        convert_application("MobileNet", tmp_path)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(
        MissingExtra, match=r'kerashub:x needs an optional part: pip install "topwork\[kerashub\]"'
    ):
        convert_kerashub("x", tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtra, match=r'keras:MobileNet needs .* pip install "topwork\[tfhub\]"'):
        convert_application("MobileNet", tmp_path)


# ----------------------------------------------------------------------------------------- KerasHub


@pytest.fixture(scope="module")
def hub() -> Any:
    return pytest.importorskip("keras_hub")


def resnet(hub: Any, image_shape: tuple[int | None, ...] = (None, None, 3)) -> Any:
    backbone = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        use_pre_activation=False,
        image_shape=image_shape,
    )
    return stirred(backbone)


def test_a_kerashub_preset_with_its_image_converter(hub: Any, tmp_path: Path) -> None:
    backbone = resnet(hub)
    backbone.save_to_preset(str(tmp_path / "p"))
    converter = hub.layers.ResNetImageConverter(
        image_size=(SIZE_PX, SIZE_PX), scale=[0.02, 0.03, 0.01], offset=[-2.0, -1.0, 0.5]
    )
    converter.save_to_preset(str(tmp_path / "p"))
    made = convert_kerashub(str(tmp_path / "p"), tmp_path / "out")
    assert (made.size_px, made.size_fixed, made.range, made.width) == (SIZE_PX, False, "[0, 1]", 64)
    image = picture(SIZE_PX)
    wanted = backbone.predict(converter(255 * image), verbose=0).mean((1, 2))
    np.testing.assert_allclose(run(made.graph, image), wanted, rtol=1e-3, atol=1e-4)
    assert convert_kerashub(str(tmp_path / "p"), tmp_path / "out", size_px=48).size_px == 48


def test_a_kerashub_transformer_gives_its_class_token(hub: Any, tmp_path: Path) -> None:
    backbone = stirred(hub.models.ViTBackbone((16, 16, 3), (8, 8), 1, 1, 8, 8))
    backbone.save_to_preset(str(tmp_path / "p"))
    made = convert_kerashub(str(tmp_path / "p"), tmp_path / "out")
    assert (made.size_px, made.size_fixed, made.range, made.width) == (16, True, "unknown", 8)
    wanted = backbone.predict(picture(16), verbose=0)[:, 0]
    np.testing.assert_allclose(run(made.graph, picture(16)), wanted, rtol=1e-3, atol=1e-5)


def test_a_kerashub_preset_that_is_not_one_of_images(hub: Any, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="kerashub:nonesuch: expected a preset that KerasHub knows; ValueError"
    ):
        convert_kerashub("nonesuch", tmp_path)
    bert = hub.models.BertBackbone(10, 1, 1, 8, 8)
    bert.save_to_preset(str(tmp_path / "b"))
    with pytest.raises(InputError, match="b: expected a network of images; it has 3 inputs"):
        convert_kerashub(str(tmp_path / "b"), tmp_path)


def test_a_kerashub_preset_that_cant_be_fetched(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(
        TopworkError, match=r"kerashub:resnet_18_imagenet: it can't be fetched or read; \w+: "
    ):
        convert_kerashub("resnet_18_imagenet", tmp_path)
