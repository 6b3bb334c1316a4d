"""Modules in the caches of kagglehub and huggingface_hub: recorded at first use, verified at each use.

These programs keep files where their users expect them, and check them only when they download them. A record,
`modules-foreign/KEY.json` in our cache, holds the size and SHA-256 of each file as it first came. The network is used
only for modules that are missing or damaged. Files that another program had fetched are recorded as they are found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from topwork.backbones.hub.record import (
    DAMAGES,
    DamagedModule,
    KeptFile,
    difference,
    fetch_once,
    file_name,
    load,
    measure,
    save,
)
from topwork.errors import TopworkError
from topwork.storage.cache import cache_root
from topwork.storage.folders import storage_error

FOLDER = "modules-foreign"


@dataclass(frozen=True, slots=True)
class Found:
    """A module in another program's cache."""

    module: Path  # a SavedModel folder, or a file
    root: Path  # the folder of `names`
    names: tuple[str, ...]  # the files that belong to it, with "/"
    revision: str  # what pins its content: a version, a commit


@dataclass(frozen=True, slots=True)
class ForeignModule:
    """A recorded module: its handle, its place, and its files as they first came."""

    record: Path
    handle: str
    module: Path
    root: Path
    revision: str
    files: tuple[KeptFile, ...]


def keep(
    handle: str,
    cache: Path,
    *,
    offline: bool,
    find: Callable[[], Found | None],
    fetch: Callable[[str | None], Found],
) -> Path:
    """The module's folder or file, verified to be as it first came; fetched if necessary, by one process at a time.

    Args:
        handle: its full name, such as `kaggle:google/…`.
        cache: the other program's cache folder.
        offline: use what is kept, or fail.
        find: looks into that cache without the network; returns None if the module is not complete there.
        fetch: downloads it to that cache; receives the revision to replace if that is damaged, else None.

    Raises:
        InputError: offline and not cached; or what `fetch` raises.
        DamagedModule: offline and damaged, or fetched again with other files than at first.
        TopworkError: a record or the lock can't be written; or what `fetch` raises.
    """
    record = record_of(handle, cache)

    def kept() -> Path:
        known = read_record(record)
        if known is None:
            found = find() if offline else None
            if found is None:
                raise FileNotFoundError(record)
            return _recorded(record, handle, found).module
        if problem := problem_of(known):
            raise DamagedModule(f"{handle} is damaged in {cache}: {problem}")
        return known.module

    def make() -> None:
        known = read_record(record)
        _recorded(record, handle, fetch(known.revision if known else None), known)

    lock = record.with_suffix(".lock")
    return fetch_once(handle, lock, place=cache, offline=offline, kept=kept, make=make)


def _recorded(record: Path, handle: str, found: Found, known: ForeignModule | None = None) -> ForeignModule:
    try:
        files = measure(found.root, found.names)
    except OSError as error:
        raise TopworkError(f"{handle}: {error.filename} can't be read: {error.strerror}") from error
    if known and known.revision == found.revision and known.files != files:
        changed = min(file.name for file in set(known.files) ^ set(files))
        raise DamagedModule(
            f"{handle}: revision {found.revision} was fetched again, and its files are not those that first came "
            f"({changed}). If you trust them, delete {record}"
        )
    paths = found.module.absolute(), found.root.absolute()
    made = ForeignModule(record, handle, *paths, found.revision, files)
    save(record, made, without=("record",))
    return made


def record_of(handle: str, cache: Path) -> Path:
    """The path of a module's record, one for each handle and cache folder."""
    name = file_name(handle, f"{handle}\n{cache.absolute()}")
    return cache_root() / FOLDER / f"{name}.json"


def read_record(record: Path) -> ForeignModule | None:
    """The record; None if there is none or it is damaged (the files are then measured again)."""
    try:
        told = load(record)
        paths = {"record": record, "module": Path(told["module"]), "root": Path(told["root"])}
        return ForeignModule(**told | paths) if told["files"] else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, record) from error
    except DAMAGES:
        return None


def problem_of(kept: ForeignModule) -> str:
    """The first difference between the files and their record; "" if there is none."""
    return difference(kept.root, kept.files)


def list_foreign() -> list[ForeignModule]:
    """All recorded modules, by their handles."""
    records = sorted((cache_root() / FOLDER).glob("*.json"))
    return sorted((kept for kept in map(read_record, records) if kept), key=lambda kept: kept.handle)


def forget(kept: ForeignModule) -> None:
    """Delete a record, not the files, which are the other program's. The next use starts anew."""
    kept.record.unlink(missing_ok=True)


def one_line(error: BaseException) -> str:
    """The message of another program's error, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
