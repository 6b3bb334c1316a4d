"""Converted graphs are kept once, checked at each use, and made again when damaged. No framework is needed for it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from exact import in_f32
from topwork.backbones import kept as collection
from topwork.backbones.conversion.kept import Converted, converted, list_conversions
from topwork.errors import InputError, TopworkError

KEY = ("keras:Tiny", "8")


def write(folder: Path, factor: float = 2.0) -> Converted:
    image = op.parameter([1, 8, 8, 3], ov.Type.f32, name="image")
    mean = op.reduce_mean(image, op.constant(np.array([1, 2])), False)
    kernel = op.constant(np.full((3, 40), factor, np.float32))
    ov.save_model(ov.Model([op.matmul(mean, kernel, False, False)], [image]), folder / "graph.xml", False)
    return Converted(folder / "graph.xml", 8, True, "[0, 1]", 40, ("a note",), runs_code=True)


class Maker:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self, folder: Path) -> Converted:
        self.times += 1
        return write(folder)


def listing(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_module_is_converted_once(tmp_path: Path) -> None:
    make = Maker()
    first, second = (converted(KEY, make, root=tmp_path) for _ in range(2))
    assert make.times == 1
    assert first == second == Converted(first.graph, 8, True, "[0, 1]", 40, ("a note",), runs_code=True)
    assert first.graph.name == "graph.xml"
    assert first.graph.parent.parent == tmp_path / "converted"
    assert {path.name for path in first.graph.parent.iterdir()} == {"graph.xml", "graph.bin", "record.json"}
    found = in_f32(first.graph)(np.full((1, 8, 8, 3), 0.5, np.float32))[0]
    np.testing.assert_allclose(found, np.full((1, 40), 3.0), rtol=1e-6)


def test_another_key_is_another_graph(tmp_path: Path) -> None:
    make = Maker()
    paths = {
        converted(key, make, root=tmp_path).graph for key in (KEY, ("keras:Tiny", "9"), ("keras:Tiny8",))
    }
    assert len(paths) == make.times == 3


def test_the_usual_place_is_the_cache(cache: Path) -> None:
    assert converted(KEY, write).graph.is_relative_to(cache / "converted")


def flip(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)

    return damage


def other_width(folder: Path) -> None:
    plain = json.loads((folder / "record.json").read_text())
    plain["facts"]["width"] = 41
    (folder / "record.json").write_text(json.dumps(plain))


def emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("in the way")


@pytest.mark.parametrize(
    "damage",
    [
        flip("graph.bin"),
        flip("graph.xml"),
        flip("record.json"),
        other_width,
        lambda folder: (folder / "graph.bin").write_bytes(b""),
        lambda folder: (folder / "graph.bin").unlink(),
        lambda folder: (folder / "record.json").write_text("[]"),
        emptied,
        shutil.rmtree,
        a_file,
    ],
)
def test_what_is_damaged_is_converted_again(damage: Callable[[Path], None], tmp_path: Path) -> None:
    make = Maker()
    first = converted(KEY, make, root=tmp_path)
    whole = (first.graph.parent / "graph.bin").read_bytes()
    damage(first.graph.parent)
    assert converted(KEY, make, root=tmp_path) == first
    assert make.times == 2
    assert (first.graph.parent / "graph.bin").read_bytes() == whole
    assert [path.name for path in (tmp_path / "converted").iterdir()] == [first.graph.parent.name]


def test_of_two_at_the_same_time_the_first_is_kept(tmp_path: Path) -> None:
    def slowly(folder: Path) -> Converted:
        converted(KEY, write, root=tmp_path)  # another process is done meanwhile
        return write(folder, factor=3.0)

    made = converted(KEY, slowly, root=tmp_path)
    kept = np.fromfile(made.graph.with_suffix(".bin"), np.float32)
    assert (kept == 2.0).any()
    assert not (kept == 3.0).any()
    assert len(list((tmp_path / "converted").iterdir())) == 1


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fails(folder: Path) -> Converted:
        write(folder)
        raise TopworkError("no")

    with pytest.raises(TopworkError, match=r"^no$"):
        converted(KEY, fails, root=tmp_path)
    assert listing(tmp_path) == ["converted"]


def test_what_a_killed_process_left_goes_after_a_day(tmp_path: Path) -> None:
    for name, hours in (("old-x.part", 25), ("new-x.part", 1)):
        (tmp_path / "converted" / name).mkdir(parents=True)
        then = time.time() - hours * 3600
        os.utime(tmp_path / "converted" / name, (then, then))
    made = converted(KEY, write, root=tmp_path)
    assert {path.name for path in (tmp_path / "converted").iterdir()} == {
        "new-x.part",
        made.graph.parent.name,
    }


def test_a_cache_that_cant_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "converted").write_text("a file")
    with pytest.raises(
        TopworkError, match=r"can't keep the converted graph in .*converted: .*; make room there, or"
    ):
        converted(KEY, write, root=tmp_path)


def test_conversions_are_listed_and_removed_by_their_modules(cache: Path) -> None:
    for size in ("8", "9"):
        converted(("keras:Tiny", size), write, handle="keras:Tiny")
    converted(("keras:Other", "8"), write)  # by a version that kept no name
    kept = collection.kept_modules()
    unnamed, *named = list_conversions()
    assert [one.handle for one in kept] == [unnamed.handle, "keras:Tiny", "keras:Tiny"]
    assert unnamed.handle.startswith("converted:")
    assert all(one.size_bytes > 160 for one in kept)
    with pytest.raises(
        InputError, match=r"keras:Small: no such module is kept. Known: converted:.*, keras:Tiny"
    ):
        collection.remove("keras:Small")
    assert collection.remove("keras:Tiny") == sum(one.size_bytes for one in named)
    assert [one.handle for one in collection.kept_modules()] == [unnamed.handle]
    assert collection.remove(unnamed.handle) == unnamed.size_bytes
    assert not listing(cache / "converted")
