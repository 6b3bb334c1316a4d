"""`.safetensors` files against bytes laid out by hand, against the library that defines them, and damaged ones."""

from __future__ import annotations

import json
import re
import struct
import tracemalloc
from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from topwork.backbones.weights.network import Weights
from topwork.backbones.weights.safetensors import DTYPES, read_tensors
from topwork.errors import InputError
from weight_files import laid_out, safetensors_bytes

# Of each type, two numbers and their bytes by hand: IEEE 754 and two's complement, little-endian.
BY_HAND: dict[str, tuple[list[float], str]] = {
    "F64": ([1.5, -2.0], "000000000000f83f 00000000000000c0"),
    "F32": ([1.5, -2.0], "0000c03f 000000c0"),
    "F16": ([1.5, -2.0], "003e 00c0"),
    "BF16": ([1.5, -2.0], "c03f 00c0"),
    "I64": ([258, -2], "0201000000000000 feffffffffffffff"),
    "I32": ([258, -2], "02010000 feffffff"),
    "I16": ([258, -2], "0201 feff"),
    "I8": ([2, -2], "02 fe"),
    "U64": ([258, 2**63], "0201000000000000 0000000000000080"),
    "U32": ([258, 2**31], "02010000 00000080"),
    "U16": ([258, 2**15], "0201 0080"),
    "U8": ([2, 254], "02 fe"),
    "BOOL": ([1, 0], "01 00"),
}
SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def written(folder: Path, data: bytes, name: str = "model.safetensors") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_all_types_are_tested() -> None:
    assert set(BY_HAND) == set(DTYPES)


