"""`hf:NAME[:SPLIT]`: datasets read by Hugging Face `datasets`, from the Hub or from a folder.

The tables are memory-mapped Arrow files. Labels and file names are read in batches; an image's row (its bytes, or the
path of its file) is read when it is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from topwork.data.dataset import Dataset, Problem, readable
from topwork.data.hosted import Found, choose, gather, is_path, marks, parse
from topwork.errors import ImageError, InputError, MissingExtra

PREFIX = "hf:"
BATCH = 4096  # labels and file names at a time
LABELS = ("label", "labels")


@dataclass(frozen=True, slots=True)
class RowImage:
    """An image in a row of a table: its bytes, or the path of its file. Thread-safe."""

    rows: Any  # a `datasets.Dataset` with only the columns "bytes" and "path"
    index: int
    name: str

    def read(self) -> bytes:
        """The encoded bytes. Raises `OSError`, or `ImageError` if the row has neither bytes nor a path."""
        row = self.rows[self.index]
        data, path = row.values()
        if data is not None:
            return bytes(data)
        if not path:
            raise ImageError("the row has no image")
        return Path(path).read_bytes()

    def __str__(self) -> str:
        return readable(self.name)


def load_hf(source: str) -> Dataset:
    """Read the labels of a Hugging Face dataset and locate its images, without reading them.

    Args:
        source: `hf:OWNER/NAME[/CONFIG][@REVISION][:SPLIT]` on the Hub, or `hf:FOLDER[:SPLIT]`, where FOLDER was
            written by `save_to_disk`, or has Parquet files, or images in class folders. Without SPLIT, the
            examples keep their splits train, validation and test. With SPLIT, or if there is only one split,
            they have none.

    Raises:
        MissingExtra: `datasets` is not installed.
        InputError: there is no such dataset, configuration or split, or no image and label among its features.

    Follows https://huggingface.co/docs/datasets/loading and https://huggingface.co/docs/datasets/image_load
    """
    place, wanted = parse(source, PREFIX)
    tables = _open(place, source)
    problems: list[Problem] = []
    if wanted is None:
        given, problems = marks(list(tables), source)
    else:
        choose(list(tables), wanted, source)
        given = {wanted: None}
    found: list[Found] = []
    names: dict[str, None] = {}
    for split in given:
        image, label = _columns(tables[split].features, source)
        names |= dict.fromkeys(getattr(tables[split].features[label], "names", ()))
        found += _read(tables[split], split, image, label, source)
    return gather(source, found, given, names, problems)


def _open(place: str, source: str) -> dict[str, Any]:
    """The tables by split name."""
    try:
        import datasets
    except ModuleNotFoundError:
        raise MissingExtra(f"the dataset {source}", "hf") from None

    path = Path(place).expanduser()
    local = is_path(place) or path.is_dir()
    if local and not path.is_dir():
        raise InputError(f"expected a folder at {readable(str(path))}; got no such folder")
    try:
        if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
            opened = datasets.load_from_disk(str(path))
        elif local:
            opened = datasets.load_dataset(str(path))
        else:
            name, _, revision = place.partition("@")
            parts = name.split("/", 2)
            opened = datasets.load_dataset(
                "/".join(parts[:2]), parts[2] if len(parts) > 2 else None, revision=revision or None
            )
    except Exception as error:  # many types, including network errors
        raise InputError(f"{source} can't be opened: {_one_line(error)}") from error
    return dict(opened) if isinstance(opened, dict) else {str(opened.split or "train"): opened}


def _columns(features: Any, source: str) -> tuple[str, str]:
    """The names of the image column and of the label column."""
    import datasets

    images = [name for name, f in features.items() if isinstance(f, datasets.Image)]
    labels = [name for name, f in features.items() if isinstance(f, datasets.ClassLabel)]
    if len(labels) != 1:
        texts = [name for name in LABELS if _is_text(features.get(name))]
        labels = [name for name in labels if name in LABELS] or texts
    if len(images) != 1 or len(labels) != 1:
        shown = ", ".join(f"{name} ({_kind(f)})" for name, f in features.items())
        raise InputError(
            f"expected one Image and one ClassLabel in {source}, or text in a column called label; got {shown}: "
            "rename or remove columns, or save its images into class folders"
        )
    return images[0], labels[0]


def _is_text(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("string", "large_string")


def _kind(feature: Any) -> str:
    kind = type(feature).__name__
    return str(feature.dtype) if kind == "Value" else kind


def _read(table: Any, split: str, image: str, label: str, source: str) -> Iterator[Found]:
    """Each row's label, file name and image location."""
    import datasets

    names = getattr(table.features[label], "names", None)
    # Without decoding, an image is a struct; flattening it gives two columns, so paths are read without bytes.
    flat = table.cast_column(image, datasets.Image(decode=False)).select_columns([image, label]).flatten()
    rows = flat.select_columns([f"{image}.bytes", f"{image}.path"])
    paths: list[str | None] = []
    labels: list[Any] = []
    for batch in flat.select_columns([f"{image}.path", label]).with_format("arrow").iter(BATCH):
        paths += batch.column(f"{image}.path").to_pylist()
        labels += batch.column(label).to_pylist()
    for number, (value, file_name) in enumerate(zip(labels, _below_their_folder(paths), strict=True)):
        if names is not None:
            value = names[value] if value is not None and 0 <= value < len(names) else None  # -1: unknown
        shown = f"{source.removesuffix(':' + split)}:{split}!{number:06}"
        yield Found(split, number, value or None, file_name, RowImage(rows, number, shown))


def _below_their_folder(paths: list[str | None]) -> list[str | None]:
    """File names to display: absolute paths become relative to their common folder."""
    absolute = [path for path in paths if path and PurePath(path).is_absolute()]
    if len(absolute) < len(paths) or not paths:
        return [path.replace("\\", "/") if path else None for path in paths]
    shared = os.path.commonpath([os.path.dirname(path) for path in absolute])  # noqa: PTH120
    return [PurePath(path).relative_to(shared).as_posix() for path in absolute]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
