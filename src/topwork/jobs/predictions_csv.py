"""A CSV file that is written row by row, and gone on with after any end: each image stands in it once.

`out.csv` holds whole rows but for the last, which a kill may tear; it is cut off before the next run goes on.
Beside it, `out.csv.topwork.json` says what the rows are made by, and `.out.csv.topwork.lock`, empty, keeps a second
process off. Rows reach the file within a fifth of a second, and the disk within five seconds: a killed process loses
the first, a power cut the second, and both are predicted again.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from topwork.errors import InputError, TopworkError
from topwork.storage.digests import Digests
from topwork.storage.folders import held

if TYPE_CHECKING:
    from topwork.classifiers.classifier import Prediction

FORMAT = 1
FLUSH_S, SYNC_S = 0.2, 5.0
TORN_BYTES = 4 * 2**20  # the most that is cut off: far more than is written between two syncs


@dataclass(frozen=True, slots=True)
class Plan:
    """What the rows are made by; those of another plan don't go into the same file."""

    columns: tuple[str, ...]
    classifier: str  # SHA-256 of its classifier.json
    top: int
    coverage: float | None


class Rows:
    """The open file: `add` a row; `done` names the images that are there, `rows` and `failed` count them."""

    def __init__(self, path: Path, folder: str) -> None:
        self.path, self.folder = path, folder  # `folder`: what names in it are relative to
        self.done = Digests()
        self.rows = self.failed = 0
        self._held: list[str] = []
        self._writing = False
        self._flushed = self._synced = time.monotonic()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)

    def add(self, cells: Iterable[object], *, failed: bool) -> None:
        """Add a row. Raises `TopworkError` where the disk is full."""
        self._held.append(csv_line(cells))
        self.rows += 1
        self.failed += failed
        if time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def flush(self, *, sync: bool = False) -> None:
        """Write what is held back. Stopped anywhere in here, rows are lost, never doubled."""
        rows, self._held = self._held, []
        self._writing = True
        whole = os.fstat(self._file).st_size
        try:
            data = memoryview("".join(rows).encode("utf-8", "backslashreplace"))
            while data:
                data = data[os.write(self._file, data) :]
            self._flushed = time.monotonic()
            if sync or self._flushed - self._synced > SYNC_S:
                os.fsync(self._file)
                self._synced = self._flushed
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._file, whole)
            raise _unwritable(self.path, error) from error
        self._writing = False

    def close(self, *, flush: bool) -> None:
        """Close; `flush`: write what is held back, unless a write was broken off."""
        try:
            if flush and not self._writing:
                self.flush(sync=True)
        finally:
            os.close(self._file)


@contextmanager
def appending(
    path: Path,
    plan: Plan,
    *,
    overwrite: bool = False,
    retry_failed: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Rows]:
    """Open `path` to begin it, or to go on with it; only this process does so while the block runs.

    Args:
        overwrite: begin it anew, if it is ours.
        retry_failed: take the rows of failed images out, so that they are not `done`.
        say: told when a torn row is cut off.

    Raises:
        InputError: a file of someone else, which is never touched; one of another plan; one that another process
            writes to; one that was changed in its midst.
        TopworkError: it can't be written.
    """
    shown, path = path, Path(os.path.realpath(path))
    _begun(shown, path)  # before anything is made beside it
    with _locked(path.with_name(f".{path.name}.topwork.lock"), shown):
        try:
            begun = _begun(shown, path)
            if begun is None or overwrite:
                path.open("wb").close()  # before the rest: an empty file is nobody's
                begun = _describe(side_of(path), plan)
            _check_plan(shown, begun, plan)
            rows = Rows(path, begun["folder"])
            try:
                _go_on(rows, shown, plan, retry_failed=retry_failed, say=say)
            except BaseException:
                rows.close(flush=False)
                raise
        except OSError as error:
            raise _unwritable(shown, error) from error
        try:
            yield rows
        finally:
            rows.close(flush=True)


def side_of(path: Path) -> Path:
    """Where it stands what the rows of `path` are made by."""
    return path.with_name(f"{path.name}.topwork.json")


def csv_line(cells: Iterable[object]) -> str:
    r"""One row, quoted as RFC 4180 says, ended by "\n" alone.

    >>> csv_line(["a,b.jpg", 0.5, ""])
    '"a,b.jpg",0.5,\n'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # with "\n" alone, it would leave "\r" unquoted
    return text.getvalue()[:-2] + "\n"


@contextmanager
def _locked(lock: Path, shown: Path) -> Iterator[None]:
    def taken() -> None:
        raise InputError(
            f"{shown}: another process is writing to it; wait until that ends, or choose another --csv"
        )

    with ExitStack() as stack:
        try:
            stack.enter_context(held(lock, waiting=taken))
        except TopworkError as error:
            if isinstance(error.__cause__, OSError):  # its text is about another folder
                raise _unwritable(shown, error.__cause__) from error
            raise
        yield


def _begun(shown: Path, path: Path) -> dict[str, Any] | None:
    """What the file was begun with; None where there is none yet. Raises `InputError` for one that isn't ours."""
    if path.is_dir():
        raise InputError(f"{shown}: expected a file for --csv; it is a folder")
    side = side_of(path)
    try:
        if not path.exists() or not path.stat().st_size:
            return None
        if side.exists():
            plain = json.loads(side.read_bytes())
            header = csv_line(plain["columns"]).encode()
            with path.open("rb") as file:
                first = file.read(len(header))
            known = {"folder": str, "classifier": str, "top": int}
            if plain["format"] == FORMAT and all(isinstance(plain[n], kind) for n, kind in known.items()):
                if first == header:
                    return dict(plain)
                if header.startswith(first):
                    return None  # killed in its first row
    except (ValueError, KeyError, TypeError):
        pass  # no description of ours
    except OSError as error:
        raise _unwritable(shown, error) from error
    raise InputError(
        f"{shown}: expected a new file, or one that `topwork predict --csv` began, with {side.name} beside it; it "
        "is another and stays as it is; choose another --csv (--csv - prints)"
    )


