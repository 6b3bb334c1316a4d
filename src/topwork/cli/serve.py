"""The command `serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from topwork.errors import InputError


def serve(
    runs: Annotated[list[str], typer.Argument(help="Folders written by `topwork train`; or NAME=FOLDER.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: any free one.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the required token; or set TOPWORK_TOKEN.")
    ] = None,
    max_bytes: Annotated[int | None, typer.Option(min=1, help="Largest request body, in bytes.")] = None,
    max_held_bytes: Annotated[
        int | None, typer.Option(min=1, help="Most bytes of request bodies held at once.")
    ] = None,
    max_pixels: Annotated[int | None, typer.Option(min=1, help="Largest picture, in pixels.")] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Most seconds to receive a request, and to answer it.")
    ] = None,
    queue: Annotated[int | None, typer.Option(min=1, help="Most pictures queued; more get 429.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Pictures processed at once; default: one per core.")
    ] = None,
    reload: Annotated[bool, typer.Option(help="Reload a run when its folder changes.")] = True,
    page: Annotated[bool, typer.Option(help="Serve a page to try it in a browser.")] = True,
) -> None:
    """Serve predictions over HTTP, with a page to try them, until Ctrl-C."""
    from topwork.serving.running import serve as run_server
    from topwork.serving.settings import Limits

    asked = {
        "body_bytes": max_bytes,
        "held_bytes": max_held_bytes,
        "pixels": max_pixels,
        "seconds": timeout,
        "queue": queue,
    }
    limits = Limits(**{name: value for name, value in asked.items() if value is not None})  # type: ignore[arg-type]
    run_server(
        runs,
        host=host,
        port=port,
        token=_token(token_file),
        limits=limits,
        workers=workers,
        reload=reload,
        page=page,
    )


def _token(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get("TOPWORK_TOKEN") or None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a file with the token; it can't be read ({error})") from None
    if not token:
        raise InputError(f"{path}: expected a file with the token; it is empty")
    return token
