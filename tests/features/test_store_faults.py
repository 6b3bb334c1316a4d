"""The feature store under real faults: damaged bytes, files taken away, several writers, killed processes."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store_rows import NAME, child, finish, items, key, keys, open_store, vectors


def heals(root: Path, count: int) -> Path | None:
    """A store of the first `count` rows with some fault: nothing wrong is read, and what is absent heals."""
    expected = vectors(range(count))
    aside = None
    for _ in range(2):  # the second opening meets what the first never touched
        with open_store(root) as store:
            store.missing(keys(range(count)))
            for _ in range(3):  # a fault in an index may show only when another row has been put
                got, absent = store.get(keys(range(count)))
                right = np.setdiff1d(np.arange(count), absent)
                np.testing.assert_array_equal(got[right], expected[right])
                assert np.isnan(got[absent]).all()
                store.put(items(absent.tolist()))
            assert absent.size == 0
            aside = aside or store.set_aside
    return aside


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache root with 60 rows, closed: one file."""
    root = tmp_path_factory.mktemp("sound")
    with open_store(root) as store:
        store.put(items(range(60)))
    return root


@pytest.fixture(scope="module")
def sound_with_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 rows, half of them in the log only: what a killed process leaves."""
    root = tmp_path_factory.mktemp("log")
    with open_store(root) as store:
        store.put(items(range(30)))
    finish(child("store = open_store(root); store.put(items(range(30, 60))); os._exit(0)", root))
    assert (root / "features" / f"{NAME}-wal").stat().st_size > 0
    return root


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(st.data())
def test_flipped_bytes_never_give_a_wrong_vector(
    sound: Path, sound_with_log: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("flipped") / "cache"
    shutil.copytree(data.draw(st.sampled_from([sound, sound_with_log])), root)
    files = sorted(
        p
        for p in (root / "features").iterdir()
        if p.stat().st_size and p.suffix in (".sqlite", ".sqlite-wal")
    )
    for _ in range(data.draw(st.integers(1, 4))):
        path = data.draw(st.sampled_from(files))
        content = bytearray(path.read_bytes())
        page = data.draw(st.integers(0, (len(content) - 1) // 16384)) * 16384
        within = data.draw(st.one_of(st.integers(0, 120), st.integers(0, 16383)))  # headers, or anywhere
        at = min(page + within, len(content) - 1)
        content[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
    heals(root, 60)
    shutil.rmtree(root)


def test_truncated_store_is_set_aside(sound: Path, tmp_path: Path) -> None:
    content = (sound / "features" / NAME).read_bytes()
    offsets = [1, 15, 16, 99, 100, 101, 512, 16383, *range(16384, len(content), 16384), len(content) - 1]
    for offset in [*offsets, *random.Random(0).sample(range(len(content)), 10)]:
        root = tmp_path / str(offset)
        path = root / "features" / NAME
        path.parent.mkdir(parents=True)
        path.write_bytes(content[:offset])
        aside = heals(root, 60)
        # Less than a header holds nothing; a cut in the last page leaves a database that lacks a row.
        if 512 <= offset <= len(content) - 16384:
            assert aside == Path(f"{path}.damaged-1")
            assert aside.read_bytes() == content[:offset]


def test_truncated_log_loses_only_what_was_in_it(sound_with_log: Path, tmp_path: Path) -> None:
    for offset in (0, 1, 31, 32, 5000, 40_000):
        root = tmp_path / str(offset)
        shutil.copytree(sound_with_log, root)
        os.truncate(root / "features" / f"{NAME}-wal", offset)
        with open_store(root) as store:
            got, absent = store.get(keys(range(60)))
            assert absent.tolist() == list(range(30, 60))
            np.testing.assert_array_equal(got[:30], vectors(range(30)))
            assert store.set_aside is None


def test_each_damaged_store_gets_a_number(tmp_path: Path) -> None:
    path = tmp_path / "features" / NAME
    path.parent.mkdir()
    for number, text in enumerate((b"not a database" * 100, b"x" * 600), start=1):
        path.write_bytes(text)
        with open_store(tmp_path) as store:
            assert store.set_aside == Path(f"{path}.damaged-{number}")
            store.put(items([1]))
        assert Path(f"{path}.damaged-{number}").read_bytes() == text


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE meta SET value = '99' WHERE name = 'format'",
        "UPDATE meta SET value = 'beef' WHERE name = 'fingerprint'",
        "UPDATE meta SET value = '701' WHERE name = 'width'",
        "DELETE FROM meta",
        "DROP TABLE features",
        "CREATE TABLE other (x)",
    ],
)
def test_store_of_another_kind_is_set_aside(sound: Path, tmp_path: Path, statement: str) -> None:
    shutil.copytree(sound, tmp_path / "cache")
    connection = sqlite3.connect(tmp_path / "cache" / "features" / NAME)
    connection.execute(statement)
    connection.commit()
    connection.close()
    assert heals(tmp_path / "cache", 60) is not None


def test_rows_that_swapped_vectors_are_absent(sound: Path, tmp_path: Path) -> None:
    """Each vector matches its own bytes, but not the key it stands under."""
    shutil.copytree(sound, tmp_path / "cache")
    connection = sqlite3.connect(tmp_path / "cache" / "features" / NAME)
    select = "SELECT checksum, vector FROM features WHERE key = ?"
    one, two = (connection.execute(select, (key(i),)).fetchone() for i in (1, 2))
    update = "UPDATE features SET checksum = ?, vector = ? WHERE key = ?"
    connection.executemany(update, [(*two, key(1)), (*one, key(2))])
    connection.execute("UPDATE features SET vector = 'text' WHERE key = ?", (key(5),))
    connection.execute("UPDATE features SET vector = x'00' WHERE key = ?", (key(6),))
    connection.commit()
    connection.close()
    with open_store(tmp_path / "cache") as store:
        assert store.get(keys(range(60)))[1].tolist() == [1, 2, 5, 6]
        assert store.set_aside is None
    assert heals(tmp_path / "cache", 60) is None


def test_damage_while_open(sound: Path, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    shutil.copytree(sound, root)
    with open_store(root) as store:
        ruin = "f = open(rest[0], 'r+b'); n = f.seek(0, 2); f.seek(16384); f.write(os.urandom(n - 16384))"
        finish(child(ruin, root, store.path))
        got, absent = store.get(keys(range(60)))
        right = np.setdiff1d(np.arange(60), absent)
        assert absent.size > 0
        np.testing.assert_array_equal(got[right], vectors(range(60))[right])
        store.put(items(range(60)))
        assert store.get(keys(range(60)))[1].size == 0
        assert store.set_aside == Path(f"{store.path}.damaged-1")
    with open_store(tmp_path / "cache") as store:
        assert store.get(keys(range(60)))[1].size == 0


@pytest.mark.parametrize("how", ["clear(root)", "set_aside(root / 'features' / NAME)"])
def test_store_taken_away_by_another_process(tmp_path: Path, how: str) -> None:
    with open_store(tmp_path) as store:
        store.put(items(range(10)))
        finish(
            child(
                "from topwork.storage.cache import clear; from topwork.storage.database import set_aside\n"
                + how,
                tmp_path,
            )
        )
        assert store.get(keys(range(10)))[1].tolist() == list(range(10))
        store.put(items(range(5)))
        assert store.set_aside is None  # the other process's doing, and its to tell
        with open_store(tmp_path) as second:
            assert second.get(keys(range(5)))[1].size == 0
        shutil.rmtree(tmp_path / "features")
        assert len(store) == 0


def test_both_who_meet_the_same_damage_go_on_with_one_store(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "cache")
    with open_store(tmp_path / "cache") as first, open_store(tmp_path / "cache") as second:
        finish(
            child("open(sys.argv[2], 'r+b').write(sys.stdin.buffer.read() or b'x' * 200000)", "", first.path)
        )
        first.put(items(range(3)))
        second.put(items(range(3, 6)))
        assert first.set_aside is not None
        assert second.set_aside is None
        assert first.get(keys(range(6)))[1].size == second.get(keys(range(6)))[1].size == 0
        assert len(list(first.path.parent.glob("*.damaged-?"))) == 1


@pytest.mark.slow
def test_four_processes_share_a_store(tmp_path: Path) -> None:
    script = """
