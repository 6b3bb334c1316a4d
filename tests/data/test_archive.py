"""Zips and tars: read in place, by several threads, and nothing that could do harm."""

from __future__ import annotations

import bz2
import io
import re
import stat
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from topwork.data import archive as archive_module
from topwork.data.archive import ZipImage, list_archive
from topwork.data.dataset import Dataset, Problem
from topwork.data.sources import load
from topwork.data.split import splits_of
from topwork.errors import ImageError, InputError, TopworkError


def png(grey: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (5, 4), grey).save(out, "PNG")
    return out.getvalue()


CLASSES = {"cat/1.png": png(1), "cat/deep/2.png": png(2), "dog/3.png": png(3)}
SPLITS = {"train/a/1.png": png(1), "train/b/2.png": png(2), "test/a/3.png": png(3)}
LISTED = {
    "labels.csv": b"path,label\nimg/1.png,x\nimg/2.png,y\nimg/9.png,y\n",
    "img/1.png": png(1),
    "img/2.png": png(2),
}
KINDS = ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pack(path: Path, files: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", method) as out:
            for name, data in files.items():
                out.writestr(name, data)
        return path
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def contents(d: Dataset) -> dict[str, bytes]:
    return {e.id: e.image.read() for e in d}


@pytest.mark.parametrize("kind", KINDS)
def test_class_folders(tmp_path, kind):
    d = load(pack(tmp_path / f"pets.{kind}", CLASSES))
    assert contents(d) == CLASSES
    assert d.labels() == ["cat", "cat", "dog"]
    assert d.name == str(tmp_path / f"pets.{kind}")
    assert str(d[0].image).endswith("!cat/1.png")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_one_wrapping_folder_is_looked_through(tmp_path, kind):
    wrapped = {f"pets-main/{name}": data for name, data in CLASSES.items()}
    litter = {"__MACOSX/pets-main/cat/._1.png": b"", "pets-main/.DS_Store": b"", "LICENCE.txt": b""}
    d = load(pack(tmp_path / f"pets.{kind}", wrapped | litter))
    assert contents(d) == CLASSES
    assert d.skipped == (Problem("LICENCE.txt", "not an image file (.txt)"),)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_ready_splits(tmp_path, kind):
    parts = splits_of(load(pack(tmp_path / f"d.{kind}", SPLITS)))
    assert [e.id for e in parts.test] == ["test/a/3.png"]


@pytest.mark.parametrize("top", ["", "wrapped/"])
@pytest.mark.parametrize("kind", ["zip", "tar.xz"])
def test_a_manifest_within(tmp_path, kind, top):
    path = pack(tmp_path / f"d.{kind}", {top + name: data for name, data in LISTED.items()})
    d = load(path)
    assert contents(d) == {"img/1.png": png(1), "img/2.png": png(2)}
    assert d.labels() == ["x", "y"]
    assert d.name == str(path)
    assert d.skipped == (Problem("img/9.png", f"no such file ({path}!labels.csv, line 4)"),)


def test_which_table_is_the_manifest(tmp_path):
    table = LISTED["labels.csv"]
    images = {name: data for name, data in LISTED.items() if name != "labels.csv"}
    assert len(load(pack(tmp_path / "only.zip", {**images, "photos.csv": table}))) == 2
    both = {**images, "a.csv": b"x,y\n", "manifest.tsv": table.replace(b",", b"\t")}
    assert len(load(pack(tmp_path / "named.zip", both))) == 2
    other = load(pack(tmp_path / "other.zip", {**CLASSES, "sizes.csv": b"width,height\n"}))
    assert contents(other) == CLASSES
    assert other.skipped == (Problem("sizes.csv", "not an image file (.csv)"),)
    with pytest.raises(
        InputError, match=r"expected one manifest in .*; got labels.csv, manifest.csv: keep one"
    ):
        load(pack(tmp_path / "two.zip", {**LISTED, "manifest.csv": table}))
    with pytest.raises(InputError, match=r"!labels.csv: expected the columns path and label; got 'a'"):
        load(pack(tmp_path / "bad.zip", {**CLASSES, "labels.csv": b"a\n1\n"}))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_zip_methods(tmp_path, method):
    files = {**CLASSES, "dog/empty.png": b"", "dog/big.png": bytes(range(256)) * 4096}
    assert contents(load(pack(tmp_path / "d.zip", files, method=method))) == files


def test_a_zip_behind_other_bytes_and_a_streamed_one(tmp_path):
    plain = pack(tmp_path / "d.zip", CLASSES).read_bytes()
    (tmp_path / "d.zip").write_bytes(b"#!/bin/sh\n" + plain)
    assert contents(load(tmp_path / "d.zip")) == CLASSES

    class Pipe(io.BytesIO):  # a zip that was written without going back has its sizes after the data
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation

        def tell(self) -> int:
            raise io.UnsupportedOperation

    with Pipe() as pipe:
        with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as out:
            for name, data in CLASSES.items():
                out.writestr(name, data)
        (tmp_path / "piped.zip").write_bytes(pipe.getvalue())
    assert contents(load(tmp_path / "piped.zip")) == CLASSES


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_many_threads_read_at_once(tmp_path, kind):
    files = {f"{'ab'[i % 2]}/{i}.png": png(i) for i in range(64)}
    d = load(pack(tmp_path / f"d.{kind}", files))
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda e: (e.id, e.image.read()), list(d) * 10))
    assert read == [(e.id, files[e.id]) for e in d] * 10


