"""`tfds:NAME[:SPLIT]`: datasets prepared by TensorFlow Datasets, read without TensorFlow.

TensorFlow Datasets finds or downloads the dataset and provides its features, class names, splits and files. Its
readers only iterate over complete examples, so the records are located here:

- TFRecord: one pass records each label and the offsets of the image's bytes; `read` seeks to them.
- ArrayRecord: records are compressed, so one pass unpacks them one by one; `read` unpacks a single record.

No image is kept in memory. Loading touches (TFRecord) or reads (ArrayRecord) each record once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from topwork.data.dataset import Dataset, ImageSource, Problem, readable
from topwork.data.hosted import Found, choose, gather, is_path, marks, parse
from topwork.data.tfrecord import Record, RecordImage, parse_example, read_records
from topwork.errors import ImageError, InputError, MissingExtra, TopworkError

PREFIX = "tfds:"
# Names of features that contain an image's file name.
FILE_NAMES = ("image/filename", "image/file_name", "file_name", "filename", "image_name")
_DAMAGE = (RuntimeError, ValueError, OSError, IndexError)  # what array_record raises
INFO = "dataset_info.json"  # in the folder of every prepared dataset


@dataclass(frozen=True, slots=True)
class ArrayRecordImage:
    """An image in an ArrayRecord file, unpacked when it is read; thread-safe."""

    records: Any  # array_record's ArrayRecordDataSource
    index: int
    feature: str
    name: str

    def read(self) -> bytes:
        """The encoded bytes. Raises `ImageError` if the record can't be unpacked."""
        try:
            record = _unpacked(self.records, self.index)
        except _DAMAGE as error:
            raise ImageError(f"damaged in the record file: {_first_line(error)}") from None
        span = record.span(self.feature)
        if span is None:
            raise ImageError("the record has no image")
        return bytes(record.data[slice(*span)])

    def __str__(self) -> str:
        return readable(self.name)


@dataclass(frozen=True, slots=True)
class _Columns:
    """The features to read."""

    image: str
    label: str
    file_name: str | None
    names: tuple[str, ...]  # class names by index


def load_tfds(source: str) -> Dataset:
    """Read the labels of a TensorFlow dataset and locate its images, without reading them.

    Args:
        source: `tfds:NAME[/CONFIG][:VERSION][:SPLIT]`; NAME may also be the path of a prepared folder. SPLIT may be
            a slice or a sum, such as `train[:10%]+test`. Without SPLIT, the examples keep their splits train,
            validation and test. With SPLIT, or if there is only one split, they have none. A dataset that is not
            prepared yet is downloaded to TFDS_DATA_DIR (default: ~/tensorflow_datasets).

    Raises:
        MissingExtra: tensorflow-datasets is not installed.
        InputError: there is no such dataset or split, no image and class label among its features, or the files are
            damaged.
        TopworkError: it can't be downloaded and prepared.

    Follows https://www.tensorflow.org/datasets/overview and https://www.tensorflow.org/datasets/splits
    """
    place, wanted = parse(source, PREFIX)
    builder = _builder(place, source)
    columns = _columns(builder.info, source)
    splits = builder.info.splits
    problems: list[Problem] = []
    if wanted is None:
        given, problems = marks(list(splits), source)
    else:
        if wanted != "all" and not {"[", "+"} & set(wanted):
            choose(list(splits), wanted, source)
        given = {wanted: None}
    found: list[Found] = []
    for split in given:
        found += _read(builder, split, columns, source, problems)
    return gather(source, found, dict.fromkeys(splits) | given, columns.names, problems)


def _builder(place: str, source: str) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ModuleNotFoundError:
        raise MissingExtra(f"the dataset {source}", "tfds") from None

    if is_path(place) or (Path(place) / INFO).is_file():
        return tfds.builder_from_directory(_prepared_folder(Path(place).expanduser()))
    try:
        builder = tfds.builder(place, data_dir=os.environ.get("TFDS_DATA_DIR"))
    except Exception as error:  # whatever the dataset's own code raises
        raise InputError(_unknown(place, source, error)) from error
    if not builder.is_prepared():
        try:
            with redirect_stdout(None):  # keeps its messages out of --json; its bars are on stderr
                builder.download_and_prepare()
        except Exception as error:
            raise TopworkError(
                f"{source} can't be downloaded and prepared in {builder.data_dir}: {_first_line(error)}. If it is "
                "prepared in another folder, set TFDS_DATA_DIR to that folder"
            ) from error
    return builder


def _prepared_folder(folder: Path) -> str:
    if (folder / INFO).is_file():
        return str(folder)
    below = sorted(readable(str(path.parent)) for path in folder.glob(f"**/{INFO}"))
    if below:
        raise InputError(f"expected the folder of one version, with {INFO}; got {folder}: give {below[-1]}")
    what = f"a folder without {INFO}" if folder.is_dir() else "no such folder"
    raise InputError(f"expected a folder prepared by TensorFlow Datasets ({INFO}) at {folder}; got {what}")


