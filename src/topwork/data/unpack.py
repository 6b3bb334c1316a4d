"""A compressed tar's plain copy in the cache: made once, so that its images can be read in place."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from topwork.cache import cache_root
from topwork.data.dataset import readable
from topwork.errors import InputError, TopworkError

# By the first bytes, since names lie: many a .tar is compressed.
OPENERS: dict[bytes, Callable[[str], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}


def plain_tar(path: str) -> str:
    """The path of the uncompressed tar: the file itself, or its copy, `archives/SHA256.tar` in the cache.

    Raises `InputError` for a damaged file, `TopworkError` where the copy can't be written.
    """
    with Path(path).open("rb") as file:
        start = file.read(6)
        opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), None)
        if opener is None:
            return path
        file.seek(0)
        key = hashlib.file_digest(file, "sha256").hexdigest()
    target = cache_root() / "archives" / f"{key}.tar"
    if not target.is_file():
        with opener(path) as packed:
            _unpack(packed, target, readable(path))
    return str(target)


def _unpack(packed: IO[bytes], target: Path, shown: str) -> None:
    part: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".tar.part", delete=False) as out:
            part = Path(out.name)
            shutil.copyfileobj(packed, out, 2**20)
        part.replace(target)  # at once, so that a copy under this name is always whole
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise InputError(f"{shown} is damaged and can't be unpacked: {error}") from None
    except OSError as error:
        raise TopworkError(f"can't unpack {shown} to {target.parent}: {error.strerror or error}") from None
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
