"""`load` on folders, its dispatch and its refusals; `load_images`."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from PIL import Image

from topwork.data.dataset import Dataset, FileImage, Problem
from topwork.data.sources import load, load_images
from topwork.data.split import splits_of
from topwork.errors import InputError


def draw(path: Path, *, grey: int = 0) -> Path:
    """Write a tiny real image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".jpg": "JPEG", ".jpe": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF"}.get(path.suffix.lower())
    Image.new("RGB", (3, 2), (grey, grey, grey)).save(path, kind)
    return path


def tree(root: Path, *names: str) -> Path:
    """Write images, empty folders (ending in "/") and other files, by their endings."""
    for name in names:
        if name.endswith("/"):
            (root / name).mkdir(parents=True)
        elif name.lower().endswith(
            (".jpg", ".png", ".jpe", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp")
        ):
            draw(root / name)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("text")
    return root


def rows(dataset: Dataset) -> list[tuple[str, str | None]]:
    return [(e.id, e.label) for e in dataset]


def test_one_folder_a_class(tmp_path):
    d = load(tree(tmp_path, "dog/2.jpg", "dog/1.png", "cat/b/c/3.JPG", "cat/a.jpg", "cat-like/4.jpg"))
    assert rows(d) == [
        ("cat/a.jpg", "cat"),
        ("cat/b/c/3.JPG", "cat"),
        ("cat-like/4.jpg", "cat-like"),
        ("dog/1.png", "dog"),
        ("dog/2.jpg", "dog"),
    ]
    assert d.classes == ("cat", "cat-like", "dog")
    assert d.name == str(tmp_path)
    assert d.skipped == ()
    assert {(e.group, e.weight, e.split) for e in d} == {(None, 1.0, None)}
    with Image.open(str(d[0].image)) as image:
        assert image.size == (3, 2)
    assert d[0].image.read() == (tmp_path / "cat/a.jpg").read_bytes()


def test_every_ending_in_any_case(tmp_path):
    endings = ["jpg", "jpeg", "jpe", "png", "webp", "bmp", "gif", "tif", "TIFF"]
    d = load(tree(tmp_path, *(f"a/{i}.{ending}" for i, ending in enumerate(endings)), "b/1.jpg"))
    assert len(d) == len(endings) + 1


def test_litter_is_ignored_and_other_files_are_listed(tmp_path):
    tree(tmp_path, "a/1.jpg", "b/1.jpg", "c/", "README", "stray.jpg", "a/notes.txt", "a/deep/more.CSV")
    tree(tmp_path, ".git/x.jpg", "__MACOSX/a/1.jpg", "a/.DS_Store", "a/Thumbs.db", "b/._1.jpg", "desktop.ini")
    d = load(tmp_path)
    assert rows(d) == [("a/1.jpg", "a"), ("b/1.jpg", "b")]
    assert d.skipped == (
        Problem("README", "not an image file (no extension)"),
        Problem("a/deep/more.CSV", "not an image file (.csv)"),
        Problem("a/notes.txt", "not an image file (.txt)"),
        Problem("c/", "a class folder without images"),
        Problem("stray.jpg", "not in a class folder"),
    )


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "dev", "Val"])
def test_ready_splits(tmp_path, validation):
    d = load(
        tree(tmp_path, "train/a/1.jpg", "train/b/1.jpg", f"{validation}/a/2.jpg", "test/b/x/3.jpg", "test/a/")
    )
    assert {(e.id, e.label, e.split) for e in d} == {
        ("train/a/1.jpg", "a", "train"),
        (f"{validation}/a/2.jpg", "a", "validation"),
        ("test/b/x/3.jpg", "b", "test"),
        ("train/b/1.jpg", "b", "train"),
    }
    assert d.labels() == ["a", "a", "b", "b"]
    assert d.classes == ("a", "b")
    assert d.skipped == (Problem("test/a/", "a class folder without images"),)
    parts = splits_of(d)
    assert [len(parts.train), len(parts.validation), len(parts.test)] == [2, 1, 1]


