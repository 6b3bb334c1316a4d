"""The training pictures nearest to a picture: which are kept, and which are nearest."""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import pytest

from topwork.classifiers.neighbours import (
    AXES,
    KEPT,
    NEIGHBOURS,
    Neighbours,
    load_neighbours,
    make_neighbours,
)
from topwork.errors import InputError
from topwork.jobs.train import Run


def _made(
    rows: int, width: int, *, classes: int = 3, seed: int = 0
) -> tuple[Neighbours, np.ndarray, list[str]]:
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, width)).astype(np.float32)
    labels = [f"class {i % classes}" for i in range(rows)]
    keys = [random.bytes(32) for _ in range(rows)]
    columns = np.arange(5, 5 + width)
    return make_neighbours(features, columns, labels, keys, lambda row: b"%d" % row), features, labels


def _whole(features: np.ndarray) -> np.ndarray:
    """All of a picture's features: five of another block before those that count."""
    return np.concatenate([np.full(5, 9, np.float32), features])


@pytest.mark.parametrize(("rows", "width"), [(30, 8), (40, 100)])
def test_nearest_by_the_cosine(rows: int, width: int) -> None:
    """Where there are fewer axes than 64, nothing is lost: the cosine is that of the centred rows themselves."""
    made, features, labels = _made(rows, width)
    rooted = np.sign(features.astype(np.float64)) * np.sqrt(np.abs(features))
    rooted /= np.linalg.norm(rooted, axis=1, keepdims=True)
    centred = rooted - rooted.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    for row in range(0, rows, 7):
        found = made.nearest(_whole(features[row]), 5)
        cosine = centred @ centred[row]
        order = np.argsort(-cosine)[:5]
        assert [int(n.thumbnail) for n in found] == order.tolist()
        assert [n.label for n in found] == [labels[i] for i in order]
        assert [n.similarity for n in found] == pytest.approx(cosine[order], abs=1e-3)


def test_as_many_of_each_class_and_always_the_same() -> None:
    made, _, _ = _made(900, 70)
    counts = collections.Counter(made.labels)
    assert len(made.labels) <= KEPT
    assert set(counts.values()) == {KEPT // 3}
    assert made.axes.shape == (70, AXES)
    again, _, _ = _made(900, 70)
    assert again.thumbnails == made.thumbnails


def test_written_and_read_again(tmp_path: Path) -> None:
    made, features, _ = _made(30, 8)
    assert load_neighbours(tmp_path) is None
    made.save(tmp_path / NEIGHBOURS)
    read = load_neighbours(tmp_path)
    assert read is not None
    for row in range(30):
        one, other = made.nearest(_whole(features[row])), read.nearest(_whole(features[row]))
        assert [n.thumbnail for n in one] == [n.thumbnail for n in other]
        assert [n.similarity for n in one] == pytest.approx([n.similarity for n in other], abs=2e-3)


def test_a_damaged_file_is_told(run: Run, tmp_path: Path) -> None:
    whole = (run.path / NEIGHBOURS).read_bytes()
    assert load_neighbours(run.path) is not None
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / NEIGHBOURS).write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"damaged .*delete it, nothing else needs it"):
            load_neighbours(tmp_path)
