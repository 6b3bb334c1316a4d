"""Resolve handles to local SavedModel folders, and load them."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from topwork.errors import InputError, TopworkError
from topwork.tfhub.frameworks import tf

LEGACY_MARK = "tfhub_module.pb"  # a file that only modules in TF1 format have
_FILES = ("saved_model.pb", "saved_model.pbtxt")


def resolve(handle: str | os.PathLike[str]) -> str:
    """The folder with a module's files. Local folders are returned unchanged; other handles are downloaded once.

    URLs that TensorFlow itself can read (`gs://…`, `s3://…`) are returned unchanged, too.

    Raises:
        InputError: `handle` is not a string or path, or is of an unknown kind.
        TopworkError: the module can't be downloaded.
    """
    if not isinstance(handle, str | os.PathLike):
        raise InputError(
            f"`handle` must be a string or a path; got {handle!r} of type {type(handle).__name__}"
        )
    text = os.fspath(handle)
    scheme, separator, _ = text.partition("://")
    if os.path.isdir(text) or (separator and scheme not in ("http", "https")):  # noqa: PTH112
        return text
    from topwork.backbones.hub.resolve import resolve as resolve_module

    return str(resolve_module(text))


def load(handle: str | os.PathLike[str], tags: Collection[str] | None = None, options: Any = None) -> Any:
    """Load a SavedModel, like `tf.saved_model.load(resolve(handle))`.

    TensorFlow executes the SavedModel's graph, which may read and write files: load only modules that you trust.

    Args:
        handle: see `resolve`.
        tags: which graph to load; None for the only one (in a TF1 module, the one without tags).
        options: a `tf.saved_model.LoadOptions`.

    Raises:
        InputError: the handle is invalid, or there is no SavedModel in its folder.
        TopworkError: it can't be downloaded, or it contains a Keras 2 optimizer.
    """
    folder = resolve(handle)
    legacy = tf.io.gfile.exists(os.path.join(folder, LEGACY_MARK))  # noqa: PTH118  (may be a URL)
    if not any(tf.io.gfile.exists(os.path.join(folder, name)) for name in _FILES):  # noqa: PTH118
        raise InputError(
            f"expected a SavedModel, with {_FILES[0]} or {_FILES[1]}; {folder} has neither. Pass the folder that "
            "contains it"
        )
    try:
        module = tf.saved_model.load(folder, tags=[] if tags is None and legacy else tags, options=options)
    except (AttributeError, ValueError) as error:
        if "add_slot" not in str(error):
            raise
        raise TopworkError(
            f"{folder} was saved with a Keras 2 optimizer, which Keras 3 can't restore. Install tf_keras and "
            "`import tf_keras` before loading, or save it again without its optimizer"
        ) from error
    module._is_hub_module_v1 = legacy  # the attribute that tensorflow_hub sets
    return module
