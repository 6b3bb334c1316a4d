"""Feature vectors at half precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from topwork.backbones.half import HEADER, packed, rounded, unpack

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(arrays(np.float32, st.integers(1, 40), elements=FINITE))
@example(np.array([np.finfo(np.float32).max, -1, 0], np.float32))
@example(np.array([-3.401993e38, 2.0**-149], np.float32))
@example(np.array([2.7e-44], np.float32))
@example(np.zeros(3, np.float32))
def test_any_vector_is_stored_as_it_is_rounded(vector: np.ndarray) -> None:
    once = rounded(vector)
    assert once.dtype == np.float32
    data = packed(vector)
    assert len(data) == HEADER + 2 * len(vector)
    into = np.empty(len(vector), np.float32)
    unpack(data, 0, len(vector), into)
    np.testing.assert_array_equal(into, once)
    unpack(data, len(vector) // 2, len(vector), into[: len(vector) - len(vector) // 2])
    np.testing.assert_array_equal(into[: len(vector) - len(vector) // 2], once[len(vector) // 2 :])
    np.testing.assert_array_equal(rounded(once), once)  # again changes nothing
    assert packed(once) == data
    largest = np.abs(vector.astype(np.float64)).max()
    away = np.abs(once.astype(np.float64) - vector)
    assert (
        away <= np.maximum(np.abs(vector.astype(np.float64)) / 2048, max(largest, 2.0**-100) * 2.0**-38)
    ).all()


@pytest.mark.parametrize("scale", [1e-25, 1e-9, 1.0, 1e9, 1e37])
def test_whatever_the_scale_numbers_keep_eleven_bits(scale: float) -> None:
    vector = (np.random.default_rng(0).standard_normal(1000) * scale).astype(np.float32)
    np.testing.assert_allclose(rounded(vector), vector, rtol=1 / 2048, atol=scale * 1e-9)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_left_as_it_is_and_not_stored(odd: float) -> None:
    vector = np.array([1.0001, odd, 3], np.float32)
    np.testing.assert_array_equal(rounded(vector), vector)
    with pytest.raises(ValueError, match="finite"):
        packed(vector)


def test_zeros() -> None:
    np.testing.assert_array_equal(rounded(np.zeros(5, np.float32)), np.zeros(5, np.float32))
