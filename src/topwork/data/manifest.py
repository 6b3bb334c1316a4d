"""Manifests: a CSV, TSV, JSONL or Parquet table with the columns path,label[,split][,group][,weight]."""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import posixpath
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from topwork.data.dataset import Dataset, Example, ImageSource, Problem, class_names
from topwork.data.layout import SPLIT_FOLDERS, check_classes, suffix_of
from topwork.errors import InputError, MissingExtra, one_of

COLUMNS = ("path", "label", "split", "group", "weight")
REQUIRED = COLUMNS[:2]
GROUP = "group"
OTHER_NAMES = {
    "path": ("file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "name", "id"),
    "label": ("class", "class_name", "category", "target", "y", "labels"),
}
Row = tuple[str, dict[str, Any]]  # where it stands ("line 3"), and its values by column


def read_manifest(
    data: bytes, name: str, find: Callable[[str], tuple[str, ImageSource | None]], *, group: str = GROUP
) -> Dataset:
    """Read a manifest's bytes; its order is kept. The ending of `name` says the format.

    `find` gives, for a path, the example's id and where its bytes are, or None where there is no such
    file: then it is listed in `skipped`. A listed file may have any ending. Labels and groups are text:
    whole numbers become digits, true becomes "true". `group` is the column that groups are in.

    Raises `InputError` for what is not such a table, with the line; for a path listed twice; where no
    file is found; for fewer than two classes. Raises `MissingExtra` for Parquet without pyarrow.
    """
    lines: dict[str, str] = {}
    examples, problems, column = [], [], group.strip().casefold()
    for where, row in rows_of(data, name, group=column):
        spot = f"{name}, {where}"
        path = row.get("path")
        if not isinstance(path, str) or not path:
            raise InputError(f"{spot}: expected the path of an image; got {_shown(path)}")
        label = _text(row.get("label"), "label", spot)
        if label is None:
            raise InputError(f"{spot}: expected a label for {path!r}; got none")
        id, image = find(path)
        if id in lines:
            raise InputError(f"{name} lists {path!r} twice, in {lines[id]} and {where}: take one away")
        lines[id] = where
        if column != GROUP and column not in row:
            raise InputError(f"{spot}: " + one_of(group, row, what="column to group by"))
        member_of, weight = _text(row.get(column), column, spot), _weight(row.get("weight"), spot)
        split = _split(row.get("split"), spot)
        if image is None:
            problems.append(Problem(id, f"no such file ({name}, {where})"))
        else:
            examples.append(Example(id, image, label, member_of, weight, split))
    if not examples:
        if problems:
            missing = problems[0].id
            raise InputError(
                f"none of the {len(problems)} files that {name} lists exist, such as {missing!r}: "
                "paths are taken from the manifest's own folder"
            )
        raise InputError(f"{name} lists no images: expected a row for each, with path and label")
    classes = class_names(examples)
    check_classes(classes, name)
    return Dataset(tuple(examples), classes, name, tuple(problems))


def is_manifest(data: bytes, name: str) -> bool:
    """Whether a table has the columns a manifest must have."""
    try:
        next(rows_of(data, name), None)
    except InputError:
        return False
    return True


def normal(path: str) -> str:
    """A path in one way of writing: "./a//b.jpg" is "a/b.jpg"."""
    return posixpath.normpath(path)


def rows_of(data: bytes, name: str, *, group: str = GROUP) -> Iterator[Row]:
    """The rows of a table, by the ending of its name; of Parquet, the columns of a manifest and `group` alone.

    Raises `InputError` where it has no path or label.
    """
    match suffix_of(name):
        case ".csv":
            return _delimited(_utf8(data, name), name, ",")
        case ".tsv":
            return _delimited(_utf8(data, name), name, "\t")
        case ".jsonl":
            return _json_lines(_utf8(data, name), name)
        case _:
            return _parquet(data, name, group)


def _delimited(text: str, name: str, delimiter: str) -> Iterator[Row]:
    # strict, since a quote left open would otherwise swallow the rest of the file as one cell.
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    header: list[str] | None = None
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            where = f"line {reader.line_num}"
            if not any(cells):
                continue
            if header is None:
                header = [cell.casefold() for cell in cells]
                _check_columns(header, name, delimiter)
            elif len(cells) > len(header):
                raise InputError(
                    f"{name}, {where}: expected {len(header)} cells as in the header; got {len(cells)}: "
                    "put a value that holds the delimiter in double quotes"
                )
            else:
                yield where, dict(zip(header, cells, strict=False))
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}: not well-formed: {error}") from None
    if header is None:
        _check_columns([], name, delimiter)


def _json_lines(text: str, name: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}, {where}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f'{name}, {where}: expected an object such as {{"path": …}}; got {_shown(row)}')
        row = {key.strip().casefold(): value for key, value in row.items()}
        _check_columns(list(row), f"{name}, {where}")
        yield where, row


def _parquet(data: bytes, name: str, group: str) -> Iterator[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra("reading a Parquet manifest", "parquet") from None
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        columns = {column.strip().casefold(): column for column in file.schema_arrow.names}
        _check_columns(list(columns), name)
        if group != GROUP and group not in columns:
            raise InputError(f"{name}: " + one_of(group, columns, what="column to group by"))
        wanted = {column: columns[column] for column in dict.fromkeys((*COLUMNS, group)) if column in columns}
        table = file.read(columns=list(wanted.values()))
    except pa.ArrowException as error:
        raise InputError(f"{name} is not a Parquet file that can be read: {error}") from None
    values = [table[column].to_pylist() for column in wanted.values()]
    for number, row in enumerate(zip(*values, strict=True), 1):
        yield f"row {number}", dict(zip(wanted, row, strict=True))


def _utf8(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{name}, line {line}: expected text in UTF-8; got byte 0x{data[error.start]:02x}: "
            "save it as UTF-8"
        ) from None


def _check_columns(found: list[str], name: str, delimiter: str = "") -> None:
    for column in REQUIRED:
        if column not in found:
            got = ", ".join(map(repr, found)) or "none"
            raise InputError(f"{name}: expected the columns path and label; got {got}{_near(column, found)}")
    twice = [column for column in COLUMNS if found.count(column) > 1]
    if twice:
        raise InputError(f"{name}: the column {twice[0]!r} stands there twice: rename one")


def _near(column: str, found: list[str]) -> str:
    if len(found) == 1 and (other := next((d for d in ";,\t|" if d in found[0]), None)):
        return f": its delimiter seems to be {other!r}, expected a comma in .csv and a tab in .tsv"
    synonyms = [other for other in OTHER_NAMES[column] if other in found]
    near = synonyms or difflib.get_close_matches(column, found, n=1)
    return f": rename {near[0]!r} to {column!r}" if near else f": {column!r} is missing"


def _text(value: Any, column: str, spot: str) -> str | None:
    match value:
        case None | "":
            return None
        case bool():
            return str(value).lower()
        case str() | int():
            return str(value)
    raise InputError(f"{spot}: {column} must be text or a whole number; got {_shown(value)}")


def _split(value: Any, spot: str) -> str | None:
    if value is None or value == "":
        return None
    known: Iterable[str] = SPLIT_FOLDERS
    if not isinstance(value, str) or value.casefold() not in known:
        raise InputError(f"{spot}: " + one_of(str(value), known, what="split"))
    return SPLIT_FOLDERS[value.casefold()]


def _weight(value: Any, spot: str) -> float:
    if value is None or value == "":
        return 1.0
    try:
        weight = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if not 0 < weight < math.inf:
        raise InputError(f"{spot}: weight must be a finite number above 0; got {_shown(value)}")
    return weight


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
