"""Select and check the module, function and output that a `KerasLayer` uses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from topwork.errors import InputError, one_of
from topwork.tfhub.loading import load


def get_module(handle: Any, tags: Collection[str] | None, load_options: Any) -> Any:
    if not callable(handle):
        return load(handle, tags=tags, options=load_options)
    for name, value in (("tags", tags), ("load_options", load_options)):
        if value is not None:
            raise InputError(
                f"`{name}` is only used to load a handle, but `handle` is a callable. Omit `{name}`"
            )
    return handle


def check_outputs(signature: str | None, output_key: str | None, as_dict: bool | None) -> None:
    if signature and (output_key is not None) == bool(as_dict):
        raise InputError(
            f"with a signature, pass either `output_key` or `signature_outputs_as_dict=True`; got signature="
            f"{signature!r}, output_key={output_key!r}, signature_outputs_as_dict={as_dict!r}"
        )
    if as_dict and not signature:
        raise InputError("`signature_outputs_as_dict` requires a `signature`; omit it")


def get_function(module: Any, signature: str | None, handle: Any) -> Callable[..., Any]:
    signatures = getattr(module, "signatures", {})
    if not signature:
        if callable(module):
            return module  # type: ignore[no-any-return]
        known = ", ".join(signatures) or "none"
        raise InputError(f"{handle} can't be called directly; pass `signature`. Known signatures: {known}")
    if signature not in signatures:
        raise InputError(f"{handle}: {one_of(signature, signatures, what='signature')}")
    return signatures[signature]  # type: ignore[no-any-return]


def take_output(outputs: Any, key: str) -> Any:
    if not isinstance(outputs, Mapping):
        raise InputError(
            f"`output_key`={key!r} needs a module that returns a dict; this one returns {type(outputs).__name__}"
        )
    if key not in outputs:
        raise InputError(one_of(key, outputs, what="output_key"))
    return outputs[key]
