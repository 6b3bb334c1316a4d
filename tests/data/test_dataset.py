"""`Dataset`: the algebra of take, skip, shard, shuffle and concatenate; what its making refuses."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topwork.data.dataset import Dataset, Example, FileImage, Problem, class_names, readable
from topwork.errors import InputError


def letters(n: int, *, first: int = 0) -> Dataset:
    labels = "abc"
    examples = [Example(f"{i:04}", FileImage(f"{i}.jpg"), labels[i % 3]) for i in range(first, first + n)]
    return Dataset(tuple(examples), ("a", "b", "c"), "letters", (Problem("x.txt", "not an image"),))


def ids(dataset: Dataset) -> list[str]:
    return [e.id for e in dataset]


def tf_take(items: list[str], count: int) -> list[str]:
    """As tf.data's TakeDataset iterates: `while count < 0 or i < count`."""
    taken = []
    for i, item in enumerate(items):
        if not (count < 0 or i < count):
            break
        taken.append(item)
    return taken


def tf_skip(items: list[str], count: int) -> list[str]:
    """As tf.data's SkipDataset: nothing for a negative count, else without the first `count`."""
    return [] if count < 0 else list(itertools.islice(items, count, None))


sizes = st.integers(0, 40)
counts = st.integers(-5, 60)


@settings(deadline=None)
@given(sizes, counts)
def test_take_and_skip_are_those_of_tf_data(n, count):
    d = letters(n)
    assert ids(d.take(count)) == tf_take(ids(d), count)
    assert ids(d.skip(count)) == tf_skip(ids(d), count)


def test_take_and_skip_at_the_edges():
    d = letters(5)
    # The table in tf.data's documentation, by hand.
    assert [len(d.take(n)) for n in (-2, -1, 0, 1, 5, 6)] == [5, 5, 0, 1, 5, 5]
    assert [len(d.skip(n)) for n in (-2, -1, 0, 1, 5, 6)] == [0, 0, 5, 4, 0, 0]
    assert ids(d.take(np.int64(2))) == ["0000", "0001"]


@settings(deadline=None)
@given(sizes, st.integers(0, 60), st.integers(0, 60))
def test_take_skip_and_take_part_a_dataset(n, a, b):
    d = letters(n)
    parts = [d.take(a), d.skip(a).take(b), d.skip(a + b)]
    assert [x for part in parts for x in ids(part)] == ids(d)
    assert ids(d.skip(a).skip(b)) == ids(d.skip(a + b))
    assert ids(d.take(a).take(b)) == ids(d.take(min(a, b)))


@settings(deadline=None)
@given(sizes, st.integers(1, 7))
def test_shards_are_every_nth_and_cover_all(n, shards):
    d = letters(n)
    parts = [ids(d.shard(shards, i)) for i in range(shards)]
    assert parts == [[x for j, x in enumerate(ids(d)) if j % shards == i] for i in range(shards)]


@settings(deadline=None)
@given(sizes, st.integers(0, 2**40))
def test_shuffle_is_a_permutation_that_the_seed_decides(n, seed):
    d = letters(n)
    before = ids(d)
    once = d.shuffle(seed)
    assert ids(once) == ids(d.shuffle(seed))
    assert sorted(ids(once)) == before == ids(d)


def test_shuffle_follows_numpys_generator():
    order = np.random.Generator(np.random.PCG64(7)).permutation(20)
    assert ids(letters(20).shuffle(7)) == [f"{i:04}" for i in order]
    assert ids(letters(20).shuffle(7)) != ids(letters(20).shuffle(8))


def test_subsets_keep_classes_name_and_problems():
    d = letters(9)
    for part in (
        d.take(1),
        d.skip(8),
        d.shard(9, 0),
        d[2:3],
        d.filter(lambda e: e.label == "a"),
        d.select([4]),
    ):
        assert (part.classes, part.name, part.skipped) == (d.classes, d.name, d.skipped)
    assert d.take(1).class_counts() == {"a": 1, "b": 0, "c": 0}


def test_indexing_and_selecting():
    d = letters(6)
    assert d[0].id == "0000"
    assert d[-1] is d.examples[5]
    assert ids(d[1:6:2]) == ["0001", "0003", "0005"]
    assert ids(d.select(np.flatnonzero(d.targets() == 1))) == ["0001", "0004"]
    assert ids(d.select([3, 0])) == ["0003", "0000"]


