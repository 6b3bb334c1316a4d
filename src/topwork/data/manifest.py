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
Row = tuple[str, dict[str, Any]]  # its position ("line 3"), and its values by column


def read_manifest(
    data: bytes, name: str, find: Callable[[str], tuple[str, ImageSource | None]], *, group: str = GROUP
) -> Dataset:
    """Read a manifest from bytes, keeping its order. The format is given by the extension of `name`.

    `find` maps a path to the example's id and its image source, or None if there is no such file; the example is
    then listed in `skipped`. Listed files may have any extension. Labels and groups are converted to text: whole
    numbers to digits, true to "true". `group` is the column with the groups.

    Raises:
        InputError: this is not a manifest (the message names the line), a path is listed twice, none of the files
            exists, or there are fewer than two classes.
        MissingExtra: it is a Parquet file, and pyarrow is not installed.
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
        image_id, image = find(path)
        if image_id in lines:
            raise InputError(f"{name} lists {path!r} twice, in {lines[image_id]} and {where}: remove one")
        lines[image_id] = where
        if column != GROUP and column not in row:
            raise InputError(f"{spot}: " + one_of(group, row, what="column to group by"))
        member_of, weight = _text(row.get(column), column, spot), _weight(row.get("weight"), spot)
        split = _split(row.get("split"), spot)
        if image is None:
            problems.append(Problem(image_id, f"no such file ({name}, {where})"))
        else:
            examples.append(Example(image_id, image, label, member_of, weight, split))
    if not examples:
        if problems:
            missing = problems[0].id
            raise InputError(
                f"none of the {len(problems)} files that {name} lists exist, such as {missing!r}: "
                "paths are relative to the manifest's folder"
            )
        raise InputError(f"{name} lists no images: expected one row per image, with path and label")
    classes = class_names(examples)
    check_classes(classes, name)
    return Dataset(tuple(examples), classes, name, tuple(problems))


def is_manifest(data: bytes, name: str) -> bool:
    """Whether a table has the columns that a manifest requires."""
    try:
        next(rows_of(data, name), None)
    except InputError:
        return False
    return True


def normal(path: str) -> str:
    """The normal form of a path: "./a//b.jpg" becomes "a/b.jpg"."""
    return posixpath.normpath(path)


def rows_of(data: bytes, name: str, *, group: str = GROUP) -> Iterator[Row]:
    """The rows of a table, in the format given by its extension. From Parquet, only manifest columns and `group`.

    Raises `InputError` if there is no path or label column.
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
    # strict=True: otherwise an unclosed quote would turn the rest of the file into one cell.
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
                    "put values that contain the delimiter in double quotes"
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
        raise InputError(f"{name} is not a readable Parquet file: {error}") from None
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
        raise InputError(f"{name}: there are two columns {twice[0]!r}: rename one")


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