@pytest.mark.parametrize("dtype", BY_HAND)
def test_a_type_by_its_bytes(dtype: str, tmp_path: Path) -> None:
    numbers, stored = BY_HAND[dtype]
    data = bytes.fromhex(stored)
    some = [("one", dtype, (2,), data), ("two", dtype, (2, 1), data), ("none", dtype, (0, 3), b"")]
    single = ("single", dtype, (), data[: len(data) // 2])
    tensors = read_tensors(written(tmp_path, safetensors_bytes([*some, single], {"format": "pt"})))
    assert list(tensors) == ["one", "two", "none", "single"]
    assert len(tensors) == 4
    assert tensors["one"].tolist() == numbers
    assert tensors["two"].tolist() == [[number] for number in numbers]
    assert tensors["single"].tolist() == numbers[0]
    assert [tensors[name].shape for name in tensors] == [(2,), (2, 1), (0, 3), ()]
    assert [tensors.shape(name) for name in tensors] == [(2,), (2, 1), (0, 3), ()]
    assert {tensors.dtype(name) for name in tensors} == {dtype}
    kinds = {tensors[name].dtype for name in tensors}
    assert kinds == ({np.dtype(np.float32)} if "F" in dtype else {np.dtype(DTYPES[dtype])})


def test_tensors_below_a_prefix(tmp_path: Path) -> None:
    stored = [(name, "U8", (1,), bytes([i])) for i, name in enumerate(("a.x", "a.b.x", "ab.x", "x"))]
    tensors = read_tensors(written(tmp_path, safetensors_bytes(stored)))
    assert {name: value.tolist() for name, value in tensors.below("a.").items()} == {"x": [0], "b.x": [1]}
    assert len(tensors.below("c.")) == 0
    assert "a.x" in tensors
    assert "c.x" not in tensors
    with pytest.raises(KeyError):
        tensors["c.x"]


def by_halves(bits: int) -> float:
    """A half-precision number by its definition: sign, five bits of exponent, ten of fraction."""
    sign, exponent, fraction = (-1) ** (bits >> 15), bits >> 10 & 31, bits & 1023
    if exponent == 31:
        return sign * np.inf if fraction == 0 else np.nan
    if exponent == 0:
        return sign * float(Fraction(fraction, 2**24))
    return sign * float(Fraction(1024 + fraction) * Fraction(2) ** (exponent - 25))


def test_every_half_precision_number_is_exact(tmp_path: Path) -> None:
    bits = np.arange(2**16, dtype="<u2")
    tensors = read_tensors(
        written(tmp_path, safetensors_bytes([(t, t, (2**16,), bits.tobytes()) for t in ("F16", "BF16")]))
    )
    halves = tensors["F16"]
    expected = np.array([by_halves(int(b)) for b in bits])
    np.testing.assert_array_equal(halves, expected)
    assert (np.signbit(halves) == np.signbit(expected))[~np.isnan(expected)].all()
    # bfloat16 is the upper half of a float32
    expected = np.array([struct.unpack("<f", struct.pack("<HH", 0, int(b)))[0] for b in bits], np.float32)
    np.testing.assert_array_equal(tensors["BF16"], expected)


@SETTINGS
@given(values=arrays(np.float32, array_shapes(max_dims=4, max_side=4)))
def test_float32_comes_back_bit_by_bit(values: np.ndarray, tmp_path: Path) -> None:
    path = written(tmp_path, safetensors_bytes([("x", "F32", values.shape, values.astype("<f4").tobytes())]))
    assert read_tensors(path)["x"].tobytes() == values.tobytes()


@SETTINGS
@given(values=arrays(np.float64, array_shapes(max_dims=3, max_side=4)))
def test_float64_is_rounded_to_the_nearest(values: np.ndarray, tmp_path: Path) -> None:
    path = written(tmp_path, safetensors_bytes([("x", "F64", values.shape, values.astype("<f8").tobytes())]))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(read_tensors(path)["x"], values.astype(np.float32))


DTYPE = st.sampled_from(sorted(DTYPES))


@SETTINGS
@given(
    kinds=st.lists(st.tuples(DTYPE, st.lists(st.integers(0, 3), max_size=4)), max_size=6),
    names=st.lists(st.text(max_size=20), min_size=6, max_size=6, unique=True),
    seed=st.integers(0, 2**32),
)
def test_what_the_library_writes_and_reads(
    kinds: list[tuple[str, list[int]]], names: list[str], seed: int, tmp_path: Path
) -> None:
    """The library lays tensors out by itself, with padding in the header; and it reads what is laid out here."""
    library = pytest.importorskip("safetensors.numpy")
    random = np.random.default_rng(seed)
    tensors = {}
    for name, (dtype, shape) in zip(names, kinds, strict=False):
        if dtype == "BF16" or name == "__metadata__":  # NumPy has none
            continue
        kind = np.dtype("bool" if dtype == "BOOL" else DTYPES[dtype])
        tensors[name] = random.integers(0, 2 if dtype == "BOOL" else 100, shape).astype(kind)
    path = tmp_path / "model.safetensors"
    library.save_file(tensors, path, {"format": "np"})
    found = read_tensors(path)
    assert set(found) == set(tensors)
    for name, value in tensors.items():
        assert found[name].shape == value.shape
        np.testing.assert_array_equal(found[name], value)
    codes = {np.dtype(code): dtype for dtype, code in DTYPES.items() if dtype not in ("BF16", "BOOL")}
    stored = [
        (n, "BOOL" if v.dtype == bool else codes[v.dtype], v.shape, v.tobytes()) for n, v in tensors.items()
    ]
    again = library.load(safetensors_bytes(stored))
    assert set(again) == set(tensors)
    for name, value in tensors.items():
        np.testing.assert_array_equal(again[name], value)


# --- shards -------------------------------------------------------------------------------------------------

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def sharded(folder: Path, weight_map: Any, name: str = "model.safetensors.index.json") -> Path:
    written(folder, safetensors_bytes([("a", "U8", (1,), b"\x01"), ("b", "U8", (1,), b"\x02")]), SHARDS[0])
    written(folder, safetensors_bytes([("c", "U8", (1,), b"\x03"), ("b", "U8", (1,), b"\x04")]), SHARDS[1])
    path = folder / name
    path.write_text(json.dumps({"metadata": {"total_size": 3}, "weight_map": weight_map}))
    return path


def test_shards_by_their_index(tmp_path: Path) -> None:
    tensors = read_tensors(sharded(tmp_path, {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[1]}))
    assert {name: value.tolist() for name, value in tensors.items()} == {"a": [1], "b": [4], "c": [3]}
    tensors = read_tensors(sharded(tmp_path, {"b": SHARDS[0]}))
    assert {name: value.tolist() for name, value in tensors.items()} == {"b": [2]}


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "../model.safetensors"}, "expected a weight_map from tensors to files beside it"),
        ({"a": "/etc/model.safetensors"}, "expected a weight_map from tensors to files beside it"),
        ({"a": "sub/model.safetensors"}, "expected a weight_map from tensors to files beside it"),
        ({"a": ".."}, "expected a weight_map from tensors to files beside it"),
        ({"a": ""}, "expected a weight_map from tensors to files beside it"),
        ({"a": "model.onnx"}, "expected a weight_map from tensors to files beside it"),
        ({"a": 3}, "expected a weight_map from tensors to files beside it"),
        ({"a": [SHARDS[0]]}, "expected a weight_map from tensors to files beside it"),
        ({"a": None}, "expected a weight_map from tensors to files beside it"),
        ([SHARDS[0]], "expected a weight_map from tensors to files beside it"),
        (None, "expected a weight_map from tensors to files beside it"),
        ({"a": "gone.safetensors"}, "names gone.safetensors, which is not there: fetch it, too"),
        ({"a": "\0.safetensors"}, "which is not there: fetch it, too"),
        ({"a": "\ud800.safetensors"}, "which is not there: fetch it, too"),
        ({"a": "x" * 5000 + ".safetensors"}, "which is not there: fetch it, too"),
        ({"a": "\U0001f600" * 100 + ".safetensors"}, "which is not there: fetch it, too"),
        ({"a": SHARDS[1]}, "1 tensors are in none of its files, such as a"),
        ({"a": SHARDS[0], "d": SHARDS[0], "e": SHARDS[1]}, "2 tensors are in none of its files, such as d"),
    ],
)
def test_an_index_that_names_what_is_not_there(weight_map: Any, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "below"
    folder.mkdir()
    written(tmp_path, safetensors_bytes([("a", "U8", (1,), b"\x05")]))  # what ../ would reach
    (folder / "sub").mkdir()
    written(folder / "sub", safetensors_bytes([("a", "U8", (1,), b"\x05")]))
    with pytest.raises(InputError, match=re.escape(message)):
        read_tensors(sharded(folder, weight_map))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"weight_map": {"a": "x", "a": "x"}}']
)
def test_an_index_that_is_no_table(content: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, content, "model.safetensors.index.json")
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_tensors(path)


