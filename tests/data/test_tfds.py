"""`tfds:`: data sets that TensorFlow Datasets prepared here, as TFRecord and as ArrayRecord."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import topwork
from photos import SHAPES, finished, shape, start_python
from topwork.data.dataset import Problem
from topwork.data.sources import load
from topwork.data.tfds import load_tfds
from topwork.errors import ImageError, InputError, TopworkError
from topwork.recipe import Recipe

COUNTS = {"train": range(24), "validation": range(24, 33), "test": range(33, 45)}
FORMATS = ("tfrecord", "array_record")


def picture(number: int) -> tuple[str, bytes]:
    """A name and an encoded image: PNG and JPEG in turns, as data sets mix them."""
    form = ("PNG", "JPEG")[number // 3 % 2]
    out = io.BytesIO()
    shape(SHAPES[number % 3], number).save(out, form)
    return f"{SHAPES[number % 3]}-{number}.{form.lower()}", out.getvalue()


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """Three classes in three splits, with file names."""

    VERSION = tfds.core.Version("1.0.0")
    FEATURES = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(),
            "image/filename": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=SHAPES),
        }
    )
    SUPERVISED: tuple[str, str] | None = None

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self, features=self.FEATURES, supervised_keys=self.SUPERVISED, description="shapes"
        )

    def _split_generators(self, manager: object) -> dict:
        return {split: self._generate_examples(numbers) for split, numbers in COUNTS.items()}

    def _generate_examples(self, numbers: range) -> Iterator:
        for number in numbers:
            name, data = picture(number)
            yield (
                number,
                {"image": io.BytesIO(data), "image/filename": name, "label": SHAPES[number % 3]},
            )


class OneSplit(TinyShapes):
    """Two images and two labels, of which `supervised_keys` names one each; a single split; no file names."""

    FEATURES = tfds.features.FeaturesDict(
        {
            "mask": tfds.features.Image(),
            "picture": tfds.features.Image(),
            "colour": tfds.features.ClassLabel(num_classes=4),
            "shape": tfds.features.ClassLabel(names=[*SHAPES, "star"]),
        }
    )
    SUPERVISED = ("picture", "shape")

    def _split_generators(self, manager: object) -> dict:
        return {"whole": self._generate_examples(range(6))}

    def _generate_examples(self, numbers: range) -> Iterator:
        for number in numbers:
            data = picture(number)[1]
            label = SHAPES[number % 3] if number else -1
            yield number, {"mask": b"no", "picture": io.BytesIO(data), "colour": 1, "shape": label}


class NoPicture(TinyShapes):
    FEATURES = tfds.features.FeaturesDict(
        {"text": tfds.features.Text(), "label": tfds.features.Scalar(np.int64)}
    )

    def _split_generators(self, manager: object) -> dict:
        return {"train": iter([(0, {"text": "x", "label": 1})])}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder for each format. Read only."""
    root = tmp_path_factory.mktemp("tfds")
    for kind, builders in {
        "tfrecord": (TinyShapes, OneSplit, NoPicture),
        "array_record": (TinyShapes,),
    }.items():
        for builder in builders:
            builder(data_dir=root / kind, file_format=kind).download_and_prepare()
    return root


@pytest.fixture(params=FORMATS)
def data_dir(request: pytest.FixtureRequest, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared / request.param))
    return prepared / request.param


@pytest.fixture
def tfrecord(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared / "tfrecord"))
    return prepared / "tfrecord"


def test_every_byte_comes_back(data_dir: Path) -> None:
    dataset = load("tfds:tiny_shapes")
    assert dataset.classes == tuple(sorted(SHAPES))
    assert (dataset.name, dataset.skipped) == ("tfds:tiny_shapes", ())
    put = {f"{split}/{picture(n)[0]}": (n, split) for split, numbers in COUNTS.items() for n in numbers}
    assert {e.id for e in dataset} == set(put)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda e: e.image.read(), dataset))
    for e, data in zip(dataset, read, strict=True):
        number, split = put[e.id]
        assert data == picture(number)[1]
        assert (e.label, e.split, e.weight) == (SHAPES[number % 3], split, 1.0)
    assert {data[:3] for data in read} == {b"\x89PN", b"\xff\xd8\xff"}


