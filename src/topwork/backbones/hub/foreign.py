"""Modules that lie in the caches of other hubs' own programs: what was found in them first, and whether it still is.

kagglehub and huggingface_hub keep their files where their users expect them, and neither looks at them again. So a
record, `modules-foreign/KEY.json` in our cache, tells the size and SHA-256 of each file as it first came, and every
use holds the files to it. What a record names is used as it is: the network is asked only for what is not kept, or
damaged. What another program had fetched before the first use here is recorded as it is found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from topwork.backbones.hub.modules import DamagedModule, KeptFile, difference, file_name, load, measure, save
from topwork.errors import InputError, TopworkError
from topwork.storage.cache import cache_root
from topwork.storage.folders import held, storage_error

FOLDER = "modules-foreign"


@dataclass(frozen=True, slots=True)
class Found:
    """A module as it lies in another program's cache."""

    module: Path  # what is to be read: a SavedModel folder, or a file
    root: Path  # the folder of `names`
    names: tuple[str, ...]  # the files that belong to it, with "/"
    revision: str  # what pins its content: a version, a commit


@dataclass(frozen=True, slots=True)
class ForeignModule:
    """A recorded module: its handle, where it lies and what its files were when they first came."""

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
    """The module's folder or file, whole and unchanged since it first came. One process at a time fetches it.

    Args:
        handle: its full name, such as `kaggle:google/…`.
        cache: the other program's cache folder.
        offline: use what is kept, or fail.
        find: looks into that cache, without the network; None where the module is not there whole.
        fetch: gets it there; told the revision that was damaged, to fetch that again over what is there, or None.

    Raises:
        InputError: offline and not kept; or what `fetch` raises.
        DamagedModule: offline and damaged, or fetched again and still not what first came.
        TopworkError: a record or the lock can't be written; or what `fetch` raises.
    """
    record = record_of(handle, cache)
    kept = read_record(record)
    damage = problem_of(kept) if kept else ""
    if kept and not damage:
        return kept.module
    with held(record.with_suffix(".lock"), waiting=lambda: None):
        kept = read_record(record)  # another process may have fetched it meanwhile
        damage = problem_of(kept) if kept else ""
        if kept and not damage:
            return kept.module
        if offline:
            if kept:
                raise DamagedModule(
                    f"{handle} is damaged in {cache}: {damage}. Offline it can't be fetched again; when online: "
                    f"topwork modules pull {handle}"
                )
            found = find()
            if found is None:
                raise InputError(
                    f"{handle} is not kept in {cache}, and nothing is fetched offline. Fetch it once while online: "
                    f"topwork modules pull {handle}"
                )
        else:
            found = fetch(kept.revision if kept else None)
        try:
            files = measure(found.root, found.names)
        except OSError as error:
            raise TopworkError(
                f"{handle}: a file that was just fetched can't be read: {error.filename}: {error.strerror}"
            ) from error
        if kept and kept.revision == found.revision and kept.files != files:
            changed = min(file.name for file in set(kept.files) ^ set(files))
            raise DamagedModule(
                f"{handle}: revision {found.revision} was fetched again, and its files are not those that first came "
                f"({changed}). If you trust them, delete {record}"
            )
        module = found.module.absolute()
        made = ForeignModule(record, handle, module, found.root.absolute(), found.revision, files)
        save(record, made, without=("record",))
        return module


def record_of(handle: str, cache: Path) -> Path:
    """Where the record of a module lies: readable, and its own for each handle and cache folder."""
    name = file_name(handle, f"{handle}\n{cache.absolute()}")
    return cache_root() / FOLDER / f"{name}.json"


def read_record(record: Path) -> ForeignModule | None:
    """What is recorded; None if nothing is, or the record is damaged (the files are then measured again)."""
    try:
        told = load(record)
        paths = {"record": record, "module": Path(told["module"]), "root": Path(told["root"])}
        return ForeignModule(**told | paths) if told["files"] else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, record) from error
    except (ValueError, LookupError, TypeError):
        return None


def problem_of(kept: ForeignModule) -> str:
    """The first thing in which the files differ from their record; "" where they don't."""
    return difference(kept.root, kept.files)


def list_foreign() -> list[ForeignModule]:
    """All recorded modules, by their handles."""
    records = sorted((cache_root() / FOLDER).glob("*.json"))
    return sorted((kept for kept in map(read_record, records) if kept), key=lambda kept: kept.handle)


def forget(kept: ForeignModule) -> None:
    """Delete a record: at its next use the module is fetched, or found, anew. Its files are the other program's."""
    kept.record.unlink(missing_ok=True)


def one_line(error: BaseException) -> str:
    """What an error of another program says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