def test_splits_are_recognised_only_as_a_whole(tmp_path):
    d = load(tree(tmp_path, "train/1.jpg", "bus/1.jpg"))
    assert d.classes == ("bus", "train")
    assert {e.split for e in d} == {None}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.jpg", "2.jpg"], "expected one folder per class, such as ROOT/cat/1.jpg and ROOT/dog/2.jpg; got 2 "
         "images and no sub-folders: put them into folders, or list them in a manifest (path,label)"),
        (["1.jpg", "labels.csv"], "no sub-folders: if labels.csv lists the labels, give that file"),
        (["a/1.txt", "a/2.txt", "b/3"], "got no images (2 .txt, 1 no extension)"),
        ([], "ROOT/dog/2.jpg; got no images"),
        (["train/1.jpg", "test/1.jpg"], "got 2 images and none in a class folder"),
        (["a/1.jpg", "b/"], "two classes in ROOT; got only 'a': add a folder for each other class"),
        (["a/b/1.jpg", "a/c/1.jpg"], "got only 'a': if the folders in a/ are the classes, give that folder"),
        (["train/a/1.jpg", "test/a/1.jpg"], "expected at least two classes in ROOT; got only 'a'"),
        (["train/a/1.jpg", "train/b/1.jpg", "test/c/1.jpg"], "class 'c' of ROOT is in test but not in train, "
         "such as test/c/1.jpg: add images of it to train, or remove it"),
    ],
)  # fmt: skip
def test_other_layouts_are_explained_in_one_line(tmp_path, names, message):
    tree(tmp_path, *names)
    with pytest.raises(InputError, match=re.escape(message.replace("ROOT", str(tmp_path)))) as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_are_followed_but_not_in_circles(tmp_path):
    root = tree(tmp_path / "root", "a/1.jpg", "b/1.jpg")
    tree(tmp_path / "elsewhere", "c1.jpg", "deep/c2.jpg")
    (root / "a/loop").symlink_to(root)
    (root / "a/up").symlink_to(tmp_path)
    (root / "b/again").symlink_to(root / "a")
    (root / "b/file.jpg").symlink_to(root / "a/1.jpg")
    (root / "b/broken.jpg").symlink_to(root / "none.jpg")
    (root / "b/self").symlink_to(root / "b/self")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/loop").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(root / "b/pipe.jpg")
    d = load(root)
    assert [e.id for e in d] == ["a/1.jpg", "b/1.jpg", "b/file.jpg", "c/c1.jpg", "c/deep/c2.jpg"]
    skipped = {p.id: p.reason for p in d.skipped}
    assert skipped.keys() == {
        "a/loop/", "a/up/", "b/again/", "b/broken.jpg", "b/self", "b/pipe.jpg", "c/loop/",
    }  # fmt: skip
    assert skipped["a/loop/"] == "a link to a folder that is read already"
    assert skipped["b/self"].startswith("can't be read: ")
    assert skipped["b/broken.jpg"] == "a broken link"
    assert skipped["b/pipe.jpg"] == "not a regular file"


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_that_are_not_utf8_survive(tmp_path):
    tree(tmp_path, "a/1.jpg", "b/1.jpg")
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    try:
        os.mkdir(folder)  # noqa: PTH102 (bytes)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    Path(os.fsdecode(folder + b"/\xff.jpg")).write_bytes(b"pixels")
    d = load(tmp_path)
    last = d[-1]
    assert (last.id, last.label) == (r"caf\xe9/\xff.jpg", r"caf\xe9")
    assert last.image.read() == b"pixels"
    str(last.image).encode("utf-8")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("ROOT/photso", "no such file or folder: ROOT/photso; did you mean ROOT/photos?"),
        ("ROOT/none/deeper/yet", "no such file or folder: ROOT/none"),
        (
            "ROOT/one.jpg",
            "expected a folder, or a file that ends in one of .csv, .jsonl, .parquet, .tsv, .zip, .tar",
        ),
        ("tfds:", "expected tfds:NAME or tfds:NAME:SPLIT; got 'tfds:'"),
        ("hf:owner/cats:", "expected hf:NAME or hf:NAME:SPLIT; got 'hf:owner/cats:'"),
        (
            "https://x.org/a.zip",
            "expected a path on this machine; got 'https://x.org/a.zip': download it first",
        ),
        ("", "expected the path of a folder, a manifest or an archive; got ''"),
    ],
)
def test_sources_that_are_none_are_named(tmp_path, source, message):
    tree(tmp_path, "photos/", "one.jpg")
    with pytest.raises(InputError, match=re.escape(message.replace("ROOT", str(tmp_path)))) as raised:
        load(source.replace("ROOT", str(tmp_path)))
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(os.name == "nt", reason="the limit is another there")
def test_what_the_system_refuses_is_named(tmp_path):
    with pytest.raises(InputError, match=r"x+ can't be read: File name too long"):
        load(tmp_path / ("x" * 300))


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may read everything")
def test_folders_that_may_not_be_opened_are_named(tmp_path):
    tree(tmp_path, "a/1.jpg", "b/1.jpg", "b/shut/2.jpg")
    (tmp_path / "b/shut").chmod(0)
    try:
        assert load(tmp_path).skipped == (Problem("b/shut/", "the folder can't be read: Permission denied"),)
        with pytest.raises(InputError, match="shut can't be read: Permission denied"):
            load(tmp_path / "b/shut")
        (problem,) = load_images(tmp_path / "b/shut").skipped
        assert problem.reason == "the folder can't be read: Permission denied"
    finally:
        (tmp_path / "b/shut").chmod(0o700)


