"""From a handle to a local SavedModel folder, and from there to TensorFlow's object."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from topwork.errors import InputError, TopworkError
from topwork.tfhub.frameworks import tf

LEGACY_MARK = "tfhub_module.pb"  # lies in a module that was published in TF1's format
_FILES = ("saved_model.pb", "saved_model.pbtxt")


def resolve(handle: str | os.PathLike[str]) -> str:
    """Where a module's files are: a local folder as it was given; anything else is fetched once and kept.

    Addresses of storage that TensorFlow itself reads (`gs://…`, `s3://…`) are given back as they are.

    Raises:
        InputError: not a text or path, or a handle of no known kind.
        TopworkError: the module can't be fetched.
    """
    if not isinstance(handle, str | os.PathLike):
        raise InputError(f"a handle must be a text or a path; got {handle!r} of type {type(handle).__name__}")
    text = os.fspath(handle)
    scheme, separator, _ = text.partition("://")
    if os.path.isdir(text) or (separator and scheme not in ("http", "https")):  # noqa: PTH112
        return text
    from topwork.backbones.hub.resolve import resolve as resolve_module

    return str(resolve_module(text))


def load(handle: str | os.PathLike[str], tags: Collection[str] | None = None, options: Any = None) -> Any:
    """Load a SavedModel by its handle, as `tf.saved_model.load(resolve(handle))` does.

    A SavedModel's graph can read and write files when TensorFlow runs it: load only what you trust.

    Args:
        handle: see `resolve`.
        tags: which graph to take; None for the only one (of a TF1 module: the one without tags).
        options: a `tf.saved_model.LoadOptions`.

    Raises:
        InputError: the handle is wrong, or there is no SavedModel in its folder.
        TopworkError: it can't be fetched, or it holds a Keras 2 optimizer.
    """
    folder = resolve(handle)
    legacy = tf.io.gfile.exists(os.path.join(folder, LEGACY_MARK))  # noqa: PTH118  (may be an address)
    if not any(tf.io.gfile.exists(os.path.join(folder, name)) for name in _FILES):  # noqa: PTH118
        raise InputError(
            f"expected a SavedModel, which holds {_FILES[0]} or {_FILES[1]}; {folder} holds neither. Give the "
            "folder that holds it"
        )
    try:
        module = tf.saved_model.load(folder, tags=[] if tags is None and legacy else tags, options=options)
    except (AttributeError, ValueError) as error:
        if "add_slot" not in str(error):
            raise
        raise TopworkError(
            f"{folder} was saved together with a Keras 2 optimizer, which Keras 3 can't restore. "
            "Install tf_keras and `import tf_keras` before loading; or save it again without its optimizer"
        ) from error
    module._is_hub_module_v1 = legacy  # the name that objects loaded by tensorflow_hub carry
    return module
