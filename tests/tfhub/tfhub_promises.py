"""What a `KerasLayer` promises: a register of checks that take the hub library under test.

A check is `check(hub, folder)`: the library, and a folder for files. It passes with `topwork.tfhub`; must fail with a
library that breaks the promise; and, where `original` says so, passes with tensorflow_hub under tf_keras too:

    python tests/tfhub/tfhub_promises.py     # in an environment with tensorflow_hub, tf_keras and TensorFlow
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tfhub_modules import KERNEL

Check = Callable[[Any, Path], None]
X = np.array([[1.0, 2.0], [3.0, -4.0], [0.5, 1.5], [-2.0, 1.0]], np.float32)
BN = X @ np.asarray(KERNEL) / np.sqrt(1 + 1e-3)  # the feature vector as it was published: mean 0, variance 1


@dataclass(frozen=True, slots=True)
class Promise:
    """`original`: whether tensorflow_hub 0.16.1 under tf_keras keeps it too."""

    number: str
    name: str
    text: str
    check: Check
    original: bool


PROMISES: dict[str, Promise] = {}


def promise(number: str, *, original: bool = True) -> Callable[[Check], Check]:
    """Enter a check under its name; its docstring is the promise."""

    def enter(check: Check) -> Check:
        name = check.__name__
        assert name not in PROMISES
        assert check.__doc__
        PROMISES[name] = Promise(number, name, check.__doc__, check, original)
        return check

    return enter


def keras_of(hub: Any) -> ModuleType:
    """The Keras that the library's layer is made of: `keras`, or `tf_keras` for the original."""
    bases = [base.__module__.split(".")[0] for base in hub.KerasLayer.__mro__[1:]]
    return sys.modules[next(name for name in bases if name in ("keras", "tf_keras"))]


def fresh(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))


def equal(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=tolerance, atol=tolerance)


def differ(found: Any, other: Any) -> None:
    assert np.abs(np.asarray(found, np.float64) - np.asarray(other, np.float64)).max() > 1e-4


def values(layer: Any) -> dict[str, Any]:
    """A layer's weights by the last part of their names."""
    return {v.name.split(":")[0].replace("/", "_"): v.numpy() for v in layer.weights}


@contextmanager
def refused(kind: type[Exception] | tuple[type[Exception], ...], *words: str) -> Iterator[None]:
    """The block must raise this kind (or one of these), and its text must hold one of the words."""
    try:
        yield
    except kind as error:
        said = str(error)
    else:
        raise AssertionError(f"expected {kind}")
    assert any(word in said for word in words), f"none of {words} in: {said}"


def classifier(hub: Any, handle: str, **kwargs: Any) -> tuple[Any, Any]:
    """A compiled Sequential: the module and a Dense head of two classes. Also the module's layer."""
    keras = keras_of(hub)
    keras.utils.set_random_seed(0)
    layer = hub.KerasLayer(handle, **kwargs)
    model = keras.Sequential([keras.Input((2,)), layer, keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False)
    return model, layer


def fit(model: Any, epochs: int = 1) -> float:
    """The last epoch's loss."""
    history = model.fit(X, np.array([0, 1, 0, 1]), batch_size=4, epochs=epochs, verbose=0)
    return float(history.history["loss"][-1])


def load_all() -> None:
    """Enter every check."""
    for name in ("tfhub_calling", "tfhub_inputs", "tfhub_options", "tfhub_training", "tfhub_saving"):
        importlib.import_module(name)


def try_original() -> int:
    """Put tensorflow_hub through the checks; print those that it fails, and return how many it should pass."""
    import tensorflow_hub as hub

    surprises = 0
    with tempfile.TemporaryDirectory() as folder:
        for one in PROMISES.values():
            try:
                one.check(hub, Path(folder))
                passed, why = True, ""
            except Exception:
                passed, why = False, traceback.format_exc(limit=-1).strip().splitlines()[-1][:150]
            surprises += passed != one.original
            sign = "ok " if passed == one.original else "?? "
            print(f"{sign}{one.number:5} {one.name}: {'kept' if passed else 'broken: ' + why}")
    print(f"{len(PROMISES)} promises, {surprises} surprises")
    return surprises


if __name__ == "__main__":
    import tfhub_promises  # the register that the checks enter themselves in, not this file's run as a program

    tfhub_promises.load_all()
    sys.exit(bool(tfhub_promises.try_original()))
