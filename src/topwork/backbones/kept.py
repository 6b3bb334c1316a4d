"""The modules on this machine: what is kept, fetched and removed, wherever they come from; as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from topwork.backbones.hub.handle import parse
from topwork.backbones.hub.resolve import Progress, Say, resolve
from topwork.backbones.module import load_module
from topwork.errors import InputError


@dataclass(frozen=True, slots=True)
class Kept:
    """A module on this machine. `problem`: why it can't be used as it is; it is fetched again when asked for."""

    handle: str
    place: str
    size_bytes: int
    problem: str = ""


def kept_modules() -> tuple[Kept, ...]:
    """All that were fetched or converted, by handle; what was both, and at several sizes, stands there as often."""
    from topwork.backbones.conversion.kept import list_conversions
    from topwork.backbones.hub.foreign import list_foreign, problem_of
    from topwork.backbones.hub.modules import list_modules

    found = [
        Kept(info.url or info.folder.name, str(info.folder), info.size_bytes, info.problem)
        for info in list_modules()
    ]
    found += [
        Kept(kept.handle, str(kept.module), sum(file.size_bytes for file in kept.files), problem_of(kept))
        for kept in list_foreign()
    ]
    found += [Kept(one.handle, str(one.folder), one.size_bytes) for one in list_conversions()]
    return tuple(sorted(found, key=lambda kept: kept.handle))


def pull(handle: str, *, progress: Progress | None = None, say: Say | None = None) -> Path | None:
    """Fetch a module (or convert it) now, so that it is there when offline; where it lies, if it has files.

    Raises:
        InputError: as `parse`; or nothing is to be fetched.
        TopworkError: it can't be fetched.
    """
    parsed = parse(handle)
    if parsed.kind in ("builtin", "path"):
        raise InputError(f"{handle}: nothing to fetch: it is on this machine already")
    if parsed.kind in ("keras", "kerashub"):
        load_module(handle, progress=progress)
        return None
    return resolve(parsed, progress=progress, say=say)


def remove(handle: str) -> int:
    """Delete what is kept of a module, fetched and converted; the bytes freed.

    A module that another program keeps (Kaggle's and Hugging Face's caches) is only forgotten here: its files may
    serve that program still.

    Raises:
        InputError: no such module is kept.
        TopworkError: it can't be deleted.
    """
    from topwork.backbones.conversion.kept import list_conversions, remove_conversion
    from topwork.backbones.hub.foreign import forget, list_foreign
    from topwork.backbones.hub.modules import remove_module

    conversions = [one for one in list_conversions() if one.handle == handle]
    foreign = [kept for kept in list_foreign() if kept.handle == handle]
    freed = sum(map(remove_conversion, conversions))
    for kept in foreign:
        forget(kept)
    if conversions or foreign:
        fetched = any(kept.handle == handle for kept in kept_modules())
        return freed + (remove_module(handle) if fetched else 0)
    if handle.startswith("converted:") or parse(handle).kind != "url":
        known = ", ".join(kept.handle for kept in kept_modules()) or "none"
        raise InputError(f"{handle}: no such module is kept. Known: {known}")
    return remove_module(handle)
