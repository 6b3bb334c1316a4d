"""The commands of `topwork modules`: parse, call one function, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topwork.recipe import PixelChoice

modules_app = typer.Typer(help="Published networks: look, fetch, remove.", no_args_is_help=True)

Handle = Annotated[str, typer.Argument(help="A name, an address, kaggle:…, hf:…, keras:…, or a path.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")
]


@modules_app.command("list")
def modules_list(
    words: Annotated[
        list[str] | None, typer.Argument(help="With --known: words that the name holds.")
    ] = None,
    known: Annotated[
        bool, typer.Option("--known", help="Published modules, instead of those fetched.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the modules that were fetched or converted, or those that the catalog knows."""
    from topwork.backbones.hub import catalog
    from topwork.backbones.kept import kept_modules
    from topwork.cli.text import modules as text

    if known or words:
        published = catalog.search(" ".join(words or []))
        print(text.known_json(published) if as_json else text.known_text(published))
    else:
        kept = kept_modules()
        print(text.kept_json(kept) if as_json else text.kept_text(kept))


@modules_app.command("info")
def modules_info(
    handle: Handle,
    size: Annotated[int | None, typer.Option(help="The side of its input, in pixels.")] = None,
    pixels: Annotated[PixelChoice, typer.Option(help="The values it wants.")] = "auto",
    as_json: Json = False,
) -> None:
    """Show what a module takes and gives, whose it is, and what was assumed. Fetches it if need be."""
    from topwork.backbones.module import load_module
    from topwork.cli.console import Console
    from topwork.cli.text.modules import module_json, module_text

    module = load_module(handle, size_px=size, range=pixels, progress=Console().download(handle))
    print(module_json(module) if as_json else module_text(module))


@modules_app.command("pull")
def modules_pull(handle: Handle) -> None:
    """Fetch a module now, to have it when offline."""
    from topwork.backbones.kept import pull
    from topwork.cli.console import Console

    console = Console()
    path = pull(handle, progress=console.download(handle), say=console.say)
    print(f"{handle}: {path or 'converted and kept'}")


@modules_app.command("remove")
def modules_remove(handle: Handle) -> None:
    """Delete what was fetched or converted of a module."""
    from topwork.backbones.kept import remove
    from topwork.cli.text.cache import size_text

    print(f"freed {size_text(remove(handle))}")


@modules_app.command("publish")
def modules_publish(
    handle: Handle,
    out: Annotated[Path, typer.Option(help="Where the SavedModel goes: a new folder.")],
    size: Annotated[int | None, typer.Option(help="The side of its input, in pixels.")] = None,
    pixels: Annotated[PixelChoice, typer.Option(help="The values that the module given wants.")] = "auto",
) -> None:
    """Write a module's trunk as a reusable TF2 SavedModel: a feature vector, trainable."""
    from topwork.cli.console import Console
    from topwork.jobs.export import publish_module

    path = publish_module(handle, out, size_px=size, pixels=pixels, progress=Console().download(handle))
    print(f"{path} holds the module; hub.KerasLayer({str(path)!r}) loads it")
