"""The Head record: softmax, row independence, temperature, save and load."""

from __future__ import annotations

import doctest
import io
import itertools
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

import topwork.heads.head as head_module
from topwork.errors import InputError
from topwork.heads.file import load_head, save_head
from topwork.heads.head import Head, Layer, check_samples, fit_temperature


def _head(*widths: int, seed: int = 0, temperature: float = 1.0) -> Head:
    rng = np.random.default_rng(seed)
    layers = tuple(
        Layer(
            rng.normal(size=(a, b)).astype(np.float32) / np.float32(a**0.5),
            rng.normal(size=b).astype(np.float32),
        )
        for a, b in itertools.pairwise(widths)
    )
    return Head("linear" if len(layers) == 1 else "mlp", layers, temperature)


def test_the_examples_run() -> None:
    assert doctest.testmod(head_module).failed == 0


def test_logits_worked_by_hand() -> None:
    first = Layer(np.float32([[1, -1], [2, 1]]), np.float32([0, 1]))
    last = Layer(np.float32([[1, 2], [10, 20]]), np.float32([0.5, -0.5]))
    # [1, 1] -> [3, 1] -> [3 + 10, 6 + 20] + bias; [3, 0] -> [3, -2] -> ReLU [3, 0] -> [3, 6] + bias
    head = Head("mlp", (first, last))
    assert head.logits([[1, 1], [3, 0]]).tolist() == [[13.5, 25.5], [3.5, 5.5]]
    assert (head.width, head.class_count) == (2, 2)


def test_probabilities_are_scipys_softmax_of_logits_over_temperature() -> None:
    head = _head(20, 7, temperature=2.5)
    x = np.random.default_rng(1).normal(size=(50, 20)).astype(np.float32) * 30
    found = head.probabilities(x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, scipy.special.softmax(head.logits(x) / 2.5, axis=1), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_huge_logits_do_not_overflow() -> None:
    head = Head("linear", (Layer(np.float32([[1e30, -1e30]]), np.zeros(2, np.float32)),))
    assert head.probabilities([[1.0], [0.0]]).tolist() == [[1, 0], [0.5, 0.5]]


def test_no_rows_give_no_rows() -> None:
    assert _head(5, 3).probabilities(np.zeros((0, 5))).shape == (0, 3)


@pytest.mark.parametrize("shape", [(5,), (2, 4), (2, 5, 1)])
def test_features_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"`x` must have shape \(N, 5\).*got \(.*same backbone and stages"):
        _head(5, 3).logits(np.zeros(shape))


# Widths at which one matrix product of all rows, or of padded blocks, was seen to differ by place.
@pytest.mark.parametrize("widths", [(1280, 2), (1280, 10), (1281, 37), (97, 5), (512, 1), (640, 512, 3)])
def test_a_rows_bits_depend_on_that_row_alone(widths: tuple[int, ...]) -> None:
    head = _head(*widths)
    rng = np.random.default_rng(2)
    row = rng.normal(size=widths[0]).astype(np.float32)
    alone = head.logits(row[None])[0].tobytes(), head.probabilities(row[None])[0].tobytes()
    for count in (2, 3, 7, 12, 13, 16, 33, 64, 65, 130):
        for place in sorted({0, 1, count // 2, count - 1, *range(0, count, 5)}):
            x = rng.normal(size=(count, widths[0])).astype(np.float32)
            x[place] = row
            assert head.logits(x)[place].tobytes() == alone[0], (count, place)
            assert head.probabilities(x)[place].tobytes() == alone[1], (count, place)


def test_memory_layout_does_not_change_the_bits() -> None:
    head = _head(300, 40, 6)
    x = np.random.default_rng(3).normal(size=(30, 300)).astype(np.float32)
    wide = np.zeros((30, 601), np.float32)
    wide[:, 1::2] = x
    for other in (np.asfortranarray(x), wide[:, 1::2], x.astype(np.float64), x[::-1].copy()[::-1]):
        assert head.logits(other).tobytes() == head.logits(x).tobytes()


# Temperature -------------------------------------------------------------------------------------


def _loss(log_t: float, z: np.ndarray, y: np.ndarray, w: np.ndarray, smoothing: float = 0.0) -> float:
    p = scipy.special.log_softmax(z / np.exp(log_t), axis=1)
    return float(-(w * ((1 - smoothing) * p[np.arange(len(y)), y] + smoothing * p.mean(axis=1))).sum())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.floats(0.5, 8),
    classes=st.integers(2, 6),
    smoothing=st.sampled_from([0.0, 0.05, 0.5]),
)
def test_temperature_is_where_scipy_finds_the_least_loss(
    seed: int, scale: float, classes: int, smoothing: float
) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(60, classes)) * scale
    y = np.where(rng.random(60) < 0.6, z.argmax(axis=1), rng.integers(0, classes, 60))
    w = rng.uniform(0.1, 3, 60)
    bounds = tuple(np.log(head_module.TEMPERATURES))
    oracle = scipy.optimize.minimize_scalar(
        _loss, bounds=bounds, args=(z, y, w, smoothing), method="bounded", options={"xatol": 1e-9}
    )
    found = np.log(fit_temperature(z, y, w, smoothing=smoothing))
    assert _loss(found, z, y, w, smoothing) <= oracle.fun + 1e-9
    assert found == pytest.approx(oracle.x, abs=1e-3)


