"""What `tfds:` and `hf:` share: their text, their splits, and the ids of what is found."""

from __future__ import annotations

import re

import pytest

from topwork.data.dataset import FileImage, Problem
from topwork.data.hosted import Found, choose, gather, is_path, marks, parse
from topwork.errors import InputError


@pytest.mark.parametrize(
    ("source", "place", "split"),
    [
        ("tfds:mnist", "mnist", None),
        ("tfds:mnist:test", "mnist", "test"),
        ("tfds:caltech/plain:3.0.1", "caltech/plain:3.0.1", None),
        ("tfds:caltech/plain:3.*.*:train", "caltech/plain:3.*.*", "train"),
        ("tfds:mnist:experimental_latest:test", "mnist:experimental_latest", "test"),
        ("tfds:/data/mnist/3.0.1", "/data/mnist/3.0.1", None),
        ("tfds:/data/mnist/3.0.1:train[:10%]", "/data/mnist/3.0.1", "train[:10%]"),
        ("tfds:mnist:train[5:9]+test", "mnist", "train[5:9]+test"),
        (r"tfds:C:\data\mnist\3.0.1:train", r"C:\data\mnist\3.0.1", "train"),
        ("tfds:owner/name@main:train", "owner/name@main", "train"),
    ],
)
def test_a_source_is_a_place_and_a_split(source: str, place: str, split: str | None) -> None:
    assert parse(source, "tfds:") == (place, split)


@pytest.mark.parametrize("rest", ["", ":", "mnist:", ":train", "mnist::train"])
def test_another_text_is_refused(rest: str) -> None:
    message = f"expected hf:NAME or hf:NAME:SPLIT; got 'hf:{rest}'"
    with pytest.raises(InputError, match=re.escape(message)):
        parse(f"hf:{rest}", "hf:")


def test_what_is_a_path() -> None:
    for path in ("/a", "./a", "../a", "~/a", "C:\\a", "D:/a", "\\\\host\\a", ".", ".."):
        assert is_path(path)
    for name in ("mnist", "owner/name", "a:1.0.0", ".hidden"):
        assert not is_path(name)


def test_splits_get_topworks_names() -> None:
    assert marks(["train", "val", "TEST"], "hf:x") == (
        {"train": "train", "val": "validation", "TEST": "test"},
        [],
    )
    assert marks(["anything"], "hf:x") == ({"anything": None}, [])  # alone: Topwork makes its own splits
    extra = Problem("extra", "the split 'extra' is neither train, validation nor test: hf:x:extra reads it")
    assert marks(["train", "test", "extra"], "hf:x") == ({"train": "train", "test": "test"}, [extra])
    assert marks(["train", "extra"], "hf:x") == ({"train": None}, [extra])
    message = "expected splits called train, validation or test in hf:x; got a, b: choose one, such as hf:x:a"
    with pytest.raises(InputError, match=message):
        marks(["a", "b"], "hf:x")


def test_a_split_that_is_not_there_is_told_with_those_that_are() -> None:
    choose(["train", "test"], "test", "hf:x")
    with pytest.raises(
        InputError, match=r"hf:x: unknown split 'tset'; did you mean 'test'\? Known: test, train"
    ):
        choose(["train", "test"], "tset", "hf:x")


def found(split: str, number: int, label: str | None, name: str | None) -> Found:
    return Found(split, number, label, name, FileImage(f"{split}{number}"))


def test_ids_are_file_names_where_each_has_one_of_its_own() -> None:
    rows = [
        found("train", 0, "b", "x/1.png"),
        found("train", 1, "a", "x/2.png"),
        found("test", 0, "a", "same.png"),
        found("test", 1, "b", "same.png"),
        found("val", 0, "a", "some.png"),
        found("val", 1, "b", None),
    ]
    dataset = gather("hf:x", rows, {"train": "train", "test": "test", "val": "validation"}, "ab")
    assert [(e.id, e.label, e.split) for e in dataset] == [
        ("train/x/1.png", "b", "train"),
        ("train/x/2.png", "a", "train"),
        ("test/000000", "a", "test"),
        ("test/000001", "b", "test"),
        ("val/000000", "a", "validation"),
        ("val/000001", "b", "validation"),
    ]
    assert [str(e.image) for e in dataset] == ["train0", "train1", "test0", "test1", "val0", "val1"]
    assert (dataset.classes, dataset.name, dataset.skipped) == (("a", "b"), "hf:x", ())


def test_what_is_left_out_is_named() -> None:
    rows = [found("train", 0, "a", None), found("train", 1, None, None), found("train", 2, "c", None)]
    dataset = gather("hf:x", rows, {"train": None}, ["a", "b", "c"], [Problem("extra", "why")])
    assert [e.id for e in dataset] == ["train/000000", "train/000002"]
    assert dataset.classes == ("a", "c")
    assert dataset.skipped == (
        Problem("extra", "why"),
        Problem("train/000001", "no label"),
        Problem("b", "a class without images"),
    )


def test_nothing_to_learn_from_is_told() -> None:
    with pytest.raises(
        InputError, match=r"expected images with labels in hf:x; got 1 images, none with a label"
    ):
        gather("hf:x", [found("test", 0, None, None)], {"test": None}, "ab")
    with pytest.raises(InputError, match=r"expected at least two classes in hf:x; got only 'a'"):
        gather("hf:x", [found("train", 0, "a", None)], {"train": None}, "ab")