def test_a_compressed_tar_is_unpacked_once(tmp_path, cache):
    path = pack(tmp_path / "d.tar.gz", CLASSES)
    d = load(path)
    (copy,) = (cache / "archives").iterdir()
    assert re.fullmatch(r"[0-9a-f]{64}\.tar", copy.name)
    made = copy.stat().st_mtime_ns
    assert load(path) == d
    assert [p.stat().st_mtime_ns for p in (cache / "archives").iterdir()] == [made]


def test_compression_is_known_by_the_bytes(tmp_path):
    plain = pack(tmp_path / "d.tar", CLASSES)
    plain.write_bytes(bz2.compress(plain.read_bytes()))
    assert contents(load(plain)) == CLASSES


def test_a_failed_unpacking_leaves_nothing(tmp_path, cache, monkeypatch):
    path = pack(tmp_path / "d.tar.gz", CLASSES)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"d.tar.gz is damaged and can't be unpacked: "):
        load(path)
    assert list((cache / "archives").iterdir()) == []
    monkeypatch.setenv("TOPWORK_CACHE", str(path))  # a file, where a folder must be
    with pytest.raises(TopworkError, match=r"can't unpack .*e.tar.xz to .*archives: "):
        load(pack(tmp_path / "e.tar.xz", CLASSES))


