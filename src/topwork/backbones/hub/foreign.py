"""Modules that lie in the caches of other hubs' own programs: what was found in them first, and whether it still is.

kagglehub and huggingface_hub keep their files where their users expect them, and neither looks at them again. So a
record, `modules-foreign/KEY.json` in our cache, tells the size and SHA-256 of each file as it first came, and every
use holds the files to it. What a record names is used as it is: the network is asked only for what is not kept, or
damaged. What another program had fetched before the first use here is recorded as it is found.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from topwork.backbones.hub.modules import DamagedModule, KeptFile
from topwork.errors import InputError, TopworkError
from topwork.storage.cache import cache_root
from topwork.storage.folders import held, storage_error

FOLDER = "modules-foreign"
FORMAT = 1


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
        kept = read_record(record)  # by the process that had the lock before
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
        made = _measure(record, handle, found)
        if kept and kept.revision == made.revision and kept.files != made.files:
            raise DamagedModule(
                f"{handle}: revision {made.revision} was fetched again, and its files are not those that first came "
                f"({_first_difference(kept, made)}). If you trust them, delete {record}"
            )
        _write_record(made)
        return made.module


def record_of(handle: str, cache: Path) -> Path:
    """Where the record of a module lies: readable, and its own for each handle and cache folder."""
    slug = re.sub(r"[^a-z0-9._]+", "-", handle.lower())[:80].strip("-.")
    key = hashlib.sha256(f"{handle}\n{cache.absolute()}".encode()).hexdigest()[:16]
    return cache_root() / FOLDER / f"{slug}-{key}.json"


def read_record(record: Path) -> ForeignModule | None:
    """What is recorded; None where nothing is, or no record can be read (the files are then measured anew)."""
    try:
        told: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        if told["format"] != FORMAT or not told["files"]:
            return None
        files = tuple(KeptFile(f["name"], f["size_bytes"], f["sha256"]) for f in told["files"])
        return ForeignModule(
            record, told["handle"], Path(told["module"]), Path(told["root"]), told["revision"], files
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, record) from error
    except (ValueError, KeyError, TypeError):
        return None


def problem_of(kept: ForeignModule) -> str:
    """The first thing in which the files differ from their record; "" where they don't."""
    for file in kept.files:
        path = kept.root / file.name
        try:
            size = path.stat().st_size
            if size != file.size_bytes:
                return f"{file.name} has {size:,} bytes, and had {file.size_bytes:,}"
            if _sha256(path) != file.sha256:
                return f"{file.name} is not what was fetched (its SHA-256 differs)"
        except FileNotFoundError:
            return f"{file.name} is missing"
        except OSError as error:
            return f"{file.name} can't be read: {error.strerror}"
    return ""


def list_foreign() -> list[ForeignModule]:
    """All recorded modules, by their handles."""
    records = sorted((cache_root() / FOLDER).glob("*.json"))
    return sorted((kept for kept in map(read_record, records) if kept), key=lambda kept: kept.handle)


def forget(kept: ForeignModule) -> None:
    """Delete a record: at its next use the module is fetched, or found, anew. Its files are the other program's."""
    kept.record.unlink(missing_ok=True)


def files_below(root: Path) -> tuple[str, ...]:
    """The names of all files in a folder, with "/"; broken links are none."""
    return tuple(sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()))


def one_line(error: BaseException) -> str:
    """What an error of another program says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _measure(record: Path, handle: str, found: Found) -> ForeignModule:
    try:
        files = tuple(
            KeptFile(name, (found.root / name).stat().st_size, _sha256(found.root / name))
            for name in sorted(found.names)
        )
    except OSError as error:
        raise TopworkError(
            f"{handle}: a file that was just fetched can't be read: {error.filename}: {error.strerror}"
        ) from error
    return ForeignModule(
        record, handle, found.module.absolute(), found.root.absolute(), found.revision, files
    )


def _write_record(made: ForeignModule) -> None:
    told = {
        "format": FORMAT,
        "handle": made.handle,
        "module": str(made.module),
        "root": str(made.root),
        "revision": made.revision,
        "files": [asdict(file) for file in made.files],
    }
    try:
        with NamedTemporaryFile("w", dir=made.record.parent, suffix=".part", delete=False) as out:
            json.dump(told, out, indent=1)
        Path(out.name).replace(made.record)
    except OSError as error:
        raise storage_error(error, made.record) from error


def _first_difference(kept: ForeignModule, made: ForeignModule) -> str:
    def by_name(files: Sequence[KeptFile]) -> dict[str, KeptFile]:
        return {file.name: file for file in files}

    old, new = by_name(kept.files), by_name(made.files)
    return next(name for name in sorted(old | new) if old.get(name) != new.get(name))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
