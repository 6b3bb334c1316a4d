"""The modules that were fetched: where they lie, what is recorded of each, and whether they are still that.

Below the folder of modules: `KEY/content/…`, the files; `KEY/module.json`, the record, written last; `KEY.lock`;
`KEY.part/`, what came of a file that is being fetched. KEY is made of the address. An entry is moved into place
whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

from topwork.errors import InputError, TopworkError
from topwork.storage.cache import cache_root
from topwork.storage.folders import discard, held, storage_error

RECORD, CONTENT = "module.json", "content"
FORMAT = 1
_KEY = re.compile(r".+-[0-9a-f]{16}")


class DamagedModule(TopworkError):
    """A kept module is no longer what was fetched."""


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One file of a module: its path below `content` with "/", its size and SHA-256."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """A kept module: its entry in the cache, and what was recorded when it was fetched."""

    folder: Path
    url: str  # as asked for; "" where the record can't be read
    final_url: str  # where the redirects led
    sha256: str  # of the bytes that came over the network
    size_bytes: int  # of them
    fetched: datetime
    files: tuple[KeptFile, ...]
    problem: str = ""  # from `list_modules`: why the entry can't be used

    @property
    def kept_bytes(self) -> int:
        """The size of the unpacked files."""
        return sum(file.size_bytes for file in self.files)


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
    """The name of an address's entry: readable, and its own.

    >>> key_of("https://tfhub.dev/google/inception_v3/5")
    'tfhub.dev-google-inception_v3-5-9cffdeab9d092148'
    """
    url = address(url)
    parts = urlsplit(url)
    slug = re.sub(r"[^a-z0-9._]+", "-", f"{parts.netloc}{parts.path}".lower())[:80].strip("-.")
    return f"{slug}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"


def write_record(folder: Path, *, url: str, final_url: str, sha256: str, size_bytes: int) -> ModuleInfo:
    """Write the record of the files in `folder/content`. Until it stands there, the folder is no entry."""
    files = tuple(sorted(_hashed(folder / CONTENT), key=lambda file: file.name))
    fetched = datetime.now(UTC).replace(microsecond=0)
    plain = {
        "format": FORMAT,
        "url": url,
        "final_url": final_url,
        "sha256": sha256,
        "size_bytes": size_bytes,
        "fetched": fetched.isoformat(),
        "files": [asdict(file) for file in files],
    }
    (folder / RECORD).write_text(json.dumps(plain, indent=1), encoding="utf-8")
    return ModuleInfo(folder, url, final_url, sha256, size_bytes, fetched, files)


def read_record(entry: Path) -> ModuleInfo:
    """What is recorded of an entry; its files are not looked at. Raises `DamagedModule`."""
    try:
        plain = json.loads((entry / RECORD).read_text(encoding="utf-8"))
        if plain["format"] != FORMAT:
            raise ValueError(f"its format is {plain['format']!r}; expected {FORMAT}")
        files = tuple(
            KeptFile(str(f["name"]), int(f["size_bytes"]), str(f["sha256"])) for f in plain["files"]
        )
        urls = str(plain["url"]), str(plain["final_url"])
        fetched = datetime.fromisoformat(plain["fetched"])
        return ModuleInfo(entry, *urls, str(plain["sha256"]), int(plain["size_bytes"]), fetched, files)
    except OSError as error:
        raise DamagedModule(f"{entry}: its record can't be read: {error.strerror}") from None
    except (ValueError, TypeError, LookupError) as error:
        raise DamagedModule(f"{entry}: its record {RECORD} is damaged: {error}") from None


def verify(entry: Path, *, url: str | None = None) -> ModuleInfo:
    """Hold an entry to its record: every file's size and SHA-256, none missing, none added, no links.

    Raises:
        DamagedModule: it differs, and where; or, with `url`, it was fetched from another address.
    """
    info = read_record(entry)
    if url is not None and info.url != url:
        raise DamagedModule(f"{entry}: expected a module from {url}; its record says {info.url}")
    _compare_sizes(info)
    try:
        found = {file.name: file.sha256 for file in _hashed(entry / CONTENT)}
    except OSError as error:
        raise DamagedModule(f"{entry}: a file of it can't be read: {error.strerror}") from None
    for file in info.files:
        if found.get(file.name) != file.sha256:
            raise DamagedModule(
                f"{entry}: {file.name} changed since it was fetched: SHA-256 {file.sha256[:12]}…, now "
                f"{found.get(file.name, 'gone')[:12]}…"
            )
    return info


def list_modules(root: Path | None = None) -> tuple[ModuleInfo, ...]:
    """All entries, the last fetched first. Sizes are compared with the record, contents are not."""
    place, found = modules_folder(root), []
    for entry in place.iterdir() if place.is_dir() else ():
        if not _KEY.fullmatch(entry.name) or not entry.is_dir() or entry.is_symlink():
            continue
        info = ModuleInfo(entry, "", "", "", 0, datetime.fromtimestamp(0, UTC), ())
        problem = ""
        try:
            info = read_record(entry)
            _compare_sizes(info)
            if key_of(info.url) != entry.name:
                problem = f"{entry}: its record is of {info.url}"
        except TopworkError as error:
            problem = str(error)
        values = {name: getattr(info, name) for name in info.__slots__}
        found.append(ModuleInfo(**values | {"problem": problem}))
    return tuple(sorted(found, key=lambda info: (info.fetched, info.folder.name), reverse=True))


def remove_module(url: str, *, root: Path | None = None, say: Callable[[str], None] | None = None) -> int:
    """Delete what is kept of an address, whole or in part; return the bytes freed.

    Raises:
        InputError: nothing is kept of it; with what is.
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
    """What may stand beside an entry: a file on its way, a folder being made, one being deleted."""
    part, new, old = (entry.with_name(f"{entry.name}.{name}") for name in ("part", "new", "old"))
    return part, new, old


def waiting_for(url: str, say: Callable[[str], None] | None) -> Callable[[], None]:
    """What tells the user that another process is busy with this module."""
    return lambda: say(f"another process is fetching or removing {url}: waiting for it") if say else None


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """The path below `folder` and the status of everything that is no folder; links are not followed."""

    def refuse(error: OSError) -> None:
        raise error

    for inner, folders, names in os.walk(folder, onerror=refuse):
        links = [name for name in folders if Path(inner, name).is_symlink()]
        for name in (*names, *links):
            path = Path(inner, name)
            yield path.relative_to(folder).as_posix(), path.lstat()


def _hashed(folder: Path) -> Iterator[KeptFile]:
    for name, status in _files(folder):
        with (folder / name).open("rb") as file:
            yield KeptFile(name, status.st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _compare_sizes(info: ModuleInfo) -> None:
    expected = {file.name: file.size_bytes for file in info.files}
    try:
        found = {
            name: status.st_size if stat.S_ISREG(status.st_mode) else -1
            for name, status in _files(info.folder / CONTENT)
        }
    except OSError as error:
        raise DamagedModule(f"{info.folder}: its files can't be listed: {error.strerror}") from None
    if found == expected:
        return
    for reason, names in (
        ("missing", expected.keys() - found.keys()),
        ("not of the module", found.keys() - expected.keys()),
        ("of another size or kind", {name for name in expected if found.get(name) != expected[name]}),
    ):
        if names:
            raise DamagedModule(f"{info.folder}: {min(names)!r} is {reason}")


def _bytes_in(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        return sum(status.st_size for _, status in _files(path))
    return path.lstat().st_size if os.path.lexists(path) else 0