def test_the_order_is_the_data_sets_own(data_dir: Path) -> None:
    builder = tfds.builder("tiny_shapes", data_dir=data_dir)
    if data_dir.name == "tfrecord":
        own = tfds.as_numpy(builder.as_dataset("train", shuffle_files=False))
    else:
        own = builder.as_data_source("train")
    names = [row["image/filename"].decode() for row in own]
    assert [e.id for e in load("tfds:tiny_shapes:train")] == [f"train/{name}" for name in names]


def test_both_formats_hold_the_same(prepared: Path) -> None:
    one, other = (load(f"tfds:{prepared / kind}/tiny_shapes/1.0.0") for kind in FORMATS)
    assert {(e.id, e.label, e.split) for e in one} == {(e.id, e.label, e.split) for e in other}


@pytest.mark.parametrize(
    ("rest", "count"),
    [
        (":test", 12),
        (":1.0.0:test", 12),
        (":train[:25%]", 6),
        (":train[-4:]+test[:3]", 7),
        (":train+validation", 33),
        (":all", 45),
    ],
)
def test_a_split_that_is_given_is_taken_without_a_mark(data_dir: Path, rest: str, count: int) -> None:
    dataset = load(f"tfds:tiny_shapes{rest}")
    assert len(dataset) == count
    assert {e.split for e in dataset} == {None}
    whole = {e.id: e.image.read() for e in load("tfds:tiny_shapes")}
    assert {e.id: e.image.read() for e in dataset}.items() <= whole.items()


def test_a_prepared_folder_and_where_an_image_is(tfrecord: Path) -> None:
    dataset = load(f"tfds:{tfrecord}/tiny_shapes/1.0.0:test")
    shown = f"{tfrecord}/tiny_shapes/1.0.0/tiny_shapes-test.tfrecord-00000-of-00001!000003"
    assert str(dataset[3].image) == shown


def test_supervised_keys_decide_and_a_split_alone_has_no_mark(tfrecord: Path) -> None:
    dataset = load_tfds("tfds:one_split")
    assert len(dataset) == 5
    assert {e.split for e in dataset} == {None}
    assert all(re.fullmatch(r"whole/00000[0-5]", e.id) for e in dataset)
    assert {(e.label, e.image.read()) for e in dataset} == {
        (SHAPES[n % 3], picture(n)[1]) for n in range(1, 6)
    }
    reasons = [p.reason for p in dataset.skipped]
    assert reasons == ["no label", "a class without images"]
    assert dataset.skipped[1] == Problem("star", "a class without images")


def test_training_on_it(tfrecord: Path, recipe: Recipe, tmp_path: Path) -> None:
    run = topwork.train("tfds:tiny_shapes", tmp_path / "run", recipe=recipe)
    assert run.splits == {"train": 24, "validation": 9, "test": 12}
    rows = (run.path / "splits.csv").read_text().splitlines()
    assert {row.partition(",")[0] for row in rows[1:]} == {e.id for e in load("tfds:tiny_shapes")}


def test_reading_needs_neither_tensorflow_nor_the_data_sets_code(prepared: Path) -> None:
    """In a process of its own, where the builder above is not known; nothing on standard output."""
    code = (
        "import sys, topwork\n"
        "for kind in ('tfrecord', 'array_record'):\n"
        "    d = topwork.load(f'tfds:{sys.argv[1]}/{kind}/tiny_shapes/1.0.0')\n"
        "    assert len(d) == 45 and all(e.image.read() for e in d)\n"
        "import os; os.environ['TFDS_DATA_DIR'] = sys.argv[1] + '/tfrecord'\n"
        "assert len(topwork.load('tfds:tiny_shapes')) == 45\n"
        "print({'tensorflow', 'openvino'} & set(sys.modules))"
    )
    status, out, err = finished(start_python(code, prepared))
    assert (status, out) == (0, "set()\n"), err