def _unknown(place: str, source: str, error: Exception) -> str:
    import difflib

    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    name = place.partition("/")[0].partition(":")[0]
    if name in known:
        return f"{source} can't be opened: {_first_line(error)}"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean tfds:{near[0]}?" if near else "."
    where = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return (
        f"unknown dataset {source}{hint} It is not among the {len(known)} of TensorFlow Datasets "
        f"(https://www.tensorflow.org/datasets/catalog), and not prepared in {where}"
    )


def _columns(info: Any, source: str) -> _Columns:
    """The image and the label: the dataset's declared input and target, or the only ones."""
    from tensorflow_datasets import features as kinds

    features = dict(info.features.items()) if hasattr(info.features, "items") else {}
    images = [name for name, f in features.items() if type(f) is kinds.Image and f.np_dtype != "float32"]
    labels = [name for name, f in features.items() if isinstance(f, kinds.ClassLabel)]
    declared: tuple[Any, ...] = tuple(info.supervised_keys or ())
    if len(declared) >= 2 and declared[0] in images and declared[1] in labels:
        images, labels = [declared[0]], [declared[1]]
    if len(images) != 1 or len(labels) != 1:
        shown = ", ".join(f"{name} ({type(f).__name__})" for name, f in features.items())
        raise InputError(
            f"expected one Image and one ClassLabel in {source}, or supervised_keys with their names; got {shown}: "
            "save its images into class folders"
        )
    label = features[labels[0]]
    names = tuple(label.names if label.names else map(str, range(label.num_classes or 0)))
    texts = [name for name in FILE_NAMES if isinstance(features.get(name), kinds.Text)]
    return _Columns(images[0], labels[0], texts[0] if texts else None, names)


def _read(
    builder: Any, split: str, columns: _Columns, source: str, problems: list[Problem]
) -> Iterator[Found]:
    """Each record's label and image location in a split, a slice of one, or a sum of several."""
    info = builder.info
    try:
        parts = list(info.splits[split].file_instructions)
    except (ValueError, KeyError, AssertionError) as error:
        raise InputError(f"{source}: the split {split!r} can't be read: {_first_line(error)}") from None
    readers = {"tfrecord": _tfrecords, "array_record": _array_records}
    form = info.file_format.value
    if form not in readers:
        raise InputError(
            f"{source} is prepared as {form}; expected {' or '.join(readers)}: prepare it again as one of these"
        )
    begins = {  # file → its split, and the index of its first record in that split
        os.fspath(path): (name, first)
        for name, whole in info.splits.items()
        for path, first in zip(whole.filepaths, accumulate(whole.shard_lengths, initial=0), strict=False)
    }
    for path, at, record, image in readers[form](builder, split, parts, columns):
        name, first = begins[path]
        label = record.integer(columns.label)
        # -1 usually means unknown
        named = columns.names[label] if label is not None and 0 <= label < len(columns.names) else None
        file_name = record.text(columns.file_name) if columns.file_name else None
        if image is None:
            problems.append(Problem(f"{name}/{first + at:06}", "the record has no image"))
        else:
            yield Found(name, first + at, named, file_name, image)


# What a reader yields: the file, the record's index in it, the record, and its image.
_Read = tuple[str, int, Record, ImageSource | None]


def _tfrecords(builder: Any, split: str, parts: list[Any], columns: _Columns) -> Iterator[_Read]:
    for part in parts:
        path = os.fspath(part.filename)
        for at, record in enumerate(read_records(path, skip=part.skip, take=part.take), part.skip):
            span = record.span(columns.image)
            image = RecordImage(path, f"{at:06}", span[0], span[1] - span[0]) if span else None
            yield path, at, record, image


def _array_records(builder: Any, split: str, parts: list[Any], columns: _Columns) -> Iterator[_Read]:
    if not parts:
        return
    try:
        records = builder.as_data_source(split).data_source
    except ImportError:
        raise InputError(
            f"{builder.data_dir} is prepared as array_record, which needs the package array-record: "
            "pip install array-record"
        ) from None
    index = 0
    for part in parts:
        path = os.fspath(part.filename)
        for at in range(part.skip, part.skip + part.take):
            try:
                record = _unpacked(records, index)
            except _DAMAGE as error:
                raise InputError(
                    f"{path} is damaged at record {at}: {_first_line(error)}; prepare the dataset again"
                ) from None
            image = ArrayRecordImage(records, index, columns.image, f"{path}!{at:06}")
            yield path, at, record, image if record.span(columns.image) else None
            index += 1


def _unpacked(records: Any, index: int) -> Record:
    data = records[index]
    if not data:  # the reader returns nothing if the file is truncated
        raise ValueError("there is no record")
    return parse_example(data, 0, len(data))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
