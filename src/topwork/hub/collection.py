"""The modules on this machine: what is kept, fetched and removed, wherever they come from; as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from topwork.errors import InputError
from topwork.hub.catalog import Known
from topwork.hub.handle import parse
from topwork.hub.module import Module, load_module
from topwork.hub.resolve import Progress, Say, resolve


@dataclass(frozen=True, slots=True)
class Kept:
    """A module on this machine. `problem`: why it can't be used as it is; it is fetched again when asked for."""

    handle: str
    place: str
    size_bytes: int
    problem: str = ""


def kept_modules() -> tuple[Kept, ...]:
    """All that were fetched or converted, by handle; what was both, and at several sizes, stands there as often."""
    from topwork.hub.converted import list_conversions
    from topwork.hub.foreign import list_foreign, problem_of
    from topwork.hub.modules import list_modules

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
    from topwork.hub.converted import list_conversions, remove_conversion
    from topwork.hub.foreign import forget, list_foreign
    from topwork.hub.modules import remove_module

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


def module_text(module: Module) -> str:
    """What is known of a module, for people."""
    last = tuple(module.graph.output("last").shape)
    other = ", as it states: another --size may not do" if module.size_fixed else "; --size chooses"
    size = f"{module.size_px} x {module.size_px} px{other}"
    lines = [
        module.handle,
        f"  input     {size}",
        f"  pixels    {module.pixels.range} ({module.pixels.how})",
        f"  features  {last[1]} of the last layer" + _stages_text(module),
        f"  license   {module.license}",
        f"  source    {module.source}",
        *(f"  note      {note}" for note in module.notes),
    ]
    return "\n".join(lines)


def module_json(module: Module) -> str:
    """The same, for programs."""
    return json.dumps(
        {
            "handle": module.handle,
            "size_px": module.size_px,
            "size_fixed": module.size_fixed,
            "pixels": {"range": module.pixels.range, "how": module.pixels.how},
            "width": int(module.graph.output("last").shape[1]),
            "stages": {name: int(module.graph.output(name).shape[1]) for name in module.stages},
            "license": module.license,
            "source": module.source,
            "notes": list(module.notes),
        },
        ensure_ascii=False,
    )


def kept_text(modules: Iterable[Kept]) -> str:
    """One line a module: its size, its handle, and what is wrong with it."""
    lines = [
        f"{kept.size_bytes / 1e6:9.1f} MB  {kept.handle}" + (f"  ({kept.problem})" if kept.problem else "")
        for kept in modules
    ]
    return (
        "\n".join(lines) or "no module was fetched yet; `topwork modules list --known` shows published ones"
    )


def kept_json(modules: Iterable[Kept]) -> str:
    return json.dumps({"modules": [asdict(kept) for kept in modules]}, ensure_ascii=False)


def known_text(modules: Iterable[Known]) -> str:
    """One line a published module: width, size, address."""
    lines = [
        f"{known.width:6} features  {known.size_px:4} px{'' if known.size_fixed else '+'}  {known.handle}"
        for known in modules
    ]
    return "\n".join(lines) or "no published module has a name like that; leave the words out to see all"


def known_json(modules: Iterable[Known]) -> str:
    return json.dumps(
        {"modules": [asdict(known) | {"handle": known.handle} for known in modules]}, ensure_ascii=False
    )


def _stages_text(module: Module) -> str:
    if not module.stages:
        return "; no stages were found"
    return f", {sum(module.graph.output(name).shape[1] for name in module.stages)} of {len(module.stages)} stages"
