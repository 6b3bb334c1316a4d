"""The modules that were fetched from an address: where they are kept, listed, verified and removed.

In the folder of modules: `KEY/content/…`, the files; `KEY/module.json`, the record, written last; `KEY.lock`;
`KEY.part/`, a file that is being fetched. KEY is made from the address. A complete entry is moved into place at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

from topwork.backbones.hub.record import (
    DAMAGES,
    DamagedModule,
    KeptFile,
    difference,
    file_name,
    files_below,
    load,
    measure,
    save,
    waiting_for,
)
from topwork.errors import InputError, TopworkError
from topwork.storage.cache import cache_root
from topwork.storage.folders import discard, held, storage_error

RECORD, CONTENT = "module.json", "content"
_KEY = re.compile(r".+-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """A kept module: its entry in the cache, and what was recorded when it was fetched."""

    folder: Path
    url: str  # as requested; "" if the record can't be read
    final_url: str  # where the redirects led
    sha256: str  # of the bytes that came over the network
    size_bytes: int  # of them
    fetched: datetime
    files: tuple[KeptFile, ...]
    problem: str = ""  # from `list_modules`: why the entry can't be used


def modules_folder(root: Path | None = None) -> Path:
    """Where modules are kept: below `root`, if given; else in `topwork` below `$TFHUB_CACHE_DIR`, if set; else in the
    cache. What else lies in a `TFHUB_CACHE_DIR` is neither used nor touched.

    Raises: InputError, where `TFHUB_CACHE_DIR` is no folder of this machine.
    """
    if root is not None:
        return root / "modules"
    chosen = os.environ.get("TFHUB_CACHE_DIR")
    if not chosen:
        return cache_root() / "modules"
    if "://" in chosen:
        raise InputError(
            f"TFHUB_CACHE_DIR must be a folder on this machine; got {chosen}. Set another, or none"
        )
    return Path(chosen).expanduser() / "topwork"


def address(url: str) -> str:
    """The one way to write an https address: host in small letters, no fragment, only ASCII.

    Raises: InputError, for anything but https, or with a user's name.

    >>> address("https://TFHub.dev/google/inception_v3/5/")
    'https://tfhub.dev/google/inception_v3/5'
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
        host = host.encode("idna").decode("ascii")
    except ValueError as error:
        raise InputError(f"expected an https address; got {url!r}: {error}") from None
    if parts.scheme != "https" or not host or re.search(r"[\s\x00-\x1f]", host):
        raise InputError(
            f"expected an https address; got {url!r}: on any other way the module could be exchanged"
        )
    if parts.username is not None or parts.password is not None:
        raise InputError(
            f"the address of {host} holds a user's name or password, which would be kept: leave it out"
        )
    host = f"[{host}]" if ":" in host else host
    netloc = host if port in (None, 443) else f"{host}:{port}"
    path = parts.path.rstrip("/") if host == "tfhub.dev" else parts.path
    clean = parts._replace(netloc=netloc, path=quote(path, "%/:=@!$&'()*+,;~"), fragment="")
    return clean._replace(query=quote(parts.query, "%/:=@!$&'()*+,;~?")).geturl()


def key_of(url: str) -> str:
    """The name of an address's entry: readable and unique.

    >>> key_of("https://tfhub.dev/google/inception_v3/5")
    'tfhub.dev-google-inception_v3-5-9cffdeab9d092148'
    """
    url = address(url)
    parts = urlsplit(url)
    return file_name(f"{parts.netloc}{parts.path}", url)


def write_record(folder: Path, *, url: str, final_url: str, sha256: str, size_bytes: int) -> ModuleInfo:
    """Write the record of the files in `folder/content`. Until it stands there, the folder is no entry."""
    fetched, files = datetime.now(UTC).replace(microsecond=0), measure(folder / CONTENT)
    info = ModuleInfo(folder, url, final_url, sha256, size_bytes, fetched, files)
    save(folder / RECORD, info, without=("folder", "problem"))
    return info


