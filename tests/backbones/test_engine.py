"""The engine: features that depend on the image alone; a stream in order, bounded, that ends cleanly."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from photos import finished, start_python
from topwork.backbones.backbone import Backbone, load_backbone
from topwork.backbones.engine import Engine
from topwork.parallel import AHEAD, core_count, stream

SIDE = 64


@pytest.fixture(params=["f32", "bf16"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    if request.param == "bf16":
        request.getfixturevalue("bf16_processor")
    return load_backbone("efficientnet-lite0", size_px=SIDE, precision=request.param)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (24, SIDE, SIDE, 3), dtype=np.uint8)


def _all(engine: Engine, pictures: Any, *, workers: int | None = None) -> np.ndarray[Any, Any]:
    return np.stack(list(stream(engine, pictures, workers=workers or engine.workers)))


# --- features ---------------------------------------------------------------------------------------------


def test_a_features_bits_do_not_depend_on_neighbours_order_workers_or_time(
    backbone: Backbone, pictures: Any
) -> None:
    engine = Engine(backbone, workers=1)
    alone = np.stack([engine(picture) for picture in pictures])
    assert (alone.dtype, alone.shape) == (np.float32, (24, backbone.facts.width))
    assert len(np.unique(alone, axis=0)) == 24
    order = np.random.default_rng(1).permutation(24)
    for workers in (1, 2, 4):
        other = Engine(backbone, workers=workers)
        np.testing.assert_array_equal(_all(other, pictures), alone)
        np.testing.assert_array_equal(_all(other, pictures[order]), alone[order])
        np.testing.assert_array_equal(_all(other, pictures[5:7]), alone[5:7])
        np.testing.assert_array_equal(other(pictures[3]), alone[3])


def test_many_threads_may_call_one_engine_even_at_first(backbone: Backbone, pictures: Any) -> None:
    alone = np.stack([Engine(backbone, workers=1)(picture) for picture in pictures[:3]])
    engine = Engine(backbone, workers=2)
    gate = threading.Barrier(8)

    def work(number: int) -> np.ndarray[Any, Any]:
        gate.wait()
        return np.stack([engine(pictures[(number + i) % 3]) for i in range(6)])

    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(work, range(8))):
            np.testing.assert_array_equal(found, alone[[(number + i) % 3 for i in range(6)]])


def test_a_vector_stays_when_the_next_is_computed(backbone: Backbone, pictures: Any) -> None:
    engine = Engine(backbone, workers=1)
    first = engine(pictures[0])
    kept = first.copy()
    engine(pictures[1])
    np.testing.assert_array_equal(first, kept)


def test_pixels_that_do_not_lie_in_a_row_give_the_same(backbone: Backbone, pictures: Any) -> None:
    engine = Engine(backbone, workers=1)
    mirrored = pictures[0][:, ::-1]
    np.testing.assert_array_equal(engine(mirrored), engine(np.ascontiguousarray(mirrored)))


def test_workers_are_the_cores_unless_told(backbone: Backbone) -> None:
    assert Engine(backbone).workers == core_count() >= 1
    assert Engine(backbone, workers=3).workers == 3


# --- stream -----------------------------------------------------------------------------------------------


def _workers_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("topwork")]


class _Counted:
    """Numbers from 0 on, without end; `read` tells how many were asked for."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[int]:
        for number in itertools.count():
            self.read += 1
            yield number


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_results_come_in_the_order_of_the_items(workers: int, count: int) -> None:
    def work(number: int) -> int:
        time.sleep(0.002 * (number % 3 == 0))  # the first of each three is overtaken
        return number * number

    assert list(stream(work, range(count), workers=workers)) == [n * n for n in range(count)]
    assert _workers_left() == []


def test_several_at_once() -> None:
    gate = threading.Barrier(3)  # passes only when three workers are inside
    assert list(stream(lambda _: gate.wait(10) >= 0, range(6), workers=3)) == [True] * 6


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_reads_only_a_little_ahead_of_what_is_taken_even_without_end(workers: int) -> None:
    items = _Counted()
    with closing(stream(lambda n: n, items, workers=workers)) as results:
        assert items.read == 0  # nothing before the first is asked for
        for taken, result in enumerate(itertools.islice(results, 200), start=1):
            assert result == taken - 1
            assert items.read < taken + AHEAD * workers
    assert items.read < 200 + AHEAD * workers
    assert _workers_left() == []


def test_an_error_of_the_work_comes_at_its_place_and_ends_all() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 5:
            raise RuntimeError("the sixth")
        return number

    taken: list[int] = []
    with pytest.raises(RuntimeError, match="the sixth"):
        taken.extend(stream(work, _Counted(), workers=2))
    assert taken == [0, 1, 2, 3, 4]
    assert max(begun) < 5 + 1 + AHEAD * 2
    assert _workers_left() == []


def test_an_error_of_the_items_ends_all() -> None:
    def items() -> Iterator[int]:
        yield from range(20)
        raise OSError("the archive broke off")

    with pytest.raises(OSError, match="the archive broke off"):
        list(stream(lambda n: n, items(), workers=2))
    assert _workers_left() == []


def test_stopping_early_runs_none_of_what_has_not_begun() -> None:
    gate = threading.Event()
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number:
            gate.wait(10)
        return number

    results = stream(work, _Counted(), workers=2)
    assert next(results) == 0
    while len(begun) < 3:  # both workers are now held, the rest waits
        time.sleep(0.001)
    closer = threading.Thread(target=results.close)
    closer.start()
    time.sleep(0.05)  # long enough for the rest to be called off; it was, if `begun` stays as it is
    gate.set()
    closer.join(10)
    assert not closer.is_alive()
    assert sorted(begun) == [0, 1, 2]
    assert _workers_left() == []


def test_an_abandoned_stream_leaves_no_thread() -> None:
    results = stream(lambda n: n, _Counted(), workers=2)
    next(results)
    del results
    assert _workers_left() == []


def test_two_threads_may_compile_the_first_networks() -> None:
    """OpenVINO's table of types, first asked for by two threads at once, would hang both for good."""
    code = (
        "import sys, threading\nfrom topwork.backbones.backbone import load_backbone\n"
        "from topwork.backbones.engine import Engine\n"
        "import numpy as np\nsys.setswitchinterval(1e-6)\n"
        "networks = [load_backbone('efficientnet-lite0', size_px=32, precision='f32') for _ in range(2)]\n"
        "picture = np.zeros((32, 32, 3), np.uint8)\n"
        "threads = [threading.Thread(target=Engine(n), args=(picture,)) for n in networks]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()"
    )
    assert finished(start_python(code)) == (0, "", "")
