"""`topwork.tfhub`: each promise of a `KerasLayer`, and what is said where it can't work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import tfhub_promises
import topwork.tfhub as hub
from photos import finished, start_python
from tfhub_modules import module
from topwork.errors import InputError, TopworkError

tfhub_promises.load_all()
PROMISES = tfhub_promises.PROMISES.values()
# Keras 3.15's own way of reading its variables, under NumPy 2.4, when it saves them.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where the modules are written once."""
    return tmp_path_factory.mktemp("tfhub")


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: f"{promise.number}-{promise.name}")
def test_promise(promise: tfhub_promises.Promise, shared: Path) -> None:
    promise.check(hub, shared)


@pytest.mark.parametrize("absent", ["keras", "tensorflow"])
def test_without_its_packages_it_says_what_to_install(absent: str) -> None:
    code = f"""if 1:
        import sys
        sys.modules[{absent!r}] = None
        from topwork.errors import MissingExtra
        try:
            import topwork.tfhub
        except MissingExtra as error:
            print(error)
    """
    told = 'topwork.tfhub needs an optional part: pip install "topwork[tfhub]"\n'
    assert finished(start_python(code))[:2] == (0, told)


# A stand-in for a Keras of another version or backend: the real one can't be switched.
STAND_IN = """if 1:
    import sys, types
    keras = sys.modules["keras"] = types.ModuleType("keras")
    keras.__version__ = sys.argv[1]
    keras.backend = types.SimpleNamespace(backend=lambda: sys.argv[2])
    from topwork.errors import InputError
    try:
        import topwork.tfhub
    except InputError as error:
        print(error)
"""


def test_another_backend_is_refused() -> None:
    code, out, _ = finished(start_python(STAND_IN, "3.10.0", "torch"))
    assert (code, out) == (
        0,
        "topwork.tfhub runs modules with TensorFlow; Keras is set to the backend 'torch'. Set "
        "KERAS_BACKEND=tensorflow before Keras is first imported\n",
    )


def test_a_backend_that_is_not_installed_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    code = "import sys; sys.modules['jax'] = None; import topwork.tfhub"
    assert "set to the backend 'jax'. Set KERAS_BACKEND=tensorflow" in finished(start_python(code))[2]


def test_an_older_keras_is_refused() -> None:
    _, out, _ = finished(start_python(STAND_IN, "3.9.2", "tensorflow"))
    assert "needs Keras 3.10 or later; found 3.9.2. Run: pip install --upgrade" in out


def test_topwork_itself_loads_no_framework() -> None:
    code = "import sys, topwork; print(sorted({'keras', 'tensorflow', 'topwork.tfhub'} & set(sys.modules)))"
    assert finished(start_python(code))[1] == "[]\n"


def test_resolve_gives_a_local_folder_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("module")  # noqa: PTH102
    assert hub.resolve("module") == "module"
    assert hub.resolve(tmp_path / "module") == str(tmp_path / "module")


def test_resolve_leaves_other_storage_to_tensorflow() -> None:
    assert hub.resolve("gs://bucket/module") == "gs://bucket/module"


def test_resolve_refuses_what_is_no_handle() -> None:
    with pytest.raises(InputError, match="`handle` must be a string or a path; got 7 of type int"):
        hub.resolve(7)  # type: ignore[arg-type]


def test_resolve_refuses_an_address_that_is_not_safe() -> None:
    with pytest.raises(InputError, match="https"):
        hub.resolve("http://tfhub.dev/google/module/1")


def test_load_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"expected a SavedModel, .* {tmp_path} has neither"):
        hub.load(tmp_path)


def test_optimizer_slots_are_explained(shared: Path) -> None:
    with pytest.raises(TopworkError, match=r"saved with a Keras 2 optimizer.*Install tf_keras"):
        hub.load(module(shared, "optimizer_slots"))


def refuse(text: str, shared: Path, name: str, **kwargs: object) -> None:
    with pytest.raises(InputError, match=text):
        hub.KerasLayer(module(shared, name), **kwargs)


def test_messages_say_what_came_and_the_mend(shared: Path) -> None:
    both = "either `output_key` or `signature_outputs_as_dict=True`; got signature='other', output_key=None"
    refuse(both, shared, "serving", signature="other")
    refuse("requires a `signature`", shared, "serving", signature_outputs_as_dict=True)
    refuse("pass `signature`. Known signatures: serving_default, takes_training", shared, "signature_only")
    known = "unknown signature 'othr'; did you mean 'other'\\? Known: other, serving_default"
    refuse(known, shared, "serving", signature="othr", output_key="x")
    refuse("must be callables without arguments", shared, "loss_not_callable")
    refuse("`output_shape` must be a shape without the batch dimension", shared, "dict", output_shape=3)


def test_calls_say_what_came_and_the_mend(shared: Path) -> None:
    layer = hub.KerasLayer(module(shared, "dict"), output_key="smu")
    inputs = {"a": tfhub_promises.X, "b": tfhub_promises.X}
    with pytest.raises(InputError, match="unknown output_key 'smu'; did you mean 'sum'"):
        layer(inputs)
    layer = hub.KerasLayer(module(shared, "steady"), output_shape=(7,))
    with pytest.raises(InputError, match=r"`output_shape`=\(7,\) doesn't match .* shapes are \(4, 3\)"):
        layer(tfhub_promises.X)
    layer = hub.KerasLayer(
        module(shared, "serving"), trainable=True, signature="other", output_key="negative"
    )
    with pytest.raises(InputError, match=r"the signature 'other' can't be trained. Set trainable=False"):
        layer(tfhub_promises.X)