def _check_plan(shown: Path, begun: dict[str, Any], plan: Plan) -> None:
    mend = "choose another --csv, or add --overwrite to begin it anew"
    if begun["classifier"] != plan.classifier:
        raise InputError(f"{shown}: was begun with another classifier than this run's; {mend}")
    was, now = _options(begun["top"], begun.get("coverage")), _options(plan.top, plan.coverage)
    if was != now or tuple(begun["columns"]) != plan.columns:
        raise InputError(f"{shown}: was begun with {was}; got {now}; {mend}")


def _options(top: int, coverage: float | None) -> str:
    return f"--top {top}" + ("" if coverage is None else f" --coverage {coverage:g}")


def _go_on(rows: Rows, shown: Path, plan: Plan, *, retry_failed: bool, say: Callable[[str], None]) -> None:
    """Learn what is done from the rows that are there; cut off a torn one."""
    error_at, header = plan.columns.index("error"), csv_line(plan.columns).encode()
    number = dropped = good = 0
    with rows.path.open("rb") as file:
        for record, end in _records(file):
            cells = _cells(record, len(plan.columns))
            if cells is None:
                break
            number, good = number + 1, end
            failed = bool(cells[error_at])
            if number == 1:  # the header, which `_begun` has compared
                continue
            if failed and retry_failed:
                dropped += 1
            elif rows.done.add(cells[0]):
                rows.rows += 1
                rows.failed += failed
        torn = file.seek(0, os.SEEK_END) - good
    if torn > TORN_BYTES:
        raise InputError(
            f"{shown}: expected the rows that were written; row {number + 1} was changed since, with {torn:,} bytes "
            "from there on; put it right, or add --overwrite to begin the file anew"
        )
    if torn:
        os.truncate(rows.path, good)
        say(f"{shown}: its last row was torn ({torn:,} bytes): it is cut off, and predicted again")
    if not good:
        os.write(rows._file, header)
    if dropped:
        _drop_failed(rows, error_at, len(plan.columns))
        say(f"{shown}: {dropped:,} failed before: they are tried again")


def _drop_failed(rows: Rows, error_at: int, columns: int) -> None:
    """The same file without the rows of failed images, put in its place at once."""
    part = rows.path.with_name(f".{rows.path.name}.topwork.part")
    with rows.path.open("rb") as file, part.open("wb") as kept:
        for record, end in _records(file):
            cells = _cells(record, columns)
            if end == len(record) or (cells and not cells[error_at]):
                kept.write(record)
        kept.flush()
        os.fsync(kept.fileno())
    shutil.copymode(rows.path, part)
    os.close(rows._file)
    part.replace(rows.path)
    rows._file = os.open(rows.path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))


def _records(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each whole record with the place of its end; a record of several lines has its quotes open between."""
    lines: list[bytes] = []
    end = quotes = length = 0
    for line in file:
        lines.append(line)
        length += len(line)
        quotes += line.count(b'"')
        if length > TORN_BYTES:
            return
        if quotes % 2 == 0 and line.endswith(b"\n"):
            end += length
            yield b"".join(lines), end
            lines, quotes, length = [], 0, 0


def _cells(record: bytes, columns: int) -> list[str] | None:
    try:
        cells = next(csv.reader(io.StringIO(record.decode("utf-8"), newline=""), strict=True), [])
    except (ValueError, csv.Error):
        return None
    return cells if len(cells) == columns else None


def _describe(side: Path, plan: Plan) -> dict[str, Any]:
    """Write what the rows are made by, whole or not at all, and return it."""
    plain = {"format": FORMAT, **asdict(plan), "folder": os.getcwd()}  # noqa: PTH109 (text, for JSON)
    part = side.with_name(f".{side.name}.part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(plain, file, indent=2)  # ASCII: any folder's name can be written
        file.flush()
        os.fsync(file.fileno())
    part.replace(side)
    return plain


def _unwritable(path: Path, error: OSError) -> TopworkError:
    return TopworkError(
        f"{path}: can't be written ({error.strerror or error}); free some space or choose another --csv; the same "
        "command goes on from the last whole row"
    )


def csv_columns(*, top: int, sets: bool) -> tuple[str, ...]:
    """The head of `csv_cells`."""
    numbers = [""] + [f"_{i}" for i in range(2, top + 1)]
    names = (f"{name}{i}" for i in numbers for name in ("class", "probability"))
    return ("image", *names, *(["set"] if sets else []), "rejected", "error")


def csv_cells(prediction: Prediction, *, top: int, least: float | None = None) -> list[str]:
    """What a row says of one image; the names are as they are, whatever a spreadsheet makes of them."""
    cells = [cell for name, p in prediction.top(top) for cell in (name, f"{p:.6f}")]
    cells += [""] * (2 * top - len(cells))
    if least is not None:
        cells.append("|".join(name for name, _ in prediction.at_least(least)))
    return [prediction.image, *cells, prediction.reason or "", prediction.error or ""]
