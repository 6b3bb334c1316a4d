"""Archives, sound, damaged and hostile: what is unpacked is all of it, or there is an error that says why."""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import shutil
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from https_server import contents, member, module_files, tar, zipped
from topwork.backbones.hub.unpack import DamagedError, check_zip, packing_of, unpack
from topwork.errors import InputError, TopworkError

FILES = module_files(20_000)
KINDS = {
    "tar": tar(FILES, mode="w"),
    "tar.gz": tar(FILES),
    "zip": zipped(FILES),
}
LINKS = {
    "symbolic": member("evil", tarfile.SYMTYPE, "/etc/passwd"),
    "hard": member("evil", tarfile.LNKTYPE, "./saved_model.pb"),
    "to a folder": member("variables", tarfile.SYMTYPE, "/tmp"),
}
DEVICES = {
    "character": member("evil", tarfile.CHRTYPE),
    "block": member("evil", tarfile.BLKTYPE),
    "pipe": member("evil", tarfile.FIFOTYPE),
}
NAMES = {
    "/etc/cron.d/evil": "an absolute path",
    "../evil": 'a name with ".."',
    "variables/../../evil": 'a name with ".."',
    "..": 'a name with ".."',
    "C:/evil": "a backslash or a colon",
    "c:evil": "a backslash or a colon",
    "..\\evil": "a backslash or a colon",
    "\\\\host\\evil": "a backslash or a colon",
    "evil\nname": "control characters",
}


