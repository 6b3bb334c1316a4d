"""From a handle to files on this machine: a SavedModel folder, or one file. Fetched once, verified at each use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from topwork.backbones.hub.handle import Handle, parse
from topwork.errors import InputError

Progress = Callable[[int, int | None], None]  # bytes so far, and in all if known
Say = Callable[[str], None]
OFFLINE = "TOPWORK_OFFLINE"


def is_offline() -> bool:
    """Whether nothing may be fetched: `--offline`, or TOPWORK_OFFLINE=1."""
    return os.environ.get(OFFLINE, "").lower() in ("1", "true", "yes", "on")


def go_offline() -> None:
    """From now on this process fetches nothing."""
    os.environ[OFFLINE] = "1"


def resolve(
    handle: str | Handle,
    *,
    offline: bool | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Path:
    """Where a module's files are, fetched if they are not there yet.

    Args:
        handle: an address, a `kaggle:` or `hf:` handle, or a path.
        offline: use only what is kept; None for what TOPWORK_OFFLINE says.
        progress: receives (bytes so far, total or None).
        say: receives a line when another process has to be waited for, or a damaged module is fetched again.

    Raises:
        InputError: an unknown handle; one that has no files (built in, Keras); offline and not kept.
        TopworkError: it can't be fetched, or what came is damaged.
        MissingExtra: `kaggle:` or `hf:` without its package.
    """
    handle = parse(handle) if isinstance(handle, str) else handle
    offline = is_offline() if offline is None else offline
    if handle.kind == "path":
        return Path(handle.name).expanduser()
    if handle.kind == "url":
        from topwork.backbones.hub.download import fetch_module

        return fetch_module(handle.name, offline=offline, progress=progress, say=say)
    if handle.kind == "kaggle":
        from topwork.backbones.hub.kaggle import fetch_kaggle

        return fetch_kaggle(handle.name, offline=offline)
    if handle.kind == "hf":
        from topwork.backbones.hub.huggingface import fetch_hf

        return fetch_hf(handle.name, offline=offline)
    raise InputError(f"{handle}: it is made here and has no files of its own; use it as a backbone")
