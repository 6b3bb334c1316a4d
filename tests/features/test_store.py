"""The feature store as its callers know it; `test_store_faults.py` has the faults."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store_rows import FINGERPRINT, NAME, WIDTH, items, key, keys, open_store, vector, vectors
from topwork.backbones.half import rounded
from topwork.errors import InputError, TopworkError
from topwork.features.store import Store


def test_vectors_come_back_in_the_order_asked(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.put(items([1, 2, 3]))
        got, absent = store.get(keys([3, 1, 3, 9, 2]))
        assert got.dtype == np.float32
        assert absent.tolist() == [3]
        np.testing.assert_array_equal(got[[0, 1, 2, 4]], vectors([3, 1, 3, 2]))
        assert np.isnan(got[3]).all()
        assert store.missing(keys([7, 1, 9])).tolist() == [0, 2]
        assert len(store) == 3
        assert key(2) in store
        assert key(4) not in store
        assert store.set_aside is None
    assert [p.name for p in (tmp_path / "features").iterdir() if p.suffix != ""] == [NAME]
    with open_store(tmp_path) as store:
        np.testing.assert_array_equal(store.get(keys([2]))[0], vectors([2]))


def test_nothing_asked_nothing_given(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.put([])
        got, absent = store.get([])
        assert got.shape == (0, WIDTH)
        assert absent.size == store.missing([]).size == len(store) == 0


def test_columns_are_joined_in_their_order(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.put(items(range(4)))
        got, _ = store.get(keys(range(4)), [slice(600, None), slice(0, 5), slice(3, 6)])
        whole = vectors(range(4))
        np.testing.assert_array_equal(got, np.hstack([whole[:, 600:], whole[:, :5], whole[:, 3:6]]))
        for bad in (slice(5, 5), slice(0, 10, 2), slice(0, WIDTH + 1)):
            with pytest.raises(InputError, match=r"`columns` must be .* of 0:700 with step 1; got"):
                store.get(keys([1]), [bad])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["put", "ask"]), st.lists(st.integers(0, 12), max_size=8))))
def test_store_is_a_dictionary(tmp_path_factory: pytest.TempPathFactory, steps: list) -> None:
    known: set[int] = set()
    with open_store(tmp_path_factory.mktemp("dictionary")) as store:
        for verb, numbers in steps:
            if verb == "put":
                store.put(items(numbers))
                known |= set(numbers)
            absent = [at for at, i in enumerate(numbers) if i not in known]
            assert store.missing(keys(numbers)).tolist() == absent
            assert store.get(keys(numbers))[1].tolist() == absent
            assert len(store) == len(known)


@pytest.mark.parametrize("half", [False, True])
def test_float64_and_strided_vectors_are_stored_as_float32_or_half(tmp_path: Path, half: bool) -> None:
    wide = np.linspace(-3, 1000, 2 * WIDTH)
    with Store.open(FINGERPRINT, WIDTH, half=half, root=tmp_path) as store:
        store.put([(key(0), wide[::2])])
        given = wide[::2].astype(np.float32)
        got = store.get([key(0)])[0][0]
        np.testing.assert_array_equal(got, rounded(given) if half else given)
        assert half == (not np.array_equal(got, given))


def test_a_store_of_the_other_precision_is_not_taken_for_its_own(tmp_path: Path) -> None:
    with Store.open(FINGERPRINT, WIDTH, root=tmp_path) as store:
        store.put(items([1]))
    with open_store(tmp_path) as store:
        assert store.set_aside is not None
        assert len(store) == 0


def test_prefixes_tell_what_may_be_there(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        assert store.prefixes().size == 0
        store.put(items(range(50)))
        prefixes = store.prefixes()
        known = sorted(np.frombuffer(key(i)[:8], np.uint64)[0] for i in range(50))
        assert prefixes.tolist() == known
        assert store._connection is not None
        for odd in ("text, not a key: ä", b"short", 7):  # as in a damaged record
            store._connection.execute(
                "INSERT INTO features (key, checksum, vector) VALUES (?, 0, x'')", (odd,)
            )
        assert store.prefixes().tolist() == known


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_what_is_not_finite_is_never_stored(tmp_path: Path, bad: float) -> None:
    poisoned = vector(1).astype(np.float64)
    poisoned[5] = bad
    with open_store(tmp_path) as store:
        with pytest.raises(TopworkError, match=f"NaN or infinity for the image .* {key(1).hex()[:12]}…"):
            store.put([*items([0]), (key(1), poisoned)])
        assert len(store) == 0


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        with pytest.raises(InputError, match=r"must have shape \(700,\); got \(699,\)"):
            store.put([(key(0), vector(0)[1:])])
        with pytest.raises(InputError, match=r"must have shape \(700,\); got \(1, 700\)"):
            store.put([(key(0), vector(0)[None])])
        for use in (store.get, store.missing):
            with pytest.raises(InputError, match=r"must be the 32 bytes of a SHA-256; got b'abc'"):
                use([b"abc"])
    with pytest.raises(TopworkError, match="is closed; open it again"):
        len(store)
    with pytest.raises(InputError, match=r"8 to 128 lower-case hex digits; got '\.\./etc'"):
        Store.open("../etc", 3, root=tmp_path)
    with pytest.raises(InputError, match="`width` must be a positive int; got 0"):
        Store.open(FINGERPRINT, 0, root=tmp_path)


def test_root_defaults_to_the_chosen_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "chosen"))
    with Store.open(FINGERPRINT, 3) as store:
        assert store.path == tmp_path / "chosen" / "features" / NAME


def test_threads_take_turns(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:

        def put(first: int) -> None:
            for i in range(first, 40, 4):
                store.put(items([i]))

        threads = [threading.Thread(target=put, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        np.testing.assert_array_equal(store.get(keys(range(40)))[0], vectors(range(40)))


def test_log_does_not_grow_without_bound(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        for start in range(0, 20_000, 500):  # 56 MB
            block = np.zeros((500, WIDTH), np.float32)
            store.put([(key(start + i), row) for i, row in enumerate(block)])
        log = Path(f"{store.path}-wal").stat().st_size
    assert log < 32e6
    assert not Path(f"{store.path}-wal").exists()