def test_a_shard_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = sharded(tmp_path, {"a": SHARDS[0], "c": SHARDS[1]})
    place = tmp_path / SHARDS[1]
    place.write_bytes(place.read_bytes()[:-1])
    with pytest.raises(
        InputError, match=re.escape(f"{place}: expected ") + r"\d+ bytes by its header; it has"
    ):
        read_tensors(path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_a_file_that_is_not_there_or_a_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=re.escape(f"{tmp_path / name} can't be read: No such file or directory")
    ):
        read_tensors(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / name} can't be read: Is a directory")):
        read_tensors(tmp_path / name)


# --- damaged and hostile files ------------------------------------------------------------------------------


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def nested(depth: int) -> bytes:
    return b'{"x":' * depth + b"1" + b"}" * depth


FORM = "expected dtype, shape and data_offsets for the tensor x"
FIT = "does not fit in bytes"
APART = "its tensors overlap, or bytes between them belong to none"
NO_JSON = "expected JSON; it can't be read ("
HOSTILE: dict[str, tuple[Any, bytes, str]] = {
    "a list": ([], b"", "its header is not a table of tensors"),
    "a number": (b"12", b"", "its header is not a table of tensors"),
    "no JSON": (b"{x}", b"", NO_JSON),
    "not UTF-8": (b'{"\xff": 1}', b"", NO_JSON),
    "UTF-16": ("{}".encode("utf-16"), b"", NO_JSON),
    "two values": (b"{} {}", b"", NO_JSON),
    "a name twice": (
        b'{"x": %b, "x": %b}' % ((json.dumps(entry()).encode(),) * 2),
        bytes(8),
        "a name stands twice",
    ),
    "a key twice": (b'{"x": {"dtype": "F32", "dtype": "F32"}}', bytes(8), "a name stands twice"),
    "deep": (nested(100_000), b"", NO_JSON),
    "deep lists": (b'{"x": ' + b"[" * 100_000, b"", NO_JSON),
    "a tensor that is text": ({"x": "F32"}, bytes(8), FORM),
    "a tensor that is null": ({"x": None}, bytes(8), FORM),
    "a tensor that is a list": ({"x": [1, 2, 3]}, bytes(8), FORM),
    "no dtype": ({"x": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8), FORM),
    "no shape": ({"x": {"dtype": "F32", "data_offsets": [0, 8]}}, bytes(8), FORM),
    "no offsets": ({"x": {"dtype": "F32", "shape": [2]}}, bytes(8), FORM),
    "a dtype of a list": ({"x": entry(["F32"])}, bytes(8), FORM),
    "a dtype of a table": ({"x": entry({})}, bytes(8), FORM),
    "a dtype of null": ({"x": entry(None)}, bytes(8), FORM),
    "an unknown dtype": (
        {"x": entry("F8_E4M3")},
        bytes(8),
        "x is stored as F8_E4M3; expected one of F64, F32, F16, ",
    ),
    "a dtype of small letters": (
        {"x": entry("f32")},
        bytes(8),
        "x is stored as f32; expected one of F64, F32, F16, ",
    ),
    "a shape of text": ({"x": entry(shape="2")}, bytes(8), FORM),
    "a shape of a number": ({"x": entry(shape=2)}, bytes(8), FORM),
    "a shape of a table": ({"x": entry(shape={"2": 2})}, bytes(8), FORM),
    "a shape of floats": ({"x": entry(shape=[2.0])}, bytes(8), FORM),
    "a shape of true": ({"x": entry(shape=[2, True])}, bytes(8), FORM),
    "a shape of null": ({"x": entry(shape=[None])}, bytes(8), FORM),
    "a shape of lists": ({"x": entry(shape=[[2]])}, bytes(8), FORM),
    "a negative side": ({"x": entry(shape=[-2])}, bytes(8), FORM),
    "two negative sides": ({"x": entry(shape=[-2, -1])}, bytes(8), FORM),
    "NaN": (b'{"x": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 8]}}', bytes(8), FORM),
    "Infinity": (b'{"x": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 8]}}', bytes(8), FORM),
    "a huge side": ({"x": entry(shape=[2**59])}, bytes(8), FIT),
    "a huger side": ({"x": entry(shape=[2**60])}, bytes(8), FORM),
    "a name of a million letters": ({"x" * 10**6: entry(offsets=[0, 4])}, bytes(4), FIT),
    "a name of two lines": (
        {"x\ny": entry(offsets=[0, 4])},
        bytes(4),
        r"'x\ny' [2] of F32 does not fit in bytes",
    ),
    "half a letter": ({"\ud800": entry(offsets=[0, 4])}, bytes(4), FIT),
    "a side beyond 64 bits": ({"x": entry(shape=[2**64 + 2])}, bytes(8), FORM),
    "sides that overflow to few": ({"x": entry(shape=[2**32, 2**32, 2])}, bytes(8), FORM),
    "huge offsets": (
        {"x": entry(shape=[2**59], offsets=[0, 2**61])},
        bytes(8),
        "bytes by its header; it has",
    ),
    "a number of 10,000 digits": (
        b'{"x": {"dtype": "F32", "shape": [1%b], "data_offsets": [0, 8]}}' % (b"0" * 10_000),
        bytes(8),
        NO_JSON,
    ),
    "a huge rank": ({"x": entry(shape=[1] * 100_000 + [2])}, bytes(8), FORM),
    "an empty tensor of a huge shape": ({"x": entry(shape=[0, 2**60, 2**60], offsets=[0, 0])}, b"", FORM),
    "one offset": ({"x": entry(offsets=[0])}, bytes(8), FORM),
    "three offsets": ({"x": entry(offsets=[0, 4, 8])}, bytes(8), FORM),
    "offsets of text": ({"x": entry(offsets="08")}, bytes(8), FORM),
    "offsets of floats": ({"x": entry(offsets=[0.0, 8.0])}, bytes(8), FORM),
    "offsets of false": ({"x": entry(offsets=[False, 8])}, bytes(8), FORM),
    "a negative offset": ({"x": entry(offsets=[-8, 0])}, bytes(8), FORM),
    "offsets back to front": ({"x": entry(offsets=[8, 0])}, bytes(8), FIT),
    "too few bytes": ({"x": entry(offsets=[0, 4])}, bytes(4), FIT),
    "too many bytes": ({"x": entry(offsets=[0, 12])}, bytes(12), FIT),
    "an overlap": ({"x": entry(), "y": entry(offsets=[4, 12])}, bytes(12), APART),
    "the same bytes twice": ({"x": entry(), "y": entry()}, bytes(8), APART),
    "a hole": ({"x": entry(), "y": entry(offsets=[12, 20])}, bytes(20), APART),
    "a hole at the start": ({"x": entry(offsets=[4, 12])}, bytes(12), APART),
    "an empty tensor inside another": (
        {"x": entry(), "y": entry(shape=[0], offsets=[4, 4])},
        bytes(8),
        APART,
    ),
    "bytes at the end": ({"x": entry()}, bytes(9), "bytes by its header; it has"),
    "bytes of no tensor": ({}, bytes(1), "bytes by its header; it has"),
    "beyond the end": ({"x": entry()}, bytes(7), "bytes by its header; it has"),
}


