"""TFRecord files: what TensorFlow writes is found again, in flat memory; what is damaged is told."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from photos import finished, start_python
from topwork.data.tfrecord import RecordImage, parse_example, read_records
from topwork.errors import ImageError, InputError

tf = pytest.importorskip("tensorflow")

VALUES = st.one_of(
    st.lists(st.binary(max_size=300), max_size=3),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    st.lists(st.floats(width=32, allow_nan=False), max_size=3),
)


def example(features: dict[str, list]) -> bytes:
    """As TensorFlow writes it. A list's kind is its first value's; an empty list is a Feature of no kind."""

    def feature(values: list) -> tf.train.Feature:
        if not values:
            return tf.train.Feature()
        if isinstance(values[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        if isinstance(values[0], int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))

    named = {name: feature(values) for name, values in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


def write(path: Path, records: list[bytes]) -> str:
    with tf.io.TFRecordWriter(str(path)) as out:
        for record in records:
            out.write(record)
    return str(path)


@given(st.dictionaries(st.text(max_size=20), VALUES, max_size=5), st.binary(max_size=20))
def test_every_value_is_found_where_tensorflow_wrote_it(features: dict[str, list], before: bytes) -> None:
    data = before + example(features)
    record = parse_example(data + before, len(before), len(data))
    for name, values in features.items():
        span, integer = record.span(name), record.integer(name)
        first = values[0] if values else None
        assert integer == (first if isinstance(first, int) else None)
        assert (span is None) == (not isinstance(first, bytes))
        if span is not None:
            assert data[slice(*span)] == first
            assert record.text(name) == first.decode("utf-8", "backslashreplace")
    assert record.span("no such feature") is None


def test_integers_that_are_not_packed() -> None:
    """As writers that are not TensorFlow may put them: the field's number and its value, one after another."""
    unpacked = b"\x08\x05\x08\x07"
    feature = b"\x1a" + bytes([len(unpacked)]) + unpacked
    entry = b"\x0a\x01y\x12" + bytes([len(feature)]) + feature
    features = b"\x0a" + bytes([len(entry)]) + entry
    data = b"\x0a" + bytes([len(features)]) + features
    assert tf.train.Example.FromString(data).features.feature["y"].int64_list.value[:] == [5, 7]
    assert parse_example(data, 0, len(data)).integer("y") == 5


@given(st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_other_bytes_are_refused_or_hold_nothing_false(data: bytes) -> None:
    try:
        record = parse_example(data, 0, len(data))
        spans = [record.span(name) for name in record.places]
    except ValueError:
        return
    assert all(span is None or 0 <= span[0] <= span[1] <= len(data) for span in spans)


def test_records_in_their_order_skipped_and_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tfrecord", [example({"image": [b"%d" % i * i], "y": [i]}) for i in range(9)])
    for skip, take in [(0, 9), (0, 0), (3, 4), (8, 1)]:
        found = [(r.integer("y"), r.span("image")) for r in read_records(path, skip=skip, take=take)]
        assert [y for y, _ in found] == list(range(skip, skip + take))
        for y, (begin, end) in found:
            assert RecordImage(path, "x", begin, end - begin).read() == b"%d" % y * y
    assert list(read_records(write(tmp_path / "none.tfrecord", []), skip=0, take=0)) == []


def test_a_file_that_is_cut_or_no_record_file_is_told(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "x.tfrecord", [example({"image": [b"i" * 100]})] * 3))
    size = path.stat().st_size
    whole = path.read_bytes()

    def read() -> int:
        return len(list(read_records(str(path), skip=0, take=3)))

    assert read() == 3
    for cut in (0, size // 3, 2 * size // 3):  # between two records, it is only seen that some are missing
        path.write_bytes(whole[:cut])
        message = f"{path} is truncated: expected at least 3 records, found {cut * 3 // size}; prepare"
        with pytest.raises(InputError, match=re.escape(message)):
            read()
    for bad in (whole[:-1], whole[: size // 3 + 5], b"GIF89a" * 50, whole[:12] + b"\xff" * (size - 12)):
        path.write_bytes(bad)
        with pytest.raises(
            InputError, match=r"x.tfrecord is damaged at record \d: expected a TFRecord file of"
        ):
            read()


def test_an_image_whose_file_was_cut_since(tmp_path: Path) -> None:
    path = tmp_path / "x.tfrecord"
    path.write_bytes(b"12345")
    assert RecordImage(str(path), "7", 1, 4).read() == b"2345"
    with pytest.raises(ImageError, match=r"damaged: the record file ends inside this image"):
        RecordImage(str(path), "7", 2, 4).read()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        RecordImage(str(path), "7", 1, 4).read()
    assert str(RecordImage(str(path), "7", 1, 4)) == f"{path}!7"


PEAK = """
import resource, sys
from topwork.data.tfrecord import read_records
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
labels = [record.integer("y") for record in read_records(sys.argv[1], skip=0, take=8)]
print(labels, peak() - before)
"""


def test_a_gigabyte_of_images_is_passed_over(tmp_path: Path) -> None:
    """Eight images of 128 MiB, which are holes in the file: it takes no disk, and reading them would take memory."""
    path, large = tmp_path / "large.tfrecord", 2**27
    with path.open("wb") as out:
        for number in range(8):
            # An Example up to the image's bytes: each message's length counts those to come.
            head = b"\x0a" + varint(large)  # BytesList
            head = b"\x0a" + varint(len(head) + large) + head  # Feature
            head = b"\x0a\x05image\x12" + varint(len(head) + large) + head  # the map's entry
            label = b"\x0a\x0a\x0a\x01y\x12\x05\x1a\x03\x0a\x01" + bytes([number])
            head = label + b"\x0a" + varint(len(head) + large) + head  # Features
            head = b"\x0a" + varint(len(head) + large) + head  # Example
            out.write(struct.pack("<QI", len(head) + large, 0) + head)
            out.seek(large + 4, 1)
        out.truncate(out.tell())
    status, told, err = finished(start_python(PEAK, path))
    assert (status, err) == (0, "")
    labels, _, peak = told.strip().rpartition(" ")
    assert labels == str(list(range(8)))
    assert int(peak) < 32 * 1024  # in KiB: a quarter of one image


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])
