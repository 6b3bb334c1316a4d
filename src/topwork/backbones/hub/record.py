"""The record of a module's files, their sizes and SHA-256, which are compared at each use.

For modules in our own cache (`modules`) and in other programs' (`foreign`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from topwork.errors import InputError, TopworkError
from topwork.storage.folders import held, storage_error

FORMAT = 1
DAMAGES = (ValueError, TypeError, LookupError, AttributeError)  # what a damaged record raises


class DamagedModule(TopworkError):
    """A kept module is no longer what was fetched."""


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One file of a module: its path inside the module with "/", its size and SHA-256."""

    name: str
    size_bytes: int
    sha256: str


def fetch_once(
    handle: str,
    lock: Path,
    *,
    place: Path,
    offline: bool,
    kept: Callable[[], Path],
    make: Callable[[], None],
    say: Callable[[str], None] | None = None,
) -> Path:
    """The module that `kept` verifies; fetched by `make` first if it is missing or damaged, by one process at a time.

    Args:
        place: the folder that is named in messages.
        offline: use what is kept, or fail.
        kept: raises FileNotFoundError if there is no module, DamagedModule if it differs from its record.
        say: receives a line when another process has to be waited for, or a damaged module is fetched again.

    Raises:
        InputError: offline and not kept; or what `make` raises.
        DamagedModule: offline, and what is kept is damaged.
    """
    try:
        return kept()
    except FileNotFoundError:
        if offline:
            raise InputError(
                f"{handle} is not kept in {place}, and nothing is fetched offline. Fetch it once while online: "
                f"topwork modules pull {handle}"
            ) from None
    except DamagedModule as damage:
        if offline:
            raise DamagedModule(
                f"{damage}. Offline it can't be fetched again; when online: topwork modules pull {handle}"
            ) from None
    with held(lock, waiting=waiting_for(handle, say)):
        try:
            return kept()  # another process may have fetched it meanwhile
        except FileNotFoundError:
            pass
        except DamagedModule as damage:
            if say:
                say(f"{damage}: it is fetched again")
        make()
        return kept()


def waiting_for(handle: str, say: Callable[[str], None] | None) -> Callable[[], None]:
    """A function that tells the user that another process is busy with this module."""
    return lambda: say(f"another process is fetching or removing {handle}: waiting for it") if say else None


def measure(root: Path, names: Iterable[str] | None = None) -> tuple[KeptFile, ...]:
    """The size and SHA-256 of files below `root`, all if none are named."""
    return tuple(
        KeptFile(name, (root / name).stat().st_size, sha256_of(root / name))
        for name in sorted(files_below(root) if names is None else names)
    )


def difference(root: Path, files: Iterable[KeptFile], *, contents: bool = True) -> str:
    """The first difference between files and their record; "" if there is none."""
    for file in files:
        path = root / file.name
        try:
            if not path.is_file():
                return f"{file.name} is missing"
            if (size := path.stat().st_size) != file.size_bytes:
                return f"{file.name} has {size:,} bytes, and had {file.size_bytes:,}"
            if contents and sha256_of(path) != file.sha256:
                return f"{file.name} changed since it was fetched: its SHA-256 differs"
        except OSError as error:
            return f"{file.name} can't be read: {error.strerror}"
    return ""


def files_below(root: Path) -> tuple[str, ...]:
    """The names of all files in a folder, with "/", and of links to folders, which are not followed."""
    paths = (path for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    return tuple(sorted(path.relative_to(root).as_posix() for path in paths))


def save(path: Path, record: Any, *, without: tuple[str, ...] = ()) -> None:
    """Write a record, a dataclass with `files`, as JSON; whole or not at all."""
    plain = {name: value for name, value in asdict(record).items() if name not in without}
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({"format": FORMAT} | plain, indent=1, default=str), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise storage_error(error, path) from error


def load(path: Path) -> dict[str, Any]:
    """The fields of a record. Raises OSError, or one of `DAMAGES` if it is damaged."""
    plain: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
    if (found := plain.pop("format")) != FORMAT:
        raise ValueError(f"its format is {found!r}; expected {FORMAT}")
    for name, value in [item for group in (plain, *plain["files"]) for item in group.items()]:
        if not isinstance(value, {"files": list, "size_bytes": int}.get(name, str)):
            raise ValueError(f"its {name} is {value!r}")
    return plain | {"files": tuple(KeptFile(**file) for file in plain["files"])}


def sha256_of(path: Path) -> str:
    """In hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_name(readable: str, identity: str) -> str:
    """A readable file name, different for each `identity`."""
    slug = re.sub(r"[^a-z0-9._]+", "-", readable.lower())[:80].strip("-.")
    return f"{slug}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