def test_what_is_missing_is_told(tfrecord: Path, tmp_path: Path) -> None:
    for source, message in {
        "tfds:tiny_shapes:tset": "unknown split 'tset'; did you mean 'test'? Known: test, train, validation",
        "tfds:tiny_shapes:test[x]": "the split 'test[x]' can't be read: ",
        "tfds:mnits": ("unknown dataset tfds:mnits; did you mean tfds:mnist? It is not among the"),
        f"tfds:{tfrecord}/tiny_shapes": (
            f"expected the folder of one version, with dataset_info.json; got {tfrecord}/tiny_shapes: give "
            f"{tfrecord}/tiny_shapes/1.0.0"
        ),
        f"tfds:{tmp_path}": (
            f"expected a folder prepared by TensorFlow Datasets (dataset_info.json) at {tmp_path}; got a folder "
            "without dataset_info.json"
        ),
        f"tfds:{tmp_path}/none": "got no such folder",
        "tfds:no_picture": (
            "expected one Image and one ClassLabel in tfds:no_picture, or supervised_keys with their names; got "
            "text (Text), label (Scalar): save"
        ),
    }.items():
        with pytest.raises(InputError, match=re.escape(message)):
            load(source)


def test_a_data_set_that_cannot_be_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable(TinyShapes):
        def _split_generators(self, manager: object) -> dict:
            raise ConnectionError("no network\nsecond line")

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    folder = tmp_path / "unreachable/1.0.0"
    message = f"tfds:unreachable can't be downloaded and prepared in {folder}: no network. If it is prepared"
    with pytest.raises(TopworkError, match=re.escape(message)):
        load("tfds:unreachable")


def test_a_data_set_is_prepared_at_first_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class FirstUse(TinyShapes):
        pass

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert len(load("tfds:first_use")) == 45
    assert (tmp_path / "first_use/1.0.0/dataset_info.json").is_file()
    assert capsys.readouterr().out == ""  # where --json prints


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_told(prepared: Path, tmp_path: Path, kind: str) -> None:
    import shutil

    folder = Path(shutil.copytree(prepared / kind / "tiny_shapes/1.0.0", tmp_path / "1.0.0"))
    dataset = load(f"tfds:{folder}:test")
    (shard,) = folder.glob("*-test.*")
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"{re.escape(str(shard))} is damaged at record \d+: "):
        load(f"tfds:{folder}:test")
    if kind == "array_record":
        for at in range(0, len(whole), len(whole) // 7):  # it has checksums: no wrong byte is given out
            shard.write_bytes(whole[:at] + bytes(b ^ 255 for b in whole[at : at + 9]) + whole[at + 9 :])
            try:
                read = {e.id: e.image.read() for e in load(f"tfds:{folder}:test")}
            except (InputError, ImageError):
                continue
            assert read == {
                e.id: e.image.read() for e in load(f"tfds:{prepared}/{kind}/tiny_shapes/1.0.0:test")
            }
    if kind == "tfrecord":
        with pytest.raises(ImageError, match=r"the record file ends inside this image"):
            dataset[len(dataset) - 1].image.read()


def test_another_file_format_is_named(tmp_path: Path) -> None:
    TinyShapes(data_dir=tmp_path, file_format="parquet").download_and_prepare()
    message = "is prepared as parquet; expected tfrecord or array_record: prepare it again as one of these"
    with pytest.raises(InputError, match=re.escape(message)):
        load(f"tfds:{tmp_path}/tiny_shapes/1.0.0")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    message = 'the dataset tfds:mnist needs an optional part: pip install "topwork[tfds]"'
    with pytest.raises(topwork.errors.MissingExtra, match=re.escape(message)):
        load("tfds:mnist")


def test_a_picture_is_what_it_seems() -> None:
    """The pictures that the tests above compare by their bytes are pictures."""
    assert {Image.open(io.BytesIO(picture(n)[1])).format for n in range(6)} == {"PNG", "JPEG"}