import random
numbers = list(range(200))
random.Random(rest[0]).shuffle(numbers)
print("ready", flush=True)
sys.stdin.readline()
with open_store(root) as store:
    for start in range(0, 200, 8):
        part = numbers[start:start + 8]
        store.put(items([part[at] for at in store.missing(keys(part))]))
        got, absent = store.get(keys(part))
        assert absent.size == 0 and (got == vectors(part)).all()
"""
    writers = [child(script, tmp_path, n) for n in range(4)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        finish(writer)
    assert sorted(p.name for p in (tmp_path / "features").iterdir()) == [".lock", NAME]
    with open_store(tmp_path) as store:
        assert len(store) == 200
        np.testing.assert_array_equal(store.get(keys(range(200)))[0], vectors(range(200)))


@pytest.mark.slow
def test_killed_at_any_moment_it_keeps_what_was_committed(tmp_path: Path) -> None:
    script = """
with open_store(root) as store:
    for start in range(int(rest[0]), 100_000, 16):
        store.put(items(range(start, start + 16)))
        print(start + 16, flush=True)
"""
    clock, committed = random.Random(1), 0
    for _ in range(10):
        process = child(script, tmp_path, committed)
        assert process.stdout is not None
        process.stdout.readline()
        killer = threading.Timer(clock.uniform(0, 0.1), process.kill)
        killer.start()
        with process:  # waits, and closes its pipes
            out = process.stdout.read()  # not communicate: it misses the lines that readline has buffered
        killer.join()
        assert process.returncode == -9
        reported = [int(line) for line in out.split("\n")[:-1]]
        committed = max([committed + 16, *reported])
        with open_store(tmp_path) as store:
            count = len(store)
            # The last commit may have been killed before it was told.
            assert count in (committed, committed + 16)
            got, absent = store.get(keys(range(count)))
            assert absent.size == 0
            assert store.set_aside is None
        np.testing.assert_array_equal(got, vectors(range(count)))
        committed = count
    assert committed >= 160
