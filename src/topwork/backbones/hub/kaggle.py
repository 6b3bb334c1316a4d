"""`kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]`: modules fetched by kagglehub, into its own cache.

kagglehub resumes, shows progress and compares the MD5 that the server states; `foreign` locks, and verifies the files
at each use. KAGGLEHUB_CACHE and Kaggle's credentials are honoured by kagglehub.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from http import HTTPStatus
from pathlib import Path

from topwork.backbones.hub.download import module_in
from topwork.backbones.hub.foreign import Found, keep, one_line
from topwork.backbones.hub.record import files_below
from topwork.errors import InputError, MissingExtra, TopworkError


def fetch_kaggle(name: str, *, offline: bool = False) -> Path:
    """The folder (a SavedModel) or file of a model variation on Kaggle, fetched once, verified at each use.

    Args:
        name: `owner/model/framework/variation[/version]`. Without a version, the newest at the first fetch is
            used from then on.
        offline: use only what is in kagglehub's cache.

    Raises:
        MissingExtra: kagglehub is not installed.
        InputError: no such model or version; it requires signing in; it holds no module; offline and not cached.
        DamagedModule: offline and damaged, or its files are not those that first came.
        TopworkError: it can't be fetched.

    Follows https://github.com/Kaggle/kagglehub
    """
    try:
        from kagglehub.config import get_cache_folder
    except ModuleNotFoundError:
        raise MissingExtra(f"the module kaggle:{name}", "kaggle") from None

    parts = name.split("/")
    if len(parts) not in (4, 5) or not all(parts) or (len(parts) == 5 and not parts[4].isdigit()):
        raise InputError(f"expected kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]; got 'kaggle:{name}'")
    cache = Path(get_cache_folder())
    variation, version = "/".join(parts[:4]), parts[4] if len(parts) == 5 else None
    return keep(
        f"kaggle:{name}",
        cache,
        offline=offline,
        find=lambda: _find(cache / "models" / variation, version, name),
        fetch=lambda damaged: _fetch(variation, damaged or version, name, again=damaged is not None),
    )


def _find(folder: Path, version: str | None, name: str) -> Found | None:
    """The version, or the newest, that kagglehub marked as complete."""
    complete = [path.stem for path in folder.glob("*.complete") if path.stem.isdigit()]
    for number in sorted(complete, key=int, reverse=True):
        if version in (None, number) and (folder / number).is_dir():
            try:
                return _found(folder / number, number, name)
            except InputError:  # emptied, except for the mark
                continue
    return None


def _fetch(variation: str, version: str | None, name: str, *, again: bool) -> Found:
    handle = f"{variation}/{version}" if version else variation
    path = _download(handle, name, again=again)
    try:
        return _found(path, path.name, name)
    except InputError:
        if again:
            raise
    # kagglehub trusts its mark beside the folder, which may have been emptied since.
    path = _download(handle, name, again=True)
    return _found(path, path.name, name)


def _download(handle: str, name: str, *, again: bool) -> Path:
    import kagglehub
    import requests

    try:
        with _standard_output_kept_clear():
            return Path(kagglehub.model_download(handle, force_download=again))
    except requests.HTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status == HTTPStatus.NOT_FOUND:
            raise InputError(
                f"Kaggle has no kaggle:{name}: expected OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION] as the model's "
                f"page shows it, https://www.kaggle.com/models/{'/'.join(name.split('/')[:2])}"
            ) from error
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise InputError(
                f"Kaggle gives kaggle:{name} only to users who signed in and agreed to its terms: agree on the "
                "model's page, and set KAGGLE_API_TOKEN, or put the token into ~/.kaggle/access_token"
            ) from error
        raise TopworkError(f"kaggle:{name} can't be fetched: {one_line(error)}") from error
    except (
        Exception
    ) as error:  # the network's, kagglehub's own, the disk's: a dozen kinds without a common base
        raise TopworkError(f"kaggle:{name} can't be fetched: {one_line(error)}") from error


def _found(path: Path, revision: str, name: str) -> Found:
    return Found(module_in(path, shown=f"kaggle:{name}"), path, files_below(path), revision)


@contextmanager
def _standard_output_kept_clear() -> Iterator[None]:
    """Send kagglehub's messages to standard error: standard output is for --json."""
    handlers = [h for h in logging.getLogger("kagglehub").handlers if isinstance(h, logging.StreamHandler)]
    streams = [(handler, handler.stream) for handler in handlers]
    try:
        for handler in handlers:
            handler.setStream(sys.stderr)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        for handler, stream in streams:
            handler.setStream(stream)