def test_targets_weights_and_labels():
    d = Dataset(
        (
            Example("1", FileImage("1"), "dog", weight=2),
            Example("2", FileImage("2")),
            Example("3", FileImage("3"), "cat", weight=0.5),
        ),
        ("cat", "dog"),
        "pets",
    )
    assert d.labels() == ["dog", None, "cat"]
    assert d.targets().tolist() == [1, -1, 0]
    assert d.targets().dtype == np.int64
    assert d.weights().tolist() == [2.0, 1.0, 0.5]
    assert d.weights().dtype == np.float64
    assert d.class_counts() == {"cat": 1, "dog": 1}
    assert class_names(d) == ("cat", "dog")
    assert repr(d) == "Dataset('pets': 3 examples, 2 classes)"


def test_concatenate_joins_classes_and_problems():
    one = letters(3)
    other = Dataset((Example("z", FileImage("z"), "zebra"),), ("zebra",), "zoo", one.skipped)
    both = one.concatenate(other)
    assert both.classes == ("a", "b", "c", "zebra")
    assert ids(both) == ["0000", "0001", "0002", "z"]
    assert both.name == "letters + zoo"
    assert both.skipped == one.skipped
    assert both.targets().tolist() == [0, 1, 2, 3]


def test_with_split_and_without():
    d = letters(3).with_split("test")
    assert {e.split for e in d} == {"test"}
    assert d.with_split(None) == letters(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.take(True), "`n` must be a whole number; got True"),
        (lambda d: d.skip(1.0), "`n` must be a whole number; got 1.0"),
        (lambda d: d.shard(0, 0), "`num_shards` must be at least 1; got 0"),
        (lambda d: d.shard(3, 3), "`index` must be from 0 to 2 (below `num_shards`); got 3"),
        (lambda d: d.shard(3, -1), "`index` must be from 0 to 2 (below `num_shards`); got -1"),
        (lambda d: d.shuffle(-1), "`seed` must be 0 or more; got -1"),
        (lambda d: d.select([0, 9]), "`indices` must be from 0 to 3; got 0 to 9"),
        (lambda d: d.select([2, 2]), "`indices` must not repeat; got 2 twice"),
        (lambda d: d.with_split("tets"), "unknown split 'tets'; did you mean 'test'?"),
        (lambda d: d.concatenate(d), "example ids must be unique; got '0000' twice in 'letters'"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call(letters(4))


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (Example("1", FileImage("1"), "cta"), "example '1' in 'd': unknown class 'cta'; did you mean 'cat'?"),
        (
            Example("1", FileImage("1"), weight=0.0),
            "'1' in 'd': weight must be finite and above 0; got 0.0",
        ),
        (Example("1", FileImage("1"), weight=float("nan")), "weight must be finite and above 0; got nan"),
        (Example("1", FileImage("1"), weight=float("inf")), "weight must be finite and above 0; got inf"),
        (Example("1", FileImage("1"), split="val"), "example '1' in 'd': unknown split 'val'"),
    ],
)
def test_wrong_examples_are_named(example, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Dataset((example,), ("cat", "dog"), "d")


@pytest.mark.parametrize("classes", [("b", "a"), ("a", "a"), ("",)])
def test_classes_are_distinct_and_sorted(classes):
    with pytest.raises(InputError, match="`classes` must be distinct names in sorted order; got "):
        Dataset((), classes, "d")


def test_a_file_image_reads_its_bytes_and_shows_any_name(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"bytes")
    assert FileImage(str(path)).read() == b"bytes"
    assert str(FileImage(os.fsdecode(b"caf\xe9.jpg"))) == readable("caf\udce9.jpg") == "caf\\xe9.jpg"
    with pytest.raises(OSError):
        FileImage(str(tmp_path / "b.jpg")).read()


def test_a_hundred_thousand_examples_are_light():
    d = letters(100_000)
    start = time.perf_counter()
    for n in range(200):  # a prefix copies pointers: no check runs again
        d.take(1000 + n).skip(n)
    d.shuffle(0).shard(2, 1).targets()
    d.take(50_000).concatenate(d.skip(50_000))
    assert time.perf_counter() - start < 5  # quadratic would be minutes


def test_data_imports_nothing_heavy():
    code = (
        "import sys, topwork.data.sources, topwork.data.split; "
        "print({'numpy', 'PIL', 'pyarrow', 'scipy', 'openvino'} & {m.split('.')[0] for m in sys.modules})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