def refused(path: Path) -> str:
    """What is said of a file, with no more memory than a small file needs."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as told:
            read_tensors(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40_000_000, peak
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_is_not_of_the_format(kind: str, tmp_path: Path) -> None:
    header, data, message = HOSTILE[kind]
    path = written(tmp_path, laid_out(header, data))
    said = refused(path)
    assert message in said
    assert said.startswith(str(path))
    assert len(said) < len(str(path)) + 400


@pytest.mark.parametrize("length", [0, 1, 3, 2**20, 10**8, 10**8 + 1, 2**31, 2**63, 2**64 - 1])
def test_a_header_of_another_length(length: int, tmp_path: Path) -> None:
    path = written(tmp_path, laid_out({"x": entry()}, bytes(8), length=length))
    assert refused(path)


@pytest.mark.parametrize("size", range(11))
def test_files_of_a_few_bytes(size: int, tmp_path: Path) -> None:
    path = written(tmp_path, b"\x02\0\0\0\0\0\0\0{}"[:size])
    if size == 10:
        assert len(read_tensors(path)) == 0
    else:
        assert "expected a complete .safetensors file; its header would be " in refused(path)


def test_a_file_cut_anywhere_or_longer(tmp_path: Path) -> None:
    some = [("x", "F32", (2,), bytes(8)), ("y", "U8", (3,), bytes(3)), ("z", "F16", (0,), b"")]
    whole = safetensors_bytes(some, {"format": "pt"})
    assert len(read_tensors(written(tmp_path, whole))) == 3
    for size in range(len(whole)):
        assert refused(written(tmp_path, whole[:size]))
    assert refused(written(tmp_path, whole + b"\0"))


@SETTINGS
@given(data=st.data())
def test_a_changed_byte_is_refused_or_changes_no_more_than_names_and_numbers(
    data: st.DataObject, tmp_path: Path
) -> None:
    some = [("x", "F32", (2,), bytes(8)), ("y", "U8", (3, 1), bytes(3))]
    whole = bytearray(safetensors_bytes(some))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = written(tmp_path, bytes(whole))
    with suppress(InputError):
        tensors = read_tensors(path)
        assert sum(tensors[name].size for name in tensors) <= 11
        assert all(tensors[name].shape == tensors.shape(name) for name in tensors)


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-1, 9),
        st.integers(),
        st.floats(),
        st.sampled_from([*DTYPES, "", "x"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from("xyz"), inner)),
    max_leaves=8,
)
TENSOR = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.one_of(DTYPE, JSON),
            "shape": st.one_of(st.lists(st.integers(0, 4), max_size=3), JSON),
            "data_offsets": st.one_of(st.lists(st.integers(0, 16), min_size=2, max_size=2), JSON),
        },
    ),
)


@settings(SETTINGS, max_examples=400)
@given(
    header=st.one_of(JSON, st.dictionaries(st.sampled_from(["x", "y", "__metadata__"]), TENSOR)),
    size=st.integers(0, 16),
)
def test_any_header_is_read_or_refused(header: Any, size: int, tmp_path: Path) -> None:
    path = written(tmp_path, laid_out(header, bytes(size)))
    with suppress(InputError):
        tensors = read_tensors(path)
        for name in tensors:
            assert tensors[name].size <= 16
            assert not np.any(tensors[name])


# --- tensors as a builder asks for them ---------------------------------------------------------------------


def asked(folder: Path, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> Weights:
    sizes = {"F32": 4, "F16": 2, "I8": 1}
    stored = [
        (name, dtype, shape, bytes(sizes[dtype] * int(np.prod(shape))))
        for name, (dtype, shape) in shapes.items()
    ]
    return Weights(read_tensors(written(folder, safetensors_bytes(stored))), shown="net")


def test_what_was_not_asked_for_is_left(tmp_path: Path) -> None:
    weights = asked(tmp_path, dict.fromkeys(("a.x", "a.y", "b.x", "c"), ("F32", (2,))))
    assert weights("a.x", 2).tolist() == [0, 0]
    assert weights.get("none") is None
    assert weights.left() == ["a.y", "b.x", "c"]
    weights.skip("b.", "c")
    assert weights.left() == ["a.y"]
    assert weights.under("a.")
    assert not weights.under("z")


def test_a_dense_layer_is_asked_for_by_its_shape(tmp_path: Path) -> None:
    shapes = {
        "a.weight": ("F16", (3, 2)),
        "a.bias": ("F32", (3,)),
        "b.weight": ("F32", (3, 2)),
        "c.weight": ("F32", ()),
    }
    weights = asked(tmp_path, shapes | {"d.weight": ("F32", (2, 2)), "d.bias": ("F32", (1,))})
    kernel, bias = weights.dense("a", 2)
    assert (kernel.shape, kernel.dtype, bias is not None and bias.shape) == ((3, 2), np.float32, (3,))
    assert weights.dense("b", 2, 3)[1] is None
    for name, wanted, message in (
        ("a", (2, 4), "net: expected a.weight with the shape [4, 2]; it is [3, 2]"),
        ("a", (5,), "net: expected a.weight with the shape [3, 5]; it is [3, 2]"),
        ("c", (5,), "net: expected c.weight with the shape [0, 5]; it is []"),
        ("d", (2,), "net: expected d.bias with the shape [2]; it is [1]"),
        ("e", (2,), "net: expected a tensor e.weight, as networks of this kind have; there is none"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            weights.dense(name, *wanted)


def test_whole_numbers_and_empty_tensors_are_no_weights(tmp_path: Path) -> None:
    weights = asked(tmp_path, {"a": ("I8", (2,)), "b": ("F32", (0,))})
    with pytest.raises(
        InputError, match=re.escape("net: expected a as floating-point numbers; it is [2] of I8")
    ):
        weights("a")
    with pytest.raises(
        InputError, match=re.escape("net: expected b as floating-point numbers; it is [0] of F32")
    ):
        weights("b")
