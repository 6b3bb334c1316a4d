"""The commands of `topwork modules`: parse, call one function, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from topwork.recipe import PixelChoice, Pool

modules_app = typer.Typer(help="List, inspect, download or remove published networks.", no_args_is_help=True)

Handle = Annotated[str, typer.Argument(help="A name, a URL, kaggle:…, hf:…, keras:…, or a path.")]
Json = Annotated[bool, typer.Option("--json", help="Print only one JSON object on standard output.")]


@modules_app.command("list")
def modules_list(
    words: Annotated[
        list[str] | None, typer.Argument(help="With --known: words in the module's name.")
    ] = None,
    known: Annotated[
        bool, typer.Option("--known", help="List published modules instead of downloaded ones.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List downloaded and converted modules, or those in the catalog."""
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
    pixels: Annotated[PixelChoice, typer.Option(help="The range of its input.")] = "auto",
    pool: Annotated[Pool, typer.Option(help="How a transformer's tokens become features.")] = "auto",
    as_json: Json = False,
) -> None:
    """Show a module's input, features, source and licence, and what was assumed. Downloads it if needed."""
    from topwork.backbones.module import load_module
    from topwork.cli.console import Console
    from topwork.cli.text.modules import module_json, module_text

    watch = Console().download(handle)
    module = load_module(handle, size_px=size, range=pixels, pool=pool, progress=watch)
    print(module_json(module) if as_json else module_text(module))


@modules_app.command("pull")
def modules_pull(handle: Handle) -> None:
    """Download a module for later use, for instance offline."""
    from topwork.backbones.kept import pull
    from topwork.cli.console import Console

    console = Console()
    path = pull(handle, progress=console.download(handle), say=console.say)
    print(f"{handle}: {path or 'converted and stored'}")


@modules_app.command("remove")
def modules_remove(handle: Handle) -> None:
    """Delete a module's downloaded and converted files."""
    from topwork.backbones.kept import remove
    from topwork.storage.cache import size_text

    print(f"freed {size_text(remove(handle))}")


@modules_app.command("publish")
def modules_publish(
    handle: Handle,
    out: Annotated[Path, typer.Option(help="A new folder for the SavedModel.")],
    size: Annotated[int | None, typer.Option(help="The side of its input, in pixels.")] = None,
    pixels: Annotated[PixelChoice, typer.Option(help="The range of the given module's input.")] = "auto",
) -> None:
    """Write a module's trunk as a reusable, trainable TF2 SavedModel that returns a feature vector."""
    from topwork.cli.console import Console
    from topwork.jobs.export import publish_module

    path = publish_module(handle, out, size_px=size, pixels=pixels, progress=Console().download(handle))
    print(f"{path} contains the module; load it with hub.KerasLayer({str(path)!r})")