def test_temperature_takes_overconfidence_back() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20_000, 3)) * 2
    y = (scipy.special.softmax(z, axis=1).cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    assert fit_temperature(3 * z, y) == pytest.approx(3, rel=0.05)  # made by T = 1, then overstated by 3


@pytest.mark.parametrize(
    ("logits", "targets", "expected"),
    [
        (np.zeros((0, 3)), [], 1.0),
        ([[1.0, 1.0]] * 3, [0, 1, 1], 1.0),  # all the same: nothing to fit
        ([[5.0, 0.0], [0.0, 5.0]], [0, 1], 0.05),  # all right: as cold as it goes
        ([[5.0, 0.0], [0.0, 5.0]], [1, 0], 20.0),  # all wrong: as hot as it goes
    ],
)
def test_temperature_at_the_edges(logits: object, targets: list[int], expected: float) -> None:
    assert fit_temperature(logits, targets) == expected  # type: ignore[arg-type]


def test_a_weight_of_two_is_the_image_twice() -> None:
    z, y = np.array([[2.0, 0.0], [1.0, 0.0], [3.0, 1.0]]), [0, 1, 0]
    assert fit_temperature(z, y, [2, 1, 1]) == pytest.approx(fit_temperature(z[[0, 0, 1, 2]], [0, 0, 1, 0]))


@pytest.mark.parametrize(
    ("x", "targets", "weights", "message"),
    [
        (
            [[1.0]],
            [0, 1],
            None,
            r"shape \(N, D\) and `targets` \(N,\).*got \(1, 1\) and \(2,\)",
        ),
        (np.zeros((0, 1)), np.zeros(0, int), None, r"N at least 1; got \(0, 1\) and \(0,\)"),
        ([[1.0]], [0.0], None, "`targets` must be integers.*got float64"),
        ([[1.0], [1.0]], [0, 2], None, r"`targets` must be in 0\.\.1; got 2 at row 1: remove images without"),
        ([[1.0], [1.0]], [0, -1], None, r"got -1 at row 1"),
        ([[1.0], [np.nan]], [0, 1], None, "`x` must be finite; row 1 has a value"),
        ([[1.0], [1.0]], [0, 1], [1], r"`weights` must have shape \(2,\), one per row; got \(1,\)"),
        ([[1.0], [1.0]], [0, 1], [1, -1], "`weights` must be finite, none negative, and not all 0"),
        ([[1.0], [1.0]], [0, 1], [0, 0], "not all 0"),
        ([[1.0], [1.0]], [0, 1], [1, np.inf], "must be finite"),
    ],
)
def test_samples_that_do_not_fit_together(x: object, targets: object, weights: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_samples(np.asarray(x), targets, weights, class_count=2)  # type: ignore[arg-type]


def test_temperature_of_logits_of_one_dimension() -> None:
    with pytest.raises(InputError, match=r"`logits` must have shape \(N, classes\); got \(2,\)"):
        fit_temperature([1.0, 2.0], [0, 1])


# Save and load -----------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(12, 3), (33, 8, 4)])
def test_save_load_gives_the_same_predictions(tmp_path: Path, widths: tuple[int, ...]) -> None:
    head = _head(*widths, temperature=1.7)
    save_head(head, tmp_path / "head.npz")
    again = load_head(tmp_path / "head.npz")
    x = np.random.default_rng(4).normal(size=(9, widths[0])).astype(np.float32)
    assert (again.kind, again.temperature) == (head.kind, 1.7)
    assert again.probabilities(x).tobytes() == head.probabilities(x).tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["head.npz"]


def test_saving_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save_head(_head(6, 3), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no head at .*none\.npz: expected the head\.npz of a run folder"):
        load_head(tmp_path / "none.npz")


GOOD: dict[str, object] = {
    "kind": np.array("linear"),
    "temperature": np.array(1.0),
    "weight_0": np.ones((4, 3), np.float32),
    "bias_0": np.ones(3, np.float32),
}
SECOND = {"weight_1": np.ones((5, 2), np.float32), "bias_1": np.ones(2, np.float32)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias_0": None}, "expected the arrays kind, temperature, weight_0, bias_0, …; got kind, temp"),
        ({"weight_0": None, "bias_0": None}, "got kind, temperature; train again"),
        ({"extra": np.zeros(1)}, "got bias_0, extra, kind"),
        ({"kind": np.array("liner")}, "unknown kind of head 'liner'; did you mean 'linear'"),
        ({"kind": np.array(7)}, "kind has the type <i8; expected <U"),
        ({"temperature": np.array(0.0)}, "expected a temperature above 0; got 0.0"),
        ({"temperature": np.array(np.nan)}, "temperature has a value that is not a number or infinite"),
        ({"temperature": np.ones(2)}, r"temperature has the shape \(2,\); expected 0 dimensions"),
        ({"weight_0": np.ones((4, 3))}, "weight_0 has the type <f8; expected <f4"),
        ({"weight_0": np.ones((4, 3), ">f4")}, "weight_0 has the type >f4; expected <f4"),
        ({"weight_0": np.full((4, 3), np.nan, np.float32)}, "weight_0 has a value that is not a number"),
        ({"bias_0": np.ones(2, np.float32)}, r"weight_0 \(4, 3\) and bias_0 \(2,\) do not fit together"),
        ({"bias_0": np.ones((3, 1), np.float32)}, r"bias_0 has the shape \(3, 1\); expected 1 dimensions"),
        (SECOND, r"weight_1 \(5, 2\) does not take the output of layer 0, which is 3 wide"),
        ({"weight_0": np.array([object()])}, r"weight_0 has the type \|O; expected <f4"),
        ({"weight_0": np.ones((4, 3), np.float32, order="F")}, "weight_0 does not begin as a plain array"),
        ({"weight_0": np.ones(4, "f4,f4")}, "weight_0 does not begin as a plain array in C order does"),
    ],
)
def test_a_file_that_is_no_head(tmp_path: Path, change: dict[str, object], message: str) -> None:
    arrays = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    np.savez(tmp_path / "head.npz", allow_pickle=True, **arrays)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message) as caught:
        load_head(tmp_path / "head.npz")
    assert str(tmp_path) in str(caught.value)
    assert "is not a head that Topwork saved" in str(caught.value)


def _npy(value: object, shape: str | None = None) -> bytes:
    stream = io.BytesIO()
    np.save(stream, value)  # type: ignore[arg-type]
    data = stream.getvalue()
    if shape:
        data = (
            data[:10] + data[10:128].replace(b"(4, 3)", shape.encode())[:117].ljust(117) + b"\n" + data[128:]
        )
    return data


def _write(path: Path, weight: bytes, *, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, value in GOOD.items():
            archive.writestr(f"{name}.npy", weight if name == "weight_0" else _npy(value))


def test_the_damage_below_is_the_only_damage(tmp_path: Path) -> None:
    _write(tmp_path / "head.npz", _npy(GOOD["weight_0"]))
    assert load_head(tmp_path / "head.npz").width == 4


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            "(1000000000000, 3)",
            r"weight_0 claims the shape \(1000000000000, 3\), which",
        ),
        ("(-4, -3)", "weight_0 does not begin as a plain array"),
        ("(" * 40 + ")", "weight_0 does not begin as a plain array"),
        ("(4, 'a')", "weight_0 does not begin as a plain array"),
    ],
)
def test_a_hostile_array_header(tmp_path: Path, shape: str, message: str) -> None:
    _write(tmp_path / "head.npz", _npy(GOOD["weight_0"], shape))
    with pytest.raises(InputError, match=message):
        load_head(tmp_path / "head.npz")


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    _write(tmp_path / "head.npz", _npy(np.zeros((4000, 3), np.float32)), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="expected arrays stored without compression"):
        load_head(tmp_path / "head.npz")