def test_harmful_tar_members_are_not_read(tmp_path):
    path = pack(tmp_path / "d.tar", CLASSES)
    with tarfile.open(path, "a") as tar:
        for name, kind in [
            ("cat/link.png", tarfile.SYMTYPE),
            ("cat/hard.png", tarfile.LNKTYPE),
            ("cat/pipe.png", tarfile.FIFOTYPE),
            ("cat/device.png", tarfile.BLKTYPE),
            ("/etc/cat.png", tarfile.REGTYPE),
            ("cat/../../up.png", tarfile.REGTYPE),
            ("C:/cat.png", tarfile.REGTYPE),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    d = load(path)
    assert contents(d) == CLASSES
    assert {p.id: p.reason for p in d.skipped} == {
        "cat/link.png": "a link in the archive",
        "cat/hard.png": "a link in the archive",
        "cat/pipe.png": "not a regular file",
        "cat/device.png": "not a regular file",
        "/etc/cat.png": "its name in the archive is an absolute path",
        "cat/../../up.png": 'its name in the archive has ".."',
        "C:/cat.png": "its name in the archive is an absolute path",
    }


def test_harmful_zip_members_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "LARGEST_MEMBER_BYTES", 2**20)
    path = pack(
        tmp_path / "d.zip", {**CLASSES, "../up.png": b"", "/root.png": b"", "dog\\..\\..\\win.png": b""}
    )
    with zipfile.ZipFile(path, "a") as out:
        link = zipfile.ZipInfo("cat/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        out.writestr(link, "/etc/passwd")
        out.writestr("cat/huge.png", bytes(2**20 + 1), zipfile.ZIP_DEFLATED)
        out.writestr("cat/lzma.png", b"x", zipfile.ZIP_LZMA)
    d = load(path)
    assert contents(d) == CLASSES
    assert {p.id: p.reason for p in d.skipped} == {
        "../up.png": 'its name in the archive has ".."',
        "/root.png": "its name in the archive is an absolute path",
        "dog/../../win.png": 'its name in the archive has ".."',
        "cat/link.png": "a link in the archive",
        "cat/huge.png": "larger than 1 MiB (1 MiB)",
        "cat/lzma.png": "compressed with zip method 14; expected stored, deflate or bzip2",
    }


def test_a_name_twice_and_names_made_on_windows(tmp_path):
    path = pack(tmp_path / "d.tar", CLASSES)
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("./cat/1.png")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"new"))
    d = load(path)
    assert contents(d) == CLASSES | {"cat/1.png": b"new"}
    assert d.skipped == (Problem("cat/1.png", "in the archive twice: the last one is used"),)
    windows = {name.replace("/", "\\"): data for name, data in CLASSES.items()}
    assert contents(load(pack(tmp_path / "w.zip", windows))) == CLASSES


def test_a_locked_zip_is_refused(tmp_path):
    path = pack(tmp_path / "d.zip", {"cat/1.png": b"1"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1  # the directory's flag of encryption
    path.write_bytes(data)
    with pytest.raises(
        InputError, match=r"d.zip is password-protected \(cat/1.png\): unpack it and give the"
    ):
        load(path)


@pytest.mark.parametrize("name", ["d.zip", "d.tar", "d.tar.gz"])
def test_what_is_no_archive_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"not an archive at all")
    with pytest.raises(InputError, match=f"{name} is not a readable (zip|tar): "):
        load(tmp_path / name)


def test_damage_is_found_on_reading(tmp_path):
    path = pack(tmp_path / "d.zip", CLASSES)
    first, *_, last = load(path)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[first.image.offset + 45] ^= 255
    path.write_bytes(damaged)
    with pytest.raises(ImageError, match="damaged in the archive: "):
        first.image.read()
    path.write_bytes(whole[: last.image.offset + 50])
    with pytest.raises(ImageError, match="damaged in the archive: the file ends inside this image"):
        last.image.read()
    path.write_bytes(b"x" * len(whole))
    with pytest.raises(
        ImageError, match="damaged in the archive: there is no file at the offset in its directory"
    ):
        first.image.read()
    stored = pack(tmp_path / "s.zip", CLASSES, method=zipfile.ZIP_STORED)
    image = load(stored)[0].image
    data = bytearray(stored.read_bytes())
    data[data.index(b"IDAT")] ^= 255
    stored.write_bytes(data)
    with pytest.raises(ImageError, match="damaged in the archive: its checksum differs"):
        image.read()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        first.image.read()


def test_a_bomb_gives_no_more_than_it_declared(tmp_path):
    path = pack(tmp_path / "d.zip", {"a/1.png": bytes(10_000_000)})
    image = list_archive(str(path)).files["a/1.png"]
    assert isinstance(image, ZipImage)
    small = ZipImage(
        image.archive, image.name, image.offset, image.packed_bytes, 100, image.method, image.crc
    )
    with pytest.raises(ImageError, match="its checksum differs"):
        small.read()


def test_a_lone_class_folder_is_said_so(tmp_path):
    with pytest.raises(InputError, match=r"expected at least two classes in .*; got only 'cat'"):
        load(pack(tmp_path / "d.zip", {"cat/1.png": png(1), "cat/2.png": png(2)}))
