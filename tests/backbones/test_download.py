"""From an address to a verified module: every fault ends in the right files or a clear error, never in others."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from test_whole import MODELS

from https_server import Page, contents, member, module_files, serving, tar, zipped
from photos import finished, start_python
from topwork.backbones.hub import https
from topwork.backbones.hub.download import fetch_module, request_address
from topwork.backbones.hub.modules import CONTENT, key_of, list_modules, remove_module, verify
from topwork.backbones.hub.record import DamagedModule
from topwork.backbones.hub.unpack import DamagedError
from topwork.errors import InputError, TopworkError

FILES = module_files()
OTHER = module_files(seed=1)
ARCHIVE = tar(FILES)
FETCH = """
import sys
from pathlib import Path
from topwork.backbones.hub.download import fetch_module
print(fetch_module(sys.argv[1], root=Path(sys.argv[2]), say=lambda text: print(text, file=sys.stderr)))
"""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(https, "BACKOFF_S", 0.01)
    with serving(monkeypatch) as server:
        yield server


@pytest.fixture
def url(server):
    return server.put("/m/1", ARCHIVE)


def entry_of(root: Path, url: str) -> Path:
    return root / "modules" / key_of(url)


def clean(root: Path) -> bool:
    """Whether nothing but whole entries and locks lies in the cache."""
    return all(path.suffix == ".lock" or verify(path) for path in (root / "modules").iterdir())


def nothing_kept(root: Path) -> bool:
    return all(path.suffix == ".lock" for path in (root / "modules").iterdir())


def test_fetched_once_then_kept(tmp_path, server, url):
    path = fetch_module(url, root=tmp_path)
    assert contents(path) == FILES
    assert path == entry_of(tmp_path, url) / CONTENT
    server.pages.clear()
    for offline in (False, True):
        assert fetch_module(url, root=tmp_path, offline=offline) == path
    assert server.requests == [("/m/1?tf-hub-format=compressed", server.asked("/m/1")[0])]
    (info,) = list_modules(tmp_path)
    assert (info.url, info.final_url, info.size_bytes, info.problem) == (url, url, len(ARCHIVE), "")
    assert clean(tmp_path)


def test_the_address_that_is_asked():
    asked = "tf-hub-format=compressed"
    assert request_address("https://tfhub.dev/google/a/5") == f"https://tfhub.dev/google/a/5?{asked}"
    assert request_address("https://tfhub.dev/google/a.b/5") == f"https://tfhub.dev/google/a.b/5?{asked}"
    assert request_address("https://tfhub.dev/a.b") == f"https://tfhub.dev/a.b?{asked}"
    assert request_address("https://h/own/module/1") == f"https://h/own/module/1?{asked}"
    for whole in (
        "https://h/m.tar.gz",
        "https://h/m.onnx",
        "https://h/m?key=1",
        "https://tfhub.dev/m?lite-format=tflite",
    ):
        assert request_address(whole) == whole


@pytest.mark.parametrize(
    "body",
    [
        ARCHIVE,
        tar(FILES, mode="w"),
        zipped(FILES),
        tar(FILES, prefix="inception/v3/"),
        zipped({"a/": b""} | FILES),
    ],
    ids=["tar.gz", "tar", "zip", "in folders", "a folder more"],
)
def test_an_archive_is_known_by_its_bytes(tmp_path, server, body):
    for path in ("/m/1", "/m.onnx", "/m.bin"):
        assert contents(fetch_module(server.put(path, body), root=tmp_path)) == FILES


@pytest.mark.parametrize("suffix", MODELS)
def test_a_single_file_keeps_its_name(tmp_path, server, suffix):
    data = MODELS[suffix]
    server.put(f"/files/net-1.0{suffix}", data)
    server.put("/get/it", status=302, headers={"Location": f"/files/net-1.0{suffix}?token=1"})
    for path in (f"/files/net-1.0{suffix}", f"/files/net-1.0{suffix}?download=1", "/get/it"):
        found = fetch_module(server.url(path), root=tmp_path)
        assert (found.name, found.read_bytes()) == (f"net-1.0{suffix}", data)
    assert fetch_module(server.put("/m/1", tar({f"net{suffix}": data})), root=tmp_path).name == f"net{suffix}"


def test_a_tflite_file_is_known_without_a_name(tmp_path, server):
    path = fetch_module(server.put("/lite/1", MODELS[".tflite"]) + "?lite-format=tflite", root=tmp_path)
    assert path.name == "1.tflite"


@pytest.mark.parametrize("address", ["http://127.0.0.1:{}/m/1", "http://localhost:{}/m/1", "file:///m/1"])
def test_only_https_also_on_this_machine(tmp_path, server, address):
    with pytest.raises(InputError, match="expected an https address"):
        fetch_module(address.format(server.port), root=tmp_path)
    assert server.requests == []
    assert list(tmp_path.iterdir()) == []


def test_the_users_folder_is_honoured_and_what_lies_in_it_is_not_trusted(tmp_path, server, url, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    foreign = tmp_path / "6a0b3d5c0e0ea6cf0b1ed3f0bbf5e0ff2b1d3a0e"
    foreign.mkdir()
    (foreign / "saved_model.pb").write_bytes(b"someone's")
    ours = tmp_path / "topwork" / key_of(url) / CONTENT
    ours.mkdir(parents=True)
    (ours / "saved_model.pb").write_bytes(b"someone's, where ours would be, without a record")
    assert fetch_module(url) == ours
    assert contents(ours) == FILES
    assert contents(foreign) == {"saved_model.pb": b"someone's"}


PAGES = (b"<!DOCTYPE html><title>Sign in</title>", b"\xef\xbb\xbf\n <html>", b"<?xml version='1.0'?><Error/>")


@pytest.mark.parametrize("page", PAGES)
def test_a_web_page_is_no_module(tmp_path, server, page):
    with pytest.raises(InputError, match=r"expected a module; the server sent a web page \(.*kaggle: handle"):
        fetch_module(server.put("/m/1", page), root=tmp_path)
    with pytest.raises(InputError, match="the server sent a web page"):
        fetch_module(server.put("/m.onnx", page), root=tmp_path)
    assert nothing_kept(tmp_path)


NO_MODULES = {
    "noise": (np.random.default_rng(0).bytes(2000), "expected a tar, tar.gz or zip, or a file that ends in"),
    "empty": (b"", "got 0 bytes that begin with b''"),
    "bzip2": (b"BZh9" + bytes(700), r"got 704 bytes that begin with b'BZh9"),
    "photos": (tar({"a.png": b"1", "b.png": b"2"}), r"expected a module: .*; it holds a\.png, b\.png"),
    "an empty tar": (tar({}, member("./", tarfile.DIRTYPE)), "expected a module: .*; it holds nothing"),
    "two models": (
        tar({"a.onnx": b"1", "b.onnx": b"2"}),
        r"expected a module: .*; it holds a\.onnx, b\.onnx",
    ),
    "a link": (tar(FILES, member("x", tarfile.SYMTYPE, "/etc/passwd")), "holds 'x', a link: nothing of it"),
    "a way up": (tar(FILES, member("../x")), r"a name with \"\.\.\""),
    "absolute": (zipped(FILES | {"/x": b""}), "an absolute path"),
    "a device": (tar(FILES, member("x", tarfile.CHRTYPE)), "a device"),
}


@pytest.mark.parametrize("kind", NO_MODULES)
def test_what_is_no_module_is_refused_and_not_kept(tmp_path, server, kind):
    body, text = NO_MODULES[kind]
    url = server.put("/m/1", body)
    with pytest.raises(InputError, match=text) as caught:
        fetch_module(url, root=tmp_path)
    assert str(caught.value).startswith(url)
    assert nothing_kept(tmp_path)
    server.put("/m/1", ARCHIVE)
    assert contents(fetch_module(url, root=tmp_path)) == FILES  # it is asked for anew, not remembered


DAMAGED = {
    "cut": ("/m/1", {"body": ARCHIVE[:-1000]}),
    "a bit": ("/m/1", {"body": ARCHIVE[:5000] + bytes([ARCHIVE[5000] ^ 1]) + ARCHIVE[5001:]}),
    "a length too short": ("/m/1", {"body": ARCHIVE, "length": len(ARCHIVE) - 1000}),
    "an end that looks like one": ("/m/1", {"body": ARCHIVE, "length": "none", "break_after": 100_000}),
    "a plain tar cut between members": ("/m/1", {"body": tar(FILES, mode="w")[: 512 * 100]}),
    "a file cut": ("/m.onnx", {"body": MODELS[".onnx"][:-50]}),
    "a file's length too short": ("/m.tflite", {"body": MODELS[".tflite"], "length": 200}),
    "a Keras file cut": ("/m.keras", {"body": MODELS[".keras"][:-10]}),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_comes_damaged_is_told_and_not_kept(tmp_path, server, kind):
    path, how = DAMAGED[kind]
    url = server.put(path, **how)
    with pytest.raises((DamagedError, InputError), match=url) as caught:
        fetch_module(url, root=tmp_path)
    assert isinstance(caught.value, DamagedError) or "expected a tar" in str(caught.value)
    assert len(server.requests) == 1
    assert nothing_kept(tmp_path)


def zeros(first: int, piece: bytes) -> bytes:
    return bytes(len(piece)) if first else piece


def test_pieces_that_do_not_fit_are_fetched_in_one(tmp_path, server):
    """The server says that it is the same file, of the same length, and it is another."""
    lies = Page(ARCHIVE, mangle=zeros, times=1, then=Page(ARCHIVE))
    url = server.put("/m/1", ARCHIVE, break_after=100_000, times=1, then=lies)
    assert contents(fetch_module(url, root=tmp_path)) == FILES
    assert [headers.get("Range") for headers in server.asked("/m/1")] == [None, "bytes=100000-", None]


def test_pieces_that_never_fit_are_told(tmp_path, server):
    url = server.put("/m/1", ARCHIVE, break_after=150_000, mangle=zeros)
    with pytest.raises(DamagedError, match="is damaged and can't be unpacked"):
        fetch_module(url, root=tmp_path)
    assert nothing_kept(tmp_path)


def damage(entry: Path) -> None:
    (entry / CONTENT / "saved_model.pb").write_bytes(b"")


def empty(entry: Path) -> None:
    for path in [*entry.rglob("*")]:
        if path.is_file():
            path.unlink()


def replace(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.write_bytes(b"a file")


def link(entry: Path) -> None:
    entry.rename(entry.with_name("elsewhere"))
    (entry.with_name("elsewhere") / CONTENT / "saved_model.pb").write_bytes(b"exchanged")
    entry.symlink_to("elsewhere")


@pytest.mark.parametrize("spoil", [damage, empty, shutil.rmtree, replace, link])
def test_a_damaged_or_emptied_cache_is_fetched_again(tmp_path, server, url, spoil):
    told = []
    fetch_module(url, root=tmp_path)
    spoil(entry_of(tmp_path, url))
    assert contents(fetch_module(url, root=tmp_path, say=told.append)) == FILES
    assert len(server.requests) == 2
    assert [text.endswith(": it is fetched again") for text in told] == [True] * (spoil is not shutil.rmtree)
    fetch_module(url, root=tmp_path, offline=True)


def test_a_publisher_who_changed_the_files_is_told_of(tmp_path, server, url):
    told = []
    fetch_module(url, root=tmp_path)
    damage(entry_of(tmp_path, url))
    server.put("/m/1", tar(OTHER))
    assert contents(fetch_module(url, root=tmp_path, say=told.append)) == OTHER
    assert told[1] == f"{url}: the files are others than those that were fetched there before"


def test_a_damaged_module_that_cannot_be_fetched_again(tmp_path, server, url):
    fetch_module(url, root=tmp_path)
    damage(entry_of(tmp_path, url))
    server.put("/m/1", status=404)
    for _ in range(2):
        with pytest.raises(InputError, match="there is no such file"):
            fetch_module(url, root=tmp_path)


def test_offline(tmp_path, server, url):
    with pytest.raises(
        InputError, match=rf"{url} is not kept in .*, and nothing is fetched offline\. Fetch it once"
    ):
        fetch_module(url, root=tmp_path, offline=True)
    assert list(tmp_path.iterdir()) == []
    fetch_module(url, root=tmp_path)
    damage(entry_of(tmp_path, url))
    with pytest.raises(
        DamagedModule, match=r"has 0 bytes, and had [0-9,]+\. Offline it can't be fetched again"
    ):
        fetch_module(url, root=tmp_path, offline=True)
    assert len(server.requests) == 1


def test_a_cache_that_is_no_folder(tmp_path, server, url):
    (tmp_path / "modules").write_bytes(b"")
    with pytest.raises(InputError, match="modules need a writable folder; got"):
        fetch_module(url, root=tmp_path)


def test_no_room_to_unpack_keeps_what_was_fetched(tmp_path, server, url, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    url = server.put("/m/1", tar({"saved_model.pb": bytes(10_000_000)}))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=64 * 2**20 + 1_000_000))
        with pytest.raises(TopworkError, match=r"unpacking .*/m/1 needs 10 MB"):
            fetch_module(url, root=tmp_path)
    fetch_module(url, root=tmp_path)
    first, second = server.asked("/m/1")
    assert "Range" not in first
    assert "Range" in second
    assert clean(tmp_path)


def test_a_disk_that_takes_no_more(tmp_path, server, url):
    """A limit of the operating system on a file's size stands for a full disk."""
    resource = pytest.importorskip("resource")
    assert resource
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    code, _, err = finished(start_python(limit + FETCH, url, tmp_path))
    assert code == 1
    assert "TopworkError: can't write" in err
    assert "Free some space" in err
    assert contents(fetch_module(url, root=tmp_path)) == FILES
    assert clean(tmp_path)


