"""Graphs that were converted through a framework: the record of one, and the folder where they are kept."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from topwork.errors import TopworkError
from topwork.storage.cache import cache_root

Range = Literal["[0, 1]", "unknown"]
GRAPH = "graph.xml"  # its weights lie beside it, in graph.bin
FOLDER = "converted"  # below the cache's root
RECORD = "record.json"
FORMAT = 1  # of the key and the record; a new one converts all anew
OLD_PART_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted module: the graph's file, and what is known of it. `image` float32 (1, S, S, 3) RGB to
    `features` float32 (1, width)."""

    graph: Path
    size_px: int
    size_fixed: bool  # at another size, the module would have to be another one
    range: Range  # of `image`; "unknown": whatever the module's makers fed it
    width: int
    notes: tuple[str, ...] = ()
    runs_code: bool = False  # TensorFlow ran the module's own operators in the conversion


@dataclass(frozen=True, slots=True)
class Conversion:
    """A graph that is kept: of which module, and where."""

    handle: str
    folder: Path
    size_bytes: int


def converted(
    key_parts: Sequence[str],
    make: Callable[[Path], Converted],
    *,
    handle: str = "",
    root: Path | None = None,
) -> Converted:
    """What `make` makes of a module, from `root/converted/<key>` if it was made before and is undamaged.

    `make` is given a folder of its own, to write the graph to. All is renamed into place at once, so that a
    process that is killed leaves nothing that another takes for whole; of two at the same time, both go on with
    the first one's. SHA-256 sums of the files and of the record are checked at each use.

    Args:
        key_parts: what the graph depends on: the handle, the version, the size; text.
        make: for example
            `lambda folder: convert_application("MobileNet", folder)`.
        handle: what the module is called, for lists.
        root: the cache's root, if not the usual one.

    Raises:
        TopworkError: the cache can't be written to; and what `make` raises.
    """
    key = hashlib.sha256(json.dumps([FORMAT, *key_parts]).encode()).hexdigest()
    parent = (cache_root() if root is None else root) / FOLDER
    folder = parent / key
    if (kept := _kept(folder)) is not None:
        return kept
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        part = Path(tempfile.mkdtemp(dir=parent, prefix=f"{key[:16]}-", suffix=".part"))
    except OSError as error:
        raise _unkept(parent, error) from error
    try:
        made = make(part)
        _write_record(part, made, handle)
        return _put(part, folder)
    except OSError as error:
        raise _unkept(parent, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def list_conversions(root: Path | None = None) -> tuple[Conversion, ...]:
    """All that are kept, damaged ones too; by handle."""
    found = []
    for folder in ((cache_root() if root is None else root) / FOLDER).glob("*"):
        if not folder.is_dir() or folder.suffix == ".part":
            continue
        handle = ""
        with suppress(OSError, ValueError, LookupError, TypeError):
            handle = str(json.loads((folder / RECORD).read_bytes())["handle"])
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        found.append(Conversion(handle or f"converted:{folder.name[:12]}", folder, size))
    return tuple(sorted(found, key=lambda one: one.handle))


def remove_conversion(one: Conversion) -> int:
    """Delete it; the bytes freed. Raises `TopworkError` where it can't be deleted."""
    part = one.folder.with_name(f"{one.folder.name[:16]}-removed.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        one.folder.rename(part)  # at once: nobody finds half of it
    except FileNotFoundError:
        return 0  # another process was faster
    except OSError as error:
        raise TopworkError(f"can't delete {one.folder}: {error.strerror}; delete it by hand") from error
    shutil.rmtree(part, ignore_errors=True)
    return one.size_bytes


def _kept(folder: Path) -> Converted | None:
    """The record, if it and the files are what was written."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        plain = json.loads((folder / RECORD).read_bytes())
        if plain["sha256"] != _sum_of_record(plain):
            return None
        if any(_sha256(folder / name) != wanted for name, wanted in plain["files"].items()):
            return None
        facts = plain["facts"]
        return Converted(folder / GRAPH, **(facts | {"notes": tuple(facts["notes"])}))
    return None


def _write_record(folder: Path, made: Converted, handle: str) -> None:
    facts = {name: getattr(made, name) for name in made.__slots__ if name != "graph"}
    files = {name: _sha256(folder / name) for name in (GRAPH, "graph.bin")}
    plain = {"facts": facts, "files": files}
    text = json.dumps({**plain, "handle": handle, "sha256": _sum_of_record(plain)}, indent=1)
    (folder / RECORD).write_text(text, encoding="utf-8")


def _sum_of_record(plain: dict[str, Any]) -> str:
    known = json.dumps([plain["facts"], plain["files"]], sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put(part: Path, folder: Path) -> Converted:
    """Rename `part` to `folder`; what another process put there meanwhile stays, what is damaged goes."""
    for _ in range(5):
        with suppress(OSError):  # a folder that isn't empty can't be replaced
            part.rename(folder)
        if (kept := _kept(folder)) is not None:
            return kept
        if not folder.exists():
            break
        aside = part.with_name(f"{part.stem}-damaged.part")
        with suppress(FileNotFoundError):  # another process may do the same
            folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(OSError):
            aside.unlink()  # a file was in the way
    raise TopworkError(
        f"can't keep the converted graph in {folder}: it can't be renamed into place, or read back"
    )


def _sweep(parent: Path) -> None:
    """Delete what processes left that were killed while they converted, once it is a day old."""
    for part in parent.glob("*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > OLD_PART_S:
                shutil.rmtree(part, ignore_errors=True)


def _unkept(parent: Path, error: OSError) -> TopworkError:
    return TopworkError(
        f"can't keep the converted graph in {parent}: {error.strerror or error}; make room there, or set "
        "TOPWORK_CACHE to another folder"
    )
