"""The images of a run, found again: by name and bytes, by bytes where they were renamed; nothing else is taken."""

from __future__ import annotations

import csv
import hashlib
import shutil
from pathlib import Path

import pytest

from photos import Listener, write_shapes
from topwork import load
from topwork.backbones.backbone import Backbone
from topwork.errors import InputError
from topwork.exports.photos import photos_of
from topwork.features.extract import Features, extract, open_store
from topwork.jobs.diff import diff
from topwork.jobs.finetune import finetune
from topwork.jobs.train import train
from topwork.progress import Silent
from topwork.recipe import Recipe
from topwork.runs.folder import SPLITS
from topwork.runs.images import as_before
from topwork.runs.record import RunImage, images_of, write_images
from topwork.runs.report.write import write_report

CLASSES = ("circle", "square", "stripes")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes") / "photos", 12)


@pytest.fixture(scope="module")
def run(photos: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(photos, tmp_path_factory.mktemp("runs") / "run", recipe=recipe).path


def features_of(photos: Path, backbone: Backbone) -> Features:
    with open_store(backbone.facts) as store:
        return extract(load(photos), backbone, store=store)


def test_the_same_photos(photos: Path, run: Path, backbone: Backbone) -> None:
    features, splits = as_before(features_of(photos, backbone), run, CLASSES, Silent())
    known = {image.id: image for image in images_of(run)}
    assert len(known) == len(features.dataset) == 36
    for name in ("train", "test"):
        part = getattr(splits, name)
        assert {e.id for e in part} == {i for i, image in known.items() if image.part == name}
        assert all(e.label == known[e.id].label and e.split is None for e in part)
    assert [known[e.id].key for e in features.dataset] == list(features.keys)


def test_a_class_and_a_copy_that_are_new_are_left_out(
    photos: Path, run: Path, backbone: Backbone, tmp_path: Path
) -> None:
    more = tmp_path / "more"
    shutil.copytree(photos, more)
    shutil.copytree(more / "circle", more / "diamond")
    first = min((more / "circle").iterdir())
    shutil.copy(first, more / "square" / "zz.png")
    told = Listener()
    features, splits = as_before(features_of(more, backbone), run, CLASSES, told)
    assert features.dataset.classes == splits.train.classes == CLASSES
    assert {e.id for e in features.dataset} == {image.id for image in images_of(run)}
    assert told.said == ["13 photos that are not in the run are left out; train again to use them"]


def test_photos_that_were_renamed_are_known_by_their_bytes(
    photos: Path, run: Path, backbone: Backbone, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(photos, moved)
    for path in sorted(moved.rglob("*.png")):
        path.rename(path.with_name(f"new-{path.name}"))
    _, splits = as_before(features_of(moved, backbone), run, CLASSES, Silent())
    tested = {image.key for image in images_of(run) if image.part == "test"}
    assert {hashlib.sha256(e.image.read()).digest() for e in splits.test} == tested


def test_a_label_of_fixes_that_no_folder_has(
    photos: Path, run: Path, backbone: Backbone, tmp_path: Path
) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    with (other / SPLITS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[:3]:
        row["label"] = "junk"
    with (other / SPLITS).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    features, _ = as_before(
        features_of(photos, backbone), other, (*CLASSES[:1], "junk", *CLASSES[1:]), Silent()
    )
    assert sum(label == "junk" for label in features.dataset.labels()) == 3


def test_photos_that_are_gone(photos: Path, run: Path, backbone: Backbone, tmp_path: Path) -> None:
    fewer = tmp_path / "fewer"
    shutil.copytree(photos, fewer)
    min((fewer / "square").iterdir()).unlink()
    with pytest.raises(InputError, match=r"; 1 of 36 are missing or have changed: give the same photos, or"):
        as_before(features_of(fewer, backbone), run, CLASSES, Silent())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = (
        RunImage("a/1.jpg", "train", "a", "b", 0.25, bytes(32), None),
        RunImage('b/ü,"2".jpg', "test", "", "a", 1.0, bytes(range(32)), "g"),
    )
    write_images(tmp_path, written)
    assert images_of(tmp_path) == written


@pytest.mark.parametrize("name", ["report.json", "splits.csv"])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_damaged_record_is_one_line_wherever_it_is_read(
    run: Path, tmp_path: Path, name: str, how: str
) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    if how == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_text("[", encoding="utf-8")
    readers = {
        "report.json": (
            lambda: write_report(folder),
            lambda: photos_of(folder, None),
            lambda: finetune(folder),
        ),
        "splits.csv": (
            lambda: write_report(folder),
            lambda: photos_of(folder, None),
            lambda: diff(folder, run),
        ),
    }[name]
    for read in readers:
        with pytest.raises(
            InputError, match=r"expected a (file|folder) that|expected a run's list of images"
        ):
            read()