def put(folder: Path, data: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(data)
    return path


def refused(tmp_path: Path, data: bytes, text: str, **limits: int) -> InputError:
    """Check that the archive is refused, and that nothing of it was written anywhere."""
    path = put(tmp_path, data)
    with pytest.raises(InputError, match=re.escape(text)) as caught:
        unpack(path, tmp_path / "inner" / "out", shown="https://h/m", **limits)
    assert str(caught.value).startswith("https://h/m")
    assert list(tmp_path.rglob("*")) == [path]
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_all_files_come_out_as_they_went_in(tmp_path, kind):
    path = put(tmp_path, KINDS[kind])
    assert packing_of(path) == kind
    unpack(path, tmp_path / "out", shown="m")
    assert contents(tmp_path / "out") == FILES


def test_folders_come_out_too_and_nothing_can_be_run(tmp_path):
    info = member("bin/run")
    info.mode = 0o6777
    data = tar(
        {"saved_model.pb": b"x"}, member(".", tarfile.DIRTYPE), member("./assets", tarfile.DIRTYPE), info
    )
    unpack(put(tmp_path, data), tmp_path / "out", shown="m")
    assert (tmp_path / "out" / "assets").is_dir()
    assert (tmp_path / "out" / "bin" / "run").stat().st_mode & 0o7111 == 0


def test_a_long_name_and_one_that_is_not_ascii(tmp_path):
    files = {"a/" * 100 + "b": b"1", "variables/größe": b"2"}
    for n, data in enumerate((tar(files), tar(files, mode="w"), zipped(files))):
        unpack(put(tmp_path, data), tmp_path / f"{n}", shown="m")
        assert contents(tmp_path / f"{n}") == files


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("kind", LINKS)
def test_links_are_refused(tmp_path, kind, mode):
    refused(tmp_path, tar(FILES, LINKS[kind], mode=mode), "a link: nothing of it is unpacked")


@pytest.mark.parametrize("kind", DEVICES)
def test_devices_are_refused(tmp_path, kind):
    refused(tmp_path, tar(FILES, DEVICES[kind]), "a device or another thing that is no plain file")


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    refused(tmp_path, tar({"saved_model.pb": b"x"}, member(name)), NAMES[name])
    refused(tmp_path, tar({"saved_model.pb": b"x"}, member(name, tarfile.DIRTYPE)), NAMES[name])
    refused(tmp_path, zipped({"saved_model.pb": b"x", name: b"x"}), NAMES[name])


def test_a_nul_in_a_zips_name_is_refused(tmp_path):
    data = zipped({"saved_model.pbQevil": b"x"}).replace(b"Q", b"\0")
    refused(tmp_path, data, "control characters")


def test_a_link_a_lock_and_a_rare_packing_in_a_zip_are_refused(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("evil")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    refused(tmp_path, out.getvalue(), "a link")
    data = bytearray(zipped({"a": b"x"}))
    data[data.index(b"PK\1\2") + 8] |= 1
    refused(tmp_path, bytes(data), "which is locked by a password")
    refused(tmp_path, zipped({"a": b"x"}, method=zipfile.ZIP_LZMA), "packed by zip's method 14")


def test_two_members_of_one_name_are_refused(tmp_path):
    refused(tmp_path, tar({"a": b"1"}, member("a")), "two members for one name: 'a'")
    refused(tmp_path, tar({"a": b"1", "A": b"2"}), "two members for one name: 'a'")  # as some disks see it
    refused(tmp_path, tar({"a": b"1", "a/b": b"2"}), "two members for one name: 'b'")
    refused(tmp_path, zipped({"a/b": b"1", "a": b"2"}), "two members for one name: 'a'")
    refused(tmp_path, tar({"a/b": b"1"}, member("a")), "two members for one name: 'a'")


def test_no_archive(tmp_path):
    refused(tmp_path, b"BZh91AY&SY" + b"x" * 1000, "expected a tar, tar.gz or zip")
    refused(tmp_path, b"", "expected a tar, tar.gz or zip")
    assert packing_of(put(tmp_path, b"\x08\x07" + b"x" * 600)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_limits_hold_before_anything_is_written(tmp_path, kind):
    refused(tmp_path, KINDS[kind], "holds more than 3 members", most_members=3)
    refused(tmp_path, KINDS[kind], "unpacks to more than 0.0 MB: not unpacked", most_bytes=19_000)


def test_a_bomb_is_not_unpacked_to_find_out(tmp_path):
    """A gzip of 2 GB of zeros, whose header claims 2 GB: refused by the claim, without reading on."""
    info = member("zeros")
    info.size = 2 * 2**30
    start = gzip.compress(info.tobuf())
    refused(
        tmp_path, start + gzip.compress(bytes(2**20)), "unpacks to more than 1.0 MB", most_bytes=1_000_000
    )


def test_a_bomb_behind_the_end_mark(tmp_path):
    data = tar({"a": b"1"}, mode="w")
    refused(tmp_path, gzip.compress(data + bytes(60 * 2**20)), "unpacks to more", most_bytes=1000)


def test_a_header_that_claims_memory(tmp_path):
    """A long name of 1 GB would be read whole by the library."""
    info = member("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    info.size = 2**30
    data = gzip.compress(info.tobuf() + bytes(10_000))
    with pytest.raises(DamagedError, match="a header in it claims 1,073,741,824 bytes"):
        unpack(put(tmp_path, data), tmp_path / "out", shown="m")


def test_a_negative_size(tmp_path):
    """The library of some Pythons would go round for ever."""
    block = bytearray(member("evil").tobuf())
    block[124:136] = struct.pack(">iq", -1, -512)
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    with pytest.raises(DamagedError, match="damaged"):
        unpack(put(tmp_path, bytes(block) + bytes(1024)), tmp_path / "out", shown="m")


def test_a_zip_that_holds_more_than_it_says(tmp_path):
    data = zipped({"saved_model.pb": bytes(100_000)})
    for header, at in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        start = data.index(header) + at
        data = data[:start] + struct.pack("<I", 10) + data[start + 4 :]
    with pytest.raises(DamagedError, match="damaged"):
        unpack(put(tmp_path, data), tmp_path / "out", shown="m")


def test_no_room_on_the_disk(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=64 * 2**20 + 19_000))
    with pytest.raises(
        TopworkError, match=r"unpacking m needs 0\.0 MB,? and 67 MB must stay free; .* has 67 MB free\. Free"
    ):
        unpack(put(tmp_path, KINDS["tar.gz"]), tmp_path / "out", shown="m")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_cut_anywhere(tmp_path, kind):
    """Also exactly between two members, where the library takes the end for a good one."""
    data = KINDS[kind]
    whole = len(data) if kind != "tar" else data.rindex(b"\n") // 512 * 512 + 512  # the rest are zeros
    cuts = {*range(600, whole, 1471), whole - 1, *(range(512, whole, 512) if kind == "tar" else ())}
    for cut in sorted(cuts):
        target = tmp_path / f"{cut}"
        with pytest.raises(DamagedError, match="m is damaged and can't be unpacked: "):
            unpack(put(tmp_path, data[:cut]), target, shown="m")


def test_a_damaged_header_is_not_the_end(tmp_path):
    data = bytearray(KINDS["tar"])
    data[data.index(b"./variables/variables.index") + 3] ^= 1
    with pytest.raises(DamagedError, match="a header in it is not one"):
        unpack(put(tmp_path, bytes(data)), tmp_path / "out", shown="m")


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_flipped_bits_give_the_files_or_an_error(tmp_path_factory, kind, data):
    """These two carry checksums of what is in their members; a changed name may stay, as a name."""
    tmp_path = tmp_path_factory.mktemp("flip")
    raw = bytearray(KINDS[kind])
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=4)):
        raw[at] ^= data.draw(st.integers(1, 255))
    try:
        unpack(put(tmp_path, bytes(raw)), tmp_path / "out", shown="m")
    except (InputError, TopworkError):
        return
    finally:
        assert set(tmp_path.iterdir()) <= {tmp_path / "file", tmp_path / "out"}
    assert set(contents(tmp_path / "out").values()) == set(FILES.values())


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_tar_gives_files_inside_or_an_error(tmp_path_factory, data):
    """Headers changed at random and wrapped in a sound gzip: nothing but our errors, nothing outside."""
    tmp_path = tmp_path_factory.mktemp("headers")
    raw = bytearray(tar({"saved_model.pb": b"12", "v/" * 60 + "x": b"34"}, mode="w"))
    headers = [n for n in range(0, len(raw) - 10_240 + 4096, 512) if any(raw[n : n + 512])]
    for _ in range(data.draw(st.integers(1, 3))):
        header = data.draw(st.sampled_from(headers))
        at = header + data.draw(st.integers(0, 511))
        piece = data.draw(st.binary(min_size=1, max_size=12))
        raw[at : at + len(piece)] = piece
        block = raw[header : header + 512]
        block[148:156] = b" " * 8
        raw[header + 148 : header + 156] = f"{sum(block):06o}\0 ".encode()
    with contextlib.suppress(InputError, TopworkError):
        unpack(put(tmp_path, gzip.compress(bytes(raw), 1)), tmp_path / "out", shown="m")
    assert set(tmp_path.iterdir()) <= {tmp_path / "file", tmp_path / "out"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_check_zip_reads_all_of_it(tmp_path):
    data = bytearray(zipped(FILES, method=zipfile.ZIP_STORED))
    path = put(tmp_path, bytes(data))
    assert check_zip(path, shown="m") == tuple(FILES)
    data[data.index(b"dog")] ^= 1
    with pytest.raises(DamagedError, match="m is damaged and can't be unpacked: Bad CRC-32"):
        check_zip(put(tmp_path, bytes(data)), shown="m")