def test_a_claim_of_more_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "head.npz"
    _write(path, _npy(GOOD["weight_0"]))
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"weight_0.npy") - 46  # the central directory's record of it
    assert data[entry : entry + 4] == b"PK\x01\x02"
    data[entry + 20 : entry + 28] = (10**9).to_bytes(4, "little") * 2  # both sizes
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"claim more than the \d+ bytes of the file"):
        load_head(path)


def test_no_bit_of_a_damaged_shape_gives_another_head(tmp_path: Path) -> None:
    """`np.load` stops reading where the shape says, before the checksum: "(400, 10)" for "(400, 30)" went through."""
    save_head(_head(400, 30), tmp_path / "head.npz")
    whole = (tmp_path / "head.npz").read_bytes()
    at = whole.index(b"(400, 30)")
    for bit in range(8 * len(b"(400, 30)")):
        data = bytearray(whole)
        data[at + bit // 8] ^= 1 << bit % 8
        (tmp_path / "bad.npz").write_bytes(data)
        with pytest.raises(InputError, match="is not a head that Topwork saved"):
            load_head(tmp_path / "bad.npz")


def test_any_damage_is_an_input_error(tmp_path: Path) -> None:
    save_head(_head(4, 3), tmp_path / "head.npz")
    whole = (tmp_path / "head.npz").read_bytes()
    rng = np.random.default_rng(5)
    damaged = [whole[:size] for size in range(0, len(whole), 37)]
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            data[place] = rng.integers(0, 256)
        damaged.append(bytes(data))
    refused = 0
    for data in damaged:
        (tmp_path / "bad.npz").write_bytes(data)
        try:
            load_head(tmp_path / "bad.npz")  # some bytes, as a time stamp's, mean nothing
        except InputError:
            refused += 1
    assert refused > 0.6 * len(damaged)
