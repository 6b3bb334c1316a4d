"""What is remembered: taken where nothing changed, computed where anything did, and never wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from topwork.storage import results
from topwork.storage.cache import clear, info
from topwork.storage.results import remembered


class Counted:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return {"x": np.arange(3) / 7, "names": np.array(["a", "b"])}


def same(found: dict[str, np.ndarray]) -> bool:
    return np.array_equal(found["x"], np.arange(3) / 7) and found["names"].tolist() == ["a", "b"]


def test_it_is_computed_once_for_the_same_parts(cache: Path) -> None:
    compute = Counted()
    for _ in range(3):
        assert same(remembered("it", ("a", b"b"), compute))
    assert compute.calls == 1
    for parts in (("a",), ("ab",), ("b", "a"), ("a", b"b", "")):
        assert same(remembered("it", parts, compute))
    assert compute.calls == 5
    remembered("other", ("a", b"b"), compute)
    assert compute.calls == 6


@pytest.mark.parametrize("at", [0, 40, -30, None])
def test_a_damaged_file_is_computed_again(cache: Path, at: int | None) -> None:
    compute = Counted()
    remembered("it", ("a",), compute)
    (path,) = (cache / results.FOLDER).iterdir()
    data = bytearray(path.read_bytes())
    if at is None:
        data = data[:50]
    else:
        data[at] ^= 0xFF
    path.write_bytes(bytes(data))
    assert same(remembered("it", ("a",), compute))
    assert same(remembered("it", ("a",), compute))
    assert compute.calls == 2


def test_every_flipped_byte_gives_what_was_computed(cache: Path) -> None:
    compute = Counted()
    remembered("it", ("a",), compute)
    (path,) = (cache / results.FOLDER).iterdir()
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        assert same(remembered("it", ("a",), compute)), place


def test_where_nothing_can_be_written_it_is_computed(cache: Path) -> None:
    cache.mkdir()
    (cache / results.FOLDER).write_text("a file where the folder should be")
    compute = Counted()
    for _ in range(2):
        assert same(remembered("it", ("a",), compute))
    assert compute.calls == 2


def test_old_ones_go_and_clear_takes_all(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "KEPT", 4)
    for number in range(9):
        remembered("it", (str(number),), Counted())
    assert len(list((cache / results.FOLDER).iterdir())) == 4
    assert info().folder_bytes[results.FOLDER] > 0
    assert clear() > 0
    assert not list((cache / results.FOLDER).iterdir())