def test_two_processes_fetch_once(tmp_path, server, url):
    server.pages["/m/1"].rate = 150_000
    children = [start_python(FETCH, url, tmp_path) for _ in range(3)]
    told = [finished(child) for child in children]
    assert [code for code, _, _ in told] == [0, 0, 0], told
    assert {out.strip() for _, out, _ in told} == {str(entry_of(tmp_path, url) / CONTENT)}
    waited = f"another process is fetching or removing {url}: waiting for it\n"
    assert sorted(err for _, _, err in told) == ["", waited, waited]
    assert len(server.requests) == 1
    assert contents(entry_of(tmp_path, url) / CONTENT) == FILES


def kill(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def wait_for(child: subprocess.Popen[str], ready) -> None:
    until = time.monotonic() + 30
    while not ready() and child.poll() is None and time.monotonic() < until:
        time.sleep(0.001)


def test_killed_while_fetching_it_goes_on(tmp_path, server, url):
    server.pages["/m/1"].rate = 200_000
    part = entry_of(tmp_path, url).with_name(f"{key_of(url)}.part") / "file"
    child = start_python(FETCH, url, tmp_path)
    wait_for(child, lambda: part.exists() and part.stat().st_size > 50_000)
    kill(child)
    assert list_modules(tmp_path) == ()
    with pytest.raises(InputError, match="is not kept"):
        fetch_module(url, root=tmp_path, offline=True)
    server.pages["/m/1"].rate = None
    assert contents(fetch_module(url, root=tmp_path)) == FILES
    assert int(server.asked("/m/1")[1]["Range"].strip("bytes=-")) > 50_000
    assert clean(tmp_path)


@pytest.mark.slow
def test_killed_while_unpacking_nothing_half_made_is_used(tmp_path, server):
    """Killed at different moments between the first unpacked file and the finished entry."""
    files = FILES | {f"assets/{n}": str(n).encode() for n in range(500)}
    url = server.put("/m/1", tar(files))
    entry = entry_of(tmp_path, url)
    new = entry.with_name(f"{entry.name}.new")
    for sign in ("content/assets/0", "content/assets/250", "module.json"):
        child = start_python(FETCH, url, tmp_path)
        wait_for(child, lambda sign=new / sign: sign.exists() or entry.exists())
        kill(child)
        if not entry.exists():
            with pytest.raises(InputError, match="is not kept"):
                fetch_module(url, root=tmp_path, offline=True)
        assert contents(fetch_module(url, root=tmp_path)) == files
        assert clean(tmp_path)
        remove_module(url, root=tmp_path)


def test_interrupted_by_the_user(tmp_path, server, url):
    def stop(so_far: int, total: int | None) -> None:
        if so_far == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_module(url, root=tmp_path, progress=stop)
    assert list_modules(tmp_path) == ()
    assert contents(fetch_module(url, root=tmp_path)) == FILES
    assert clean(tmp_path)


def fault(dice: random.Random) -> dict[str, object]:
    """One way in which a server, or the way to it, goes wrong."""
    size = len(ARCHIVE)
    return dice.choice(
        [
            lambda: {"break_after": dice.randrange(size), "reset": dice.random() < 0.5},
            lambda: {"break_after": dice.randrange(size), "length": dice.choice(["chunked", "none", size])},
            lambda: {"length": dice.randrange(size)},
            lambda: {"length": size + dice.randrange(1, size)},
            lambda: {"body": tar(OTHER), "etag": '"v2"'},
            lambda: {"body": tar(OTHER)},
            lambda: {"ranges": False},
            lambda: {"etag": None},
            lambda: {"status": dice.choice([206, 302, 404, 416, 500, 503])},
            lambda: {"body": b"<html>"},
            lambda: {"body": b""},
            lambda: {"headers": {"Content-Range": f"bytes {dice.randrange(size)}-{size - 1}/{size}"}},
            lambda: {"mangle": zeros},
        ]
    )()


@pytest.mark.parametrize("seed", range(40))
def test_any_row_of_faults_gives_the_right_files_or_an_error(tmp_path, server, seed):
    dice = random.Random(seed)
    page = Page(ARCHIVE)
    for _ in range(dice.randint(1, 6)):
        page = Page(**{"body": ARCHIVE} | fault(dice), times=dice.randint(1, 2), then=page)
    server.pages["/m/1"] = page
    url = server.url("/m/1")
    for _ in range(20):
        failed = ""
        try:
            found = contents(fetch_module(url, root=tmp_path))
        except TopworkError as error:  # InputError is one
            failed = str(error)
        if failed:
            assert url in failed
            assert not os.path.lexists(entry_of(tmp_path, url))
            continue
        assert found in (FILES, OTHER)  # one of the two that the server had, never a mixture
        break
    else:
        pytest.fail("it never came to an end")
    assert clean(tmp_path)
    assert contents(fetch_module(url, root=tmp_path, offline=True)) == found
