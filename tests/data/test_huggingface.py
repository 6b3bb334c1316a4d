"""`hf:`: folders that Hugging Face `datasets` saved or reads, without a network."""

from __future__ import annotations

import io
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import topwork
from photos import SHAPES, finished, shape, start_python
from topwork.data.dataset import Problem
from topwork.data.huggingface import RowImage
from topwork.data.sources import load
from topwork.errors import ImageError, InputError
from topwork.recipe import Recipe

datasets = pytest.importorskip("datasets")

COUNTS = {"train": range(24), "validation": range(24, 33), "test": range(33, 45)}
LABEL = datasets.ClassLabel(names=list(SHAPES))


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of the hub, and what is made of the folders is not kept in the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True, raising=False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")


def picture(number: int) -> tuple[str, bytes]:
    form = ("PNG", "JPEG")[number // 3 % 2]
    out = io.BytesIO()
    shape(SHAPES[number % 3], number).save(out, form)
    return f"{SHAPES[number % 3]}-{number}.{form.lower()}", out.getvalue()


def table(
    numbers: range, label: Any = LABEL, *, named: bool = True, column: str = "label"
) -> datasets.Dataset:
    pictures = [picture(n) for n in numbers]
    rows = {
        "image": [{"bytes": data, "path": name if named else None} for name, data in pictures],
        column: [SHAPES[n % 3] for n in numbers],
    }
    features = datasets.Features({"image": datasets.Image(), column: label})
    return datasets.Dataset.from_dict(rows, features=features)


def write(root: Path, kind: str) -> Path:
    """The three splits in a folder: saved to disk, as Parquet, or as images in class folders."""
    for split, numbers in COUNTS.items():
        if kind == "parquet":
            root.mkdir(exist_ok=True)
            table(numbers).to_parquet(root / f"{split}.parquet")
        elif kind == "images":
            for n in numbers:
                name, data = picture(n)
                path = root / split / SHAPES[n % 3] / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
    if kind == "disk":
        datasets.DatasetDict({split: table(n) for split, n in COUNTS.items()}).save_to_disk(root)
    return root


@pytest.mark.parametrize("kind", ["disk", "parquet", "images"])
def test_every_byte_comes_back(kind: str, tmp_path: Path) -> None:
    source = f"hf:{write(tmp_path / kind, kind)}"
    dataset = load(source)
    assert dataset.classes == tuple(sorted(SHAPES))
    assert (dataset.name, dataset.skipped, len(dataset)) == (source, (), 45)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda e: e.image.read(), dataset))
    put = {f"{split}/{picture(n)[0]}": (n, split) for split, numbers in COUNTS.items() for n in numbers}
    for e, data in zip(dataset, read, strict=True):
        split, *folders, name = e.id.split("/")
        number, given = put[f"{split}/{name}"]
        assert data == picture(number)[1]
        assert (e.label, e.split, split) == (SHAPES[number % 3], given, given)
        assert folders == ([e.label] if kind == "images" else [])
    assert {data[:3] for data in read} == {b"\x89PN", b"\xff\xd8\xff"}


def test_a_split_that_is_given_is_taken_without_a_mark(tmp_path: Path) -> None:
    root = write(tmp_path / "x", "disk")
    dataset = load(f"hf:{root}:test")
    assert {e.split for e in dataset} == {None}
    assert [e.id for e in dataset] == [f"test/{picture(n)[0]}" for n in COUNTS["test"]]
    assert str(dataset[2].image) == f"hf:{root}:test!000002"
    with pytest.raises(
        InputError, match=r"unknown split 'tset'; did you mean 'test'\? Known: test, train, valid"
    ):
        load(f"hf:{root}:tset")


def test_a_table_alone_has_no_marks(tmp_path: Path) -> None:
    table(range(9), named=False).save_to_disk(tmp_path / "x")
    dataset = load(f"hf:{tmp_path}/x")
    assert [(e.id, e.label, e.split) for e in dataset] == [
        (f"train/{n:06}", SHAPES[n % 3], None) for n in range(9)
    ]


def test_rows_that_were_shuffled_before_they_were_saved(tmp_path: Path) -> None:
    """Such a table is saved as it lies, with a list of the rows' order beside it."""
    shuffled = table(range(20)).shuffle(seed=3).select(range(12))
    names = [row["path"] for row in shuffled.cast_column("image", datasets.Image(decode=False))["image"]]
    shuffled.save_to_disk(tmp_path / "x")
    dataset = load(f"hf:{tmp_path}/x")
    assert [e.id for e in dataset] == [f"train/{name}" for name in names]
    by_name = dict(picture(n) for n in range(20))
    assert [e.image.read() for e in dataset] == [by_name[name] for name in names]


@pytest.mark.parametrize("column", ["label", "labels"])
def test_text_is_a_label_too(column: str, tmp_path: Path) -> None:
    rows = table(range(6), datasets.Value("string"), column=column)
    rows.save_to_disk(tmp_path / "x")
    dataset = load(f"hf:{tmp_path}/x")
    assert dataset.labels() == [SHAPES[n % 3] for n in range(6)]


