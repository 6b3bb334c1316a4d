"""Modules as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict

from topwork.backbones.hub.catalog import Known
from topwork.backbones.kept import Kept
from topwork.backbones.module import Module


def module_text(module: Module) -> str:
    """A module's properties as text."""
    last = tuple(module.graph.output("last").shape)
    other = ", its stated size; another --size may not work" if module.size_fixed else "; set it with --size"
    size = f"{module.size_px} x {module.size_px} px{other}"
    lines = [
        module.handle,
        f"  input     {size}",
        f"  pixels    {module.pixels.range} ({module.pixels.how})",
        f"  framing   {module.framing or 'stretch'} ({'stated' if module.framing else 'as none is stated'})",
        f"  features  {last[1]} of the last layer" + _stages_text(module),
        f"  license   {module.license}",
        f"  source    {module.source}",
        *(f"  note      {note}" for note in module.notes),
    ]
    return "\n".join(lines)


def module_json(module: Module) -> str:
    """The same as JSON."""
    return json.dumps(
        {
            "handle": module.handle,
            "size_px": module.size_px,
            "size_fixed": module.size_fixed,
            "pixels": {"range": module.pixels.range, "how": module.pixels.how},
            "framing": module.framing.to_plain() if module.framing else None,
            "width": int(module.graph.output("last").shape[1]),
            "stages": {name: int(module.graph.output(name).shape[1]) for name in module.stages},
            "license": module.license,
            "source": module.source,
            "notes": list(module.notes),
        },
        ensure_ascii=False,
    )


def kept_text(modules: Iterable[Kept]) -> str:
    """One line per module: its size, its handle, and any problem."""
    lines = [
        f"{kept.size_bytes / 1e6:9.1f} MB  {kept.handle}" + (f"  ({kept.problem})" if kept.problem else "")
        for kept in modules
    ]
    return (
        "\n".join(lines) or "no modules downloaded yet; `topwork modules list --known` lists published ones"
    )


def kept_json(modules: Iterable[Kept]) -> str:
    return json.dumps({"modules": [asdict(kept) for kept in modules]}, ensure_ascii=False)


def known_text(modules: Iterable[Known]) -> str:
    """One line per published module: number of features, input size, URL."""
    lines = [
        f"{known.width:6} features  {known.size_px:4} px{'' if known.size_fixed else '+'}  {known.handle}"
        for known in modules
    ]
    return "\n".join(lines) or "no published module has these words in its name; omit them to list all"


def known_json(modules: Iterable[Known]) -> str:
    return json.dumps(
        {"modules": [asdict(known) | {"handle": known.handle} for known in modules]}, ensure_ascii=False
    )


def _stages_text(module: Module) -> str:
    if not module.stages:
        return "; no stages found"
    return f", {sum(module.graph.output(name).shape[1] for name in module.stages)} of {len(module.stages)} stages"
