"""From an https address to a verified module in the cache: fetched once, and checked before it is kept."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from topwork.backbones.hub.https import Fetched, Progress, fetch
from topwork.backbones.hub.modules import (
    CONTENT,
    address,
    key_of,
    leftovers,
    lock_of,
    modules_folder,
    read_record,
    verify,
    write_record,
)
from topwork.backbones.hub.record import DamagedModule, fetch_once
from topwork.backbones.hub.unpack import DamagedError, packing_of, unpack
from topwork.backbones.hub.whole import SUFFIXES, TFLITE_MAGIC, check_whole
from topwork.errors import InputError
from topwork.storage.folders import discard, storage_error

_SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt", "tfhub_module.pb")
_SINGLE = (".onnx", ".tflite", ".keras", ".xml")


def fetch_module(
    url: str,
    *,
    root: Path | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """The module at an https address: its folder (a SavedModel) or file (.onnx, .tflite, .keras) in the cache.

    Every use compares all bytes with the record; a damaged entry is fetched again. Of several processes that want
    the same module, one fetches it. If the process is killed, nothing incomplete is ever used, and the next call
    resumes the download, if the server allows it.

    Args:
        root: the cache folder; None for `$TFHUB_CACHE_DIR` or the cache (see `modules.modules_folder`).
        offline: use only what is kept.
        progress: receives (bytes so far, total or None).
        say: receives a line when another process has to be waited for, or a damaged module is fetched again.

    Raises:
        InputError: not https; nothing there; a web page or another thing that is no module; a hostile archive;
            offline and not kept.
        DamagedModule: offline, and what is kept is damaged.
        TopworkError: it can't be fetched, or comes damaged.

    >>> fetch_module("https://tfhub.dev/google/imagenet/inception_v3/feature_vector/5")  # doctest: +SKIP
    """
    url = address(url)
    entry = modules_folder(root) / key_of(url)
    return fetch_once(
        url,
        lock_of(entry),
        place=entry.parent,
        offline=offline,
        kept=lambda: _kept(entry, url),
        make=lambda: _make(entry, url, progress, say),
        say=say,
    )


def request_address(url: str) -> str:
    """The address to request: by TF Hub's protocol, which others follow too, a query asks for the archive.

    An address that names a file, or has a query of its own, is requested as it is.

    >>> request_address("https://tfhub.dev/google/imagenet/inception_v3/feature_vector/5")
    'https://tfhub.dev/google/imagenet/inception_v3/feature_vector/5?tf-hub-format=compressed'
    """
    parts = urlsplit(url)
    names_file = re.search(r"\.[a-z][a-z0-9]*$", parts.path.lower())
    if parts.query or (names_file and parts.hostname != "tfhub.dev"):
        return url
    return parts._replace(query="tf-hub-format=compressed").geturl()


def module_in(folder: Path, *, shown: str) -> Path:
    """The module in a folder of unpacked files: a SavedModel folder, or a single file. Raises `InputError`."""
    names = {path.name: path for path in folder.iterdir()}
    if any(name in names for name in _SAVED_MODEL):
        return folder
    single = [path for path in names.values() if path.is_file() and path.suffix.lower() in _SINGLE]
    if len(single) == 1:
        return single[0]
    inner = [path for path in names.values() if path.is_dir()]
    if not single and len(inner) == 1:  # a folder around the whole
        return module_in(inner[0], shown=shown)
    raise InputError(
        f"{shown}: expected a module: {' or '.join(_SAVED_MODEL)}, or one file that ends in "
        f"{', '.join(_SINGLE)}; it holds {', '.join(sorted(names)[:5]) or 'nothing'}"
    )


def _kept(entry: Path, url: str) -> Path:
    """The verified module. Raises `FileNotFoundError` where there is no entry, `DamagedModule`."""
    if not os.path.lexists(entry):
        raise FileNotFoundError(entry)
    verify(entry, url=url)
    return module_in(entry / CONTENT, shown=url)


def _make(entry: Path, url: str, progress: Progress | None, say: Callable[[str], None] | None) -> None:
    """Fetch, unpack, check, record, and move into place at once. The caller holds the entry's lock."""
    part, new, old = leftovers(entry)
    try:
        discard(new)
        fetched = _fetch_whole(url, part / "file", new / CONTENT, progress)
        info = write_record(
            new, url=url, final_url=fetched.url, sha256=fetched.sha256, size_bytes=fetched.size_bytes
        )
        with contextlib.suppress(DamagedModule):
            if say and read_record(entry).files != info.files:
                say(f"{url}: the files are others than those that were fetched there before")
        discard(old)
        discard(part)  # first: once the entry is there, nobody looks for leftovers
        if os.path.lexists(entry):
            entry.rename(old)
        new.rename(entry)
    except OSError as error:
        raise storage_error(error, entry) from error
    finally:
        discard(new)
        discard(old)


def _fetch_whole(url: str, file: Path, content: Path, progress: Progress | None) -> Fetched:
    """Fetch to `file` and put its contents into `content`. A file that is no module is not kept."""
    for last in (False, False, True):
        fetched = fetch(request_address(url), file, shown=url, progress=progress)
        try:
            _place(fetched, content, url)
            module_in(content, shown=url)
            break
        except InputError:  # it would be the same the next time
            discard(file.parent)
            raise
        except DamagedError:
            discard(file.parent)
            if last or not fetched.resumed:
                raise
            discard(
                content
            )  # pieces may not have fitted, whatever the server said of them: once more, as a whole
    return fetched


def _place(fetched: Fetched, content: Path, url: str) -> None:
    """Check what was fetched and put it into `content`: an archive's files, or the single file."""
    with fetched.path.open("rb") as file:
        start = file.read(1024)
    name = _file_name(start, url, fetched.url)
    suffix = Path(name).suffix.lower()
    packing = packing_of(fetched.path)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise InputError(
            f"{url}: expected a module; the server sent a web page ({fetched.size_bytes:,} bytes, from "
            f"{fetched.url}), perhaps to sign in or to solve a captcha. Download the module with a browser "
            "and give its path; for Kaggle, use a kaggle: handle"
        )
    if packing and not (suffix == ".keras" and packing == "zip"):
        unpack(fetched.path, content, shown=url)
        return
    if suffix not in SUFFIXES:
        raise InputError(
            f"{url}: expected a tar, tar.gz or zip, or a file that ends in {', '.join(SUFFIXES)}; got "
            f"{fetched.size_bytes:,} bytes that begin with {start[:16]!r}"
        )
    try:
        content.mkdir(parents=True)
        check_whole(fetched.path.rename(content / name), shown=url)
    except OSError as error:
        raise storage_error(error, content / name) from error


def _file_name(start: bytes, asked: str, final: str) -> str:
    """A name for a single file: from the requested address, or else from where it led."""
    names = [
        re.sub(r"[^A-Za-z0-9._-]+", "_", urlsplit(url).path.rpartition("/")[2]) for url in (asked, final)
    ]
    for name in names:
        if Path(name).suffix.lower() in SUFFIXES:
            return name.lstrip(".-")
    return f"{names[0].strip('.-') or 'model'}.tflite" if start[4:8] == TFLITE_MAGIC else names[0]