def test_what_has_no_label_or_no_image_is_left_out(tmp_path: Path) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    )
    images = [{"bytes": picture(n)[1], "path": None} for n in range(4)]
    rows = {"image": [*images, None], "label": [0, -1, None, 1, 0]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "x")
    dataset = load(f"hf:{tmp_path}/x")
    assert [(e.id, e.label) for e in dataset] == [
        ("train/000000", "a"),
        ("train/000003", "b"),
        ("train/000004", "a"),
    ]
    assert dataset.skipped == (
        Problem("train/000001", "no label"),
        Problem("train/000002", "no label"),
        Problem("c", "a class without images"),
    )
    with pytest.raises(ImageError, match=r"the row has no image"):
        dataset[2].image.read()


def test_a_file_that_went_away_is_told_when_it_is_read(tmp_path: Path) -> None:
    root = write(tmp_path / "x", "images")
    dataset = load(f"hf:{root}")
    gone = next((root / "train").rglob("*.png"))
    gone.unlink()
    (e,) = (e for e in dataset if e.id.endswith(gone.name))
    with pytest.raises(FileNotFoundError):
        e.image.read()


@pytest.mark.parametrize(
    ("features", "shown"),
    [
        ({"image": datasets.Image(), "y": datasets.Value("string")}, "image (Image), y (string)"),
        ({"text": datasets.Value("string"), "label": LABEL}, "text (string), label (ClassLabel)"),
        (
            {"image": datasets.Image(), "depth": datasets.Image(), "label": LABEL},
            "image (Image), depth (Image), label (ClassLabel)",
        ),
        (
            {"image": datasets.Image(), "fine": LABEL, "coarse": LABEL},
            "image (Image), fine (ClassLabel), coarse (ClassLabel)",
        ),
    ],
)
def test_features_that_leave_a_doubt_are_listed(features: dict, shown: str, tmp_path: Path) -> None:
    empty = {name: [None] for name in features}
    datasets.Dataset.from_dict(empty, features=datasets.Features(features)).save_to_disk(tmp_path / "x")
    message = (
        f"expected one Image and one ClassLabel in hf:{tmp_path}/x, or text in a column called label; got {shown}: "
        "rename or remove columns"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        load(f"hf:{tmp_path}/x")


def test_of_several_class_labels_the_one_called_label(tmp_path: Path) -> None:
    rows = table(range(6)).add_column("coarse", [0] * 6, feature=datasets.ClassLabel(names=["all"]))
    rows.save_to_disk(tmp_path / "x")
    assert load(f"hf:{tmp_path}/x").labels() == [SHAPES[n % 3] for n in range(6)]


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=re.escape(f"expected a folder at {tmp_path}/no; got no such folder")
    ):
        load(f"hf:{tmp_path}/no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=re.escape(f"hf:{tmp_path}/empty can't be opened: ")) as told:
        load(f"hf:{tmp_path}/empty")
    assert "\n" not in str(told.value)
    with pytest.raises(
        InputError, match=r"hf:owner/no-such-name:train can't be opened: .*owner/no-such-name"
    ):
        load("hf:owner/no-such-name:train")


def test_training_on_it(tmp_path: Path, recipe: Recipe) -> None:
    source = f"hf:{write(tmp_path / 'x', 'parquet')}"
    run = topwork.train(source, tmp_path / "run", recipe=recipe)
    assert run.splits == {"train": 24, "validation": 9, "test": 12}
    rows = (run.path / "splits.csv").read_text().splitlines()
    assert {row.partition(",")[0] for row in rows[1:]} == {e.id for e in load(source)}


POOL = """
import sys, topwork
import pyarrow
dataset = topwork.load(sys.argv[1])
opened = pyarrow.default_memory_pool().max_memory()
size = len(dataset[7].image.read())
print(len(dataset), size, opened, {'tensorflow', 'torch', 'openvino'} & set(sys.modules))
"""


def test_memory_stays_flat(tmp_path: Path) -> None:
    """Forty images of 1 MB: the table is mapped, and opening it allocates less than one of them."""
    large = [np.random.default_rng(n).bytes(10**6) for n in range(40)]
    rows = {"image": [{"bytes": data, "path": None} for data in large], "label": ["a", "b"] * 20}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "x")
    status, out, err = finished(start_python(POOL, f"hf:{tmp_path}/x"))
    assert status == 0, err
    count, size, opened, frameworks = out.split(maxsplit=3)
    assert (count, size, frameworks) == ("40", "1000000", "set()\n")
    assert int(opened) < 10**6


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = 'the dataset hf:owner/name needs an optional part: pip install "topwork[hf]"'
    with pytest.raises(topwork.errors.MissingExtra, match=re.escape(message)):
        load("hf:owner/name")


def test_a_row_says_where_it_is() -> None:
    assert str(RowImage([{"bytes": b"x", "path": None}], 0, "hf:x:train!000000")) == "hf:x:train!000000"
