from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from store_rows import FINGERPRINT, NAME, items, key, open_store
from topwork.errors import InputError
from topwork.features.store import Store
from topwork.storage.cache import cache_root, clear, info


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A cache with two stores, a damaged one, an archive, and files of other people."""
    root = tmp_path / "cache"
    with open_store(root) as store:
        store.put(items(range(5)))
    with Store.open("c0ffeeffff", 3, root=root) as store:
        store.put([(key(1), np.ones(3, np.float32))])
    (root / "features" / f"{NAME}.damaged-1").write_bytes(b"d" * 100)
    (root / "features" / f"{NAME}.damaged-1-wal").write_bytes(b"d" * 10)
    (root / "archives").mkdir()
    (root / "archives" / "module.tar").write_bytes(b"a" * 1000)
    (root / "archives" / "notes.txt").write_bytes(b"mine")
    (root / "features" / "thesis.sqlite").write_bytes(b"not made here")
    (root / "thesis.tar").write_bytes(b"not made here")
    (root / "other" / "features").mkdir(parents=True)
    (root / "other" / "features" / NAME).write_bytes(b"not made here")
    return root


def test_root_is_chosen_or_the_platforms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.setenv("TOPWORK_CACHE", "~/somewhere")
    assert cache_root() == Path.home() / "somewhere"
    for unset in (
        lambda: monkeypatch.setenv("TOPWORK_CACHE", ""),
        lambda: monkeypatch.delenv("TOPWORK_CACHE"),
    ):
        unset()
        assert cache_root() == Path(platformdirs.user_cache_dir("topwork", appauthor=False))


def test_info_lists_stores_damage_and_sizes(filled: Path) -> None:
    held = info(filled)
    first, second = held.stores
    assert (first.fingerprint, first.about, first.width, first.rows) == (FINGERPRINT, "a test's", 700, 5)
    assert (second.fingerprint, second.about, second.width, second.rows) == ("c0ffeeffff", "", 3, 1)
    assert first.size_bytes == first.path.stat().st_size
    assert abs(datetime.now(UTC) - first.used) < timedelta(minutes=1)
    assert held.set_aside == (filled / "features" / f"{NAME}.damaged-1",)
    everything = {path: path.stat().st_size for path in filled.rglob("*") if path.is_file()}
    assert held.total_bytes == sum(everything.values()) == sum(held.folder_bytes.values())
    assert held.folder_bytes["archives"] == 1004
    assert held.folder_bytes[""] == 13
    assert sorted(p for p in filled.rglob("*") if p.is_file()) == sorted(
        everything
    )  # looking changes nothing


def test_info_of_a_store_in_use_counts_its_log(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.put(items(range(7)))
        (held,) = info(tmp_path).stores
        assert held.rows == 7
        assert held.size_bytes > store.path.stat().st_size
        store.put(items(range(9)))
        assert len(store) == 9


def test_info_of_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    for name, content in (("aa.sqlite", b"x" * 5000), ("bb.sqlite", b"")):
        (tmp_path / "features" / name).write_bytes(content)
    for held in info(tmp_path).stores:
        assert (held.rows, held.width, held.about) == (None, None, "")
    assert info(tmp_path / "absent").stores == ()
    assert info(tmp_path / "absent").total_bytes == 0


def test_opening_marks_a_store_as_used(filled: Path) -> None:
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    os.utime(filled / "features" / NAME, (long_ago.timestamp(),) * 2)
    assert info(filled).stores[0].used == long_ago
    open_store(filled).close()
    assert info(filled).stores[0].used > long_ago


def test_clear_deletes_what_was_made_here_and_nothing_else(filled: Path) -> None:
    before = info(filled).total_bytes
    freed = clear(filled)
    left = sorted(str(p.relative_to(filled)) for p in filled.rglob("*") if p.is_file())
    assert left == [
        "archives/notes.txt",
        "features/.lock",
        "features/thesis.sqlite",
        f"other/features/{NAME}",
        "thesis.tar",
    ]
    assert freed == before - info(filled).total_bytes > 0
    assert clear(filled) == 0
    assert clear(filled / "absent") == 0


def test_clear_one_store_by_the_beginning_of_its_fingerprint(filled: Path) -> None:
    clear(filled, fingerprint="c0ffee0")
    assert [held.fingerprint for held in info(filled).stores] == ["c0ffeeffff"]
    assert info(filled).set_aside == ()
    assert (filled / "archives" / "module.tar").exists()


@pytest.mark.parametrize(("prefix", "fits"), [("c0ffee", 2), ("", 0), ("beef", 0), ("module", 0)])
def test_clear_needs_one_fingerprint(filled: Path, prefix: str, fits: int) -> None:
    with pytest.raises(InputError, match=f"'{prefix}' matches {fits}. Known: {FINGERPRINT}, c0ffeeffff$"):
        clear(filled, fingerprint=prefix)
    assert len(info(filled).stores) == 2


def test_clear_says_when_nothing_is_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected the fingerprint .* 'beef' matches 0. Known: none$"):
        clear(tmp_path, fingerprint="beef")


def test_clear_follows_no_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in (NAME, "module.tar"):
        (outside / name).write_bytes(b"precious")
    root = tmp_path / "cache"
    (root / "features").mkdir(parents=True)
    try:
        (root / "features" / NAME).symlink_to(outside / NAME)
        (root / "archives").symlink_to(outside, target_is_directory=True)
    except OSError:
        pytest.skip("links can't be made here")
    assert clear(root) == 0
    assert (root / "features" / NAME).is_symlink()
    assert len(list(outside.iterdir())) == 2


def test_clear_refuses_a_folder_that_holds_other_things(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "people" / "me"
    (home / "features").mkdir(parents=True)
    (home / "features" / NAME).write_bytes(b"x")
    monkeypatch.setattr(Path, "home", lambda: home)
    for wrong in (home, home.parent, Path("/"), home / "x" / ".."):
        with pytest.raises(
            InputError, match=r"the cache must be a separate folder; got .* Set TOPWORK_CACHE to"
        ):
            clear(wrong)
    assert (home / "features" / NAME).exists()