def read_record(entry: Path) -> ModuleInfo:
    """What is recorded of an entry; its files are not looked at. Raises `DamagedModule`."""
    try:
        plain = load(entry / RECORD)
        return ModuleInfo(**plain | {"folder": entry, "fetched": datetime.fromisoformat(plain["fetched"])})
    except OSError as error:
        raise DamagedModule(f"{entry}: its record can't be read: {error.strerror}") from None
    except DAMAGES as error:
        raise DamagedModule(f"{entry}: its record {RECORD} is damaged: {error}") from None


def verify(entry: Path, *, url: str | None = None, contents: bool = True) -> ModuleInfo:
    """Compare an entry with its record: every file's size and SHA-256, none missing, none added, no links.

    Args:
        url: the address that the record must name; None for the one that the entry is named after.
        contents: False to compare only names and sizes.

    Raises:
        DamagedModule: it differs; the message says where.
    """
    info = read_record(entry)
    if info.url != url if url else key_of(info.url) != entry.name:
        raise DamagedModule(f"{entry}: its record is of {info.url}")
    content, names = entry / CONTENT, {file.name for file in info.files}
    strange = [name for name in files_below(content) if name not in names or (content / name).is_symlink()]
    problem = f"{strange[0]!r} is not of the module" if strange else ""
    if problem := problem or difference(content, info.files, contents=contents):
        raise DamagedModule(f"{entry}: {problem}")
    return info


def list_modules(root: Path | None = None) -> tuple[ModuleInfo, ...]:
    """All entries, the last fetched first. Sizes are compared with the record, contents are not."""
    place, found = modules_folder(root), []
    for entry in place.iterdir() if place.is_dir() else ():
        if not _KEY.fullmatch(entry.name) or not entry.is_dir() or entry.is_symlink():
            continue
        info = ModuleInfo(entry, "", "", "", 0, datetime.fromtimestamp(0, UTC), ())
        try:
            info = read_record(entry)
            verify(entry, contents=False)
        except TopworkError as error:
            info = replace(info, problem=str(error))
        found.append(info)
    return tuple(sorted(found, key=lambda info: (info.fetched, info.folder.name), reverse=True))


def remove_module(url: str, *, root: Path | None = None, say: Callable[[str], None] | None = None) -> int:
    """Delete what is kept of an address, complete or not; return the bytes freed.

    Raises:
        InputError: nothing is kept of it; the message lists what is.
        TopworkError: it can't be deleted.
    """
    url = address(url)
    place = modules_folder(root)
    entry = place / key_of(url)
    paths = [entry, *leftovers(entry)]
    if not any(os.path.lexists(path) for path in paths):
        known = ", ".join(sorted(info.url for info in list_modules(root) if info.url)) or "none"
        raise InputError(f"nothing is kept of {url} in {place}. Known: {known}")
    with held(lock_of(entry), waiting=waiting_for(url, say)):
        freed = sum(_bytes_in(path) for path in paths)
        gone = entry.with_name(f"{entry.name}.old")
        discard(gone)
        try:
            if os.path.lexists(entry):
                entry.rename(gone)  # at once: nobody finds half of it
        except OSError as error:
            raise storage_error(error, entry) from error
        for path in leftovers(entry):
            discard(path)
    return freed


def lock_of(entry: Path) -> Path:
    """The file that is locked while an entry is made or removed."""
    return entry.with_name(f"{entry.name}.lock")


def leftovers(entry: Path) -> tuple[Path, Path, Path]:
    """What may lie beside an entry: a file being fetched, a folder being made, one being deleted."""
    part, new, old = (entry.with_name(f"{entry.name}.{name}") for name in ("part", "new", "old"))
    return part, new, old


def _bytes_in(path: Path) -> int:
    return 0 if path.is_symlink() else sum((path / name).lstat().st_size for name in files_below(path))