def test_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    tree(tmp_path / "pets", "a/1.jpg", "b/1.jpg")
    assert len(load("~/pets")) == 2
    assert len(load_images("~/pets")) == 2


def test_images_come_in_the_order_given(tmp_path, monkeypatch):
    tree(
        tmp_path,
        "z.jpg",
        "odd.xyz",
        "in/2.jpg",
        "in/deep/1.png",
        "in/note.txt",
        "g/b.jpg",
        "g/a.jpg",
        "empty/",
    )
    monkeypatch.chdir(tmp_path)
    d = load_images(["z.jpg", Path("in"), "g/*", "none.jpg", "n*.png", "odd.xyz", "z.jpg", "empty"])
    assert [e.id for e in d] == ["z.jpg", "in/2.jpg", "in/deep/1.png", "g/a.jpg", "g/b.jpg", "odd.xyz"]
    assert d.skipped == (
        Problem("in/note.txt", "not an image file (.txt)"),
        Problem("none.jpg", "no such file"),
        Problem("n*.png", "no file matches this pattern"),
        Problem("empty", "no images in this folder"),
    )
    assert d.classes == ()
    assert d.name == "8 paths"
    assert set(d.labels()) == {None}
    assert d.targets().tolist() == [-1] * 6
    assert d[0].image == FileImage("z.jpg")


def test_one_path_and_deep_globs(tmp_path, monkeypatch):
    tree(tmp_path, "in/2.jpg", "in/deep/1.png", "[1].jpg")
    monkeypatch.chdir(tmp_path)
    assert [e.id for e in load_images("[1].jpg")] == ["[1].jpg"]
    assert [e.id for e in load_images("**/*")] == ["[1].jpg", "in/2.jpg", "in/deep/1.png"]
    assert [e.id for e in load_images(str(tmp_path / "in"))] == [
        f"{tmp_path.as_posix()}/in/2.jpg",
        f"{tmp_path.as_posix()}/in/deep/1.png",
    ]
    assert len(load_images([])) == 0
