"""Import Keras 3 and TensorFlow, or raise an error that says how to install them. Imported only here."""

from __future__ import annotations

import os

from topwork.errors import InputError, MissingExtra

_BACKENDS = (
    "jax",
    "torch",
    "openvino",
    "mlx",
)  # if a backend is missing, Keras reports a missing module with this name


def _wrong_backend(found: str) -> InputError:
    return InputError(
        f"topwork.tfhub runs modules with TensorFlow; Keras is set to the backend {found!r}. Set "
        "KERAS_BACKEND=tensorflow before Keras is first imported"
    )


def _wrong_keras(found: str) -> InputError:
    return InputError(
        f'topwork.tfhub needs Keras 3.10 or later; found {found}. Run: pip install --upgrade "topwork[tfhub]"'
    )


try:
    import keras
except ModuleNotFoundError as error:
    missing = str(error.name).split(".")[0]
    if missing in _BACKENDS:
        raise _wrong_backend(os.environ.get("KERAS_BACKEND", missing)) from error
    if missing in ("keras", "tensorflow"):
        raise MissingExtra("topwork.tfhub", "tfhub") from error
    raise

if tuple(int(part) for part in keras.__version__.split(".")[:2]) < (3, 10):
    raise _wrong_keras(keras.__version__)
if keras.backend.backend() != "tensorflow":
    raise _wrong_backend(keras.backend.backend())

import tensorflow as tf  # noqa: E402, TID253  (Keras has loaded it already)

__all__ = ["keras", "tf"]
