"""What is kept of modules: listed, held to its record, removed; and one process at a time."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from https_server import contents, module_files
from topwork.backbones.hub.modules import (
    CONTENT,
    RECORD,
    address,
    key_of,
    list_modules,
    lock_of,
    modules_folder,
    remove_module,
    verify,
    write_record,
)
from topwork.backbones.hub.record import DamagedModule
from topwork.errors import InputError, TopworkError
from topwork.storage.folders import check_room, discard, held, storage_error

URL = "https://tfhub.dev/google/imagenet/inception_v3/feature_vector/5"
FILES = module_files(1000)


def keep(root: Path, url: str = URL, files: dict[str, bytes] = FILES) -> Path:
    """An entry as a fetch leaves it."""
    entry = modules_folder(root) / key_of(url)
    for name, data in files.items():
        (entry / CONTENT / name).parent.mkdir(parents=True, exist_ok=True)
        (entry / CONTENT / name).write_bytes(data)
    write_record(entry, url=url, final_url="https://h/x.tar.gz", sha256="ab" * 32, size_bytes=1234)
    return entry


def test_an_address_is_written_one_way():
    assert address(" HTTPS://TFHub.dev:443/a/5/#top ") == "https://tfhub.dev/a/5"
    assert address("https://h:8443/a b/ü?q=a b#x") == "https://h:8443/a%20b/%C3%BC?q=a%20b"
    assert address("https://h/a%20b/") == "https://h/a%20b/"
    assert address("https://bücher.de/m") == "https://xn--bcher-kva.de/m"
    assert address("https://[::1]:8/m") == "https://[::1]:8/m"


@pytest.mark.parametrize(
    "url", ["http://h/m", "http://127.0.0.1/m", "http://localhost/m", "ftp://h/m", "file:///etc/passwd", "m"]
)
def test_only_https(url):
    with pytest.raises(
        InputError, match=r"expected an https address; got .*: on any other way the module could be"
    ):
        address(url)


@pytest.mark.parametrize(
    "url", ["https://", "https:///m", "https://h:x/m", "https://[::1/m", "https://a..b/m"]
)
def test_no_address(url):
    with pytest.raises(InputError, match="expected an https address; got"):
        address(url)


def test_a_password_is_not_kept():
    with pytest.raises(InputError, match="the address of h holds a user's name or password") as caught:
        address("https://me:secret@h/m")
    assert "secret" not in str(caught.value)


def test_keys_are_readable_and_differ():
    assert key_of(URL).startswith("tfhub.dev-google-imagenet-inception_v3-feature_vector-5-")
    assert key_of(URL) == key_of(URL + "/")
    urls = ("https://h/a/b", "https://h/a-b", "https://h/A/b", "https://h/a/b?x", "https://h/" + "a" * 3000)
    keys = {key_of(url) for url in urls}
    assert len(keys) == 5
    assert max(map(len, keys)) < 100


def test_where_modules_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path))
    monkeypatch.delenv("TFHUB_CACHE_DIR", raising=False)
    assert modules_folder() == tmp_path / "modules"
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "hub"))
    assert modules_folder() == tmp_path / "hub" / "topwork"
    assert modules_folder(tmp_path / "own") == tmp_path / "own" / "modules"
    monkeypatch.setenv("TFHUB_CACHE_DIR", "gs://bucket/hub")
    with pytest.raises(
        InputError, match="TFHUB_CACHE_DIR must be a folder on this machine; got gs://bucket/hub"
    ):
        modules_folder()


def test_a_sound_entry(tmp_path):
    entry = keep(tmp_path)
    info = verify(entry, url=URL)
    assert (info.folder, info.url, info.final_url) == (entry, URL, "https://h/x.tar.gz")
    assert {file.name for file in info.files} == set(FILES)
    assert [file.size_bytes for file in info.files] == [len(FILES[file.name]) for file in info.files]
    assert abs(datetime.now(UTC) - info.fetched) < timedelta(minutes=1)
    assert list_modules(tmp_path) == (info,)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DATA_FILE = "content/variables/variables.data-00000-of-00001"
DAMAGES = {
    "a bit": (lambda e: flip(e / DATA_FILE), "changed since it was fetched: its SHA-256 differs"),
    "a file gone": (lambda e: (e / DATA_FILE).unlink(), "is missing"),
    "a file emptied": (lambda e: (e / DATA_FILE).write_bytes(b""), "has 0 bytes, and had 750"),
    "a file more": (lambda e: (e / "content/extra").write_bytes(b"x"), "'extra' is not of the module"),
    "a folder gone": (lambda e: shutil.rmtree(e / "content/variables"), "is missing"),
    "all files gone": (lambda e: shutil.rmtree(e / "content"), "is missing"),
    "all folders emptied": (
        lambda e: [p.unlink() for p in e.rglob("*") if p.is_file()],
        "record can't be read",
    ),
    "the record gone": (lambda e: (e / RECORD).unlink(), "its record can't be read: No such file"),
    "the record cut": (
        lambda e: (e / RECORD).write_bytes((e / RECORD).read_bytes()[:-40]),
        "module.json is damaged",
    ),
    "another format": (
        lambda e: (e / RECORD).write_text((e / RECORD).read_text().replace('"format": 1', '"format": 2')),
        "its format is 2; expected 1",
    ),
    "no record at all": (lambda e: (e / RECORD).write_text("[1]"), "module.json is damaged"),
    "a record of other kinds": (
        lambda e: (e / RECORD).write_text((e / RECORD).read_text().replace('"url": "', '"url": 5, "x": "')),
        "module.json is damaged: its url is 5",
    ),
    "no list of files": (
        lambda e: (e / RECORD).write_text('{"format": 1, "files": ["a"]}'),
        "module.json is damaged",
    ),
    "a record's hash": (
        lambda e: (e / RECORD).write_text((e / RECORD).read_text().replace('"sha256": "', '"sha256": "0')),
        "changed since it was fetched",
    ),
    "a link to the same": (
        lambda e: ((e / DATA_FILE).rename(e / "f"), (e / DATA_FILE).symlink_to(e / "f")),
        "'variables/variables.data-00000-of-00001' is not of the module",
    ),
    "a link more": (lambda e: (e / "content/more").symlink_to("/tmp"), "'more' is not of the module"),
    "a folder in place": (lambda e: ((e / DATA_FILE).unlink(), (e / DATA_FILE).mkdir()), "is missing"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_every_damage_is_seen(tmp_path, kind):
    entry = keep(tmp_path)
    damage, text = DAMAGES[kind]
    damage(entry)
    with pytest.raises(DamagedModule, match=text) as caught:
        verify(entry, url=URL)
    assert str(caught.value).startswith(str(entry))
    (info,) = list_modules(tmp_path)
    assert bool(info.problem) == (kind not in ("a bit", "a record's hash"))  # a listing reads no contents


def test_an_entry_of_another_address_is_not_taken(tmp_path):
    entry = keep(tmp_path)
    other = entry.with_name(key_of("https://h/other"))
    entry.rename(other)
    with pytest.raises(DamagedModule, match=f"its record is of {URL}"):
        verify(other, url="https://h/other")
    (info,) = list_modules(tmp_path)
    assert info.problem == f"{other}: its record is of {URL}"


def test_lists_the_newest_first_and_only_entries(tmp_path):
    assert list_modules(tmp_path) == ()
    entries = [keep(tmp_path, f"https://h/{n}") for n in range(3)]
    for entry, day in zip(entries, (5, 9, 7), strict=True):
        plain = json.loads((entry / RECORD).read_text())
        plain["fetched"] = f"2026-01-0{day}T00:00:00+00:00"
        (entry / RECORD).write_text(json.dumps(plain))
    (tmp_path / "modules" / "notes").mkdir()
    (tmp_path / "modules" / "0123456789abcdef0123456789abcdef01234567").mkdir()  # as tensorflow_hub's
    (tmp_path / "modules" / key_of("https://h/link")).symlink_to(entries[0])
    assert [info.url for info in list_modules(tmp_path)] == ["https://h/1", "https://h/2", "https://h/0"]
    assert [info.problem for info in list_modules(tmp_path)] == ["", "", ""]


def test_remove(tmp_path):
    entry, other = keep(tmp_path), keep(tmp_path, "https://h/other")
    part = entry.with_name(f"{entry.name}.part")
    part.mkdir()
    (part / "file").write_bytes(b"x" * 100)
    size = sum(
        path.stat().st_size for folder in (entry, part) for path in folder.rglob("*") if path.is_file()
    )
    assert remove_module(URL + "/", root=tmp_path) == size
    assert {path.name for path in entry.parent.iterdir()} == {other.name, lock_of(entry).name}
    with pytest.raises(InputError, match=f"nothing is kept of {URL} in .*Known: https://h/other"):
        remove_module(URL, root=tmp_path)


def test_remove_what_is_damaged_or_a_link(tmp_path):
    entry = keep(tmp_path)
    (entry / RECORD).unlink()
    remove_module(URL, root=tmp_path)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_bytes(b"x")
    entry.symlink_to(mine)
    remove_module(URL, root=tmp_path)
    assert not os.path.lexists(entry)
    assert contents(mine) == {"thesis.txt": b"x"}


def test_remove_waits_for_who_is_busy_and_says_so(tmp_path):
    entry = keep(tmp_path)
    told, done = [], []
    with held(lock_of(entry), waiting=pytest.fail):
        thread = threading.Thread(
            target=lambda: done.append(remove_module(URL, root=tmp_path, say=told.append))
        )
        thread.start()
        time.sleep(0.3)
        assert entry.exists()
        assert not done
    thread.join(10)
    assert told == [f"another process is fetching or removing {URL}: waiting for it"]
    assert done
    assert not entry.exists()


def test_the_lock_lets_one_thread_in_at_a_time(tmp_path):
    inside, most = [], []

    def work() -> None:
        with held(tmp_path / "a" / "lock", waiting=lambda: None):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


def test_folders_that_refuse(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(InputError, match=r"modules need a writable folder; got .*file/m/lock"),
        held(tmp_path / "file" / "m" / "lock", waiting=pytest.fail),
    ):
        pass
    full = storage_error(OSError(28, "No space left on device"), tmp_path)
    assert type(full) is TopworkError
    assert "No space left on device. Free some space, or set TOPWORK_CACHE" in str(full)
    with pytest.raises(
        TopworkError, match=r"fetching m needs 1,000,000,000,000 MB,? and 67 MB must stay free; the disk of"
    ):
        check_room(tmp_path / "not" / "made", 10**18, what="fetching m")
    monkeypatch.setattr(os, "unlink", lambda *a, **k: (_ for _ in ()).throw(PermissionError(13, "no", "f")))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "f").write_bytes(b"")
    with pytest.raises(
        TopworkError, match=r"can't delete f: no\. Close the programs that use it, or delete it manually"
    ):
        discard(tmp_path / "full")
