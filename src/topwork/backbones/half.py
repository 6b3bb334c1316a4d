"""Feature vectors at half precision: numbers of 11 bits, on a scale that is the vector's own and a power of two.

Numbers down to 4e-9 of the vector's largest keep all 11 bits, whatever the network's scale: a relative error of at
most 1/2048, where networks in bf16 compute to 1/256. The engine rounds what it gives (`rounded`), so that a
classifier learns from the same numbers as it meets when it predicts, and storing (`packed`) loses nothing more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

HEADER = 2  # bytes before the numbers: the exponent of the scale, int16
TOP = 15  # the largest number is scaled to 2^14 … 2^15
SIGN_EXPONENT_MANTISSA = np.int32(-0x70002000)  # bits 31, 27 to 23 and 22 to 13 of a float32
MOST, BELOW_TOP = 128, np.float16(32752)
LEAST = -100  # smallest exponent of a scale; powers of two beyond ±126 are no float32
TINY = 2.0**LEAST  # vectors of smaller numbers are on the smallest scale


def rounded(vector: Array) -> Array:
    """float32 (N,) → the same at half precision, float32 (N,). One with NaN or infinity is left as it is."""
    exponent = _exponent(vector)
    return vector.copy() if exponent is None else _single(_half(vector, exponent), exponent)


def packed(vector: Array) -> bytes:
    """float32 (N,), finite → 2 + 2 N bytes."""
    exponent = _exponent(vector)
    if exponent is None:
        raise ValueError("expected finite numbers")
    return np.array(exponent, "<i2").tobytes() + _half(vector, exponent).astype("<f2", copy=False).tobytes()


def unpack(data: bytes, start: int, stop: int, into: Array) -> None:
    """The numbers from `start` to `stop` of what `packed` made, into float32 (stop − start,)."""
    exponent = int(np.frombuffer(data, "<i2", 1)[0])
    _widen(np.frombuffer(data, "<i2", stop - start, HEADER + 2 * start), exponent, into)


def _exponent(vector: Array) -> int | None:
    """e, where the largest number, once it is rounded, is 2^(e−1) … 2^e; None if one is NaN or infinite."""
    largest = float(np.maximum(vector.max(), -vector.min()))
    if not np.isfinite(largest):
        return None
    if largest < TINY:
        return LEAST  # whether it is zero, or becomes zero: rounding again changes nothing
    mantissa, exponent = np.frexp(largest)
    # A number that rounds up to the next power of two is on that one's scale: rounding again changes nothing.
    return min(MOST, max(LEAST, int(exponent) + int(np.float16(mantissa) == 1)))


def _half(vector: Array, exponent: int) -> Array:
    half = (vector * np.float32(2.0 ** (TOP - exponent))).astype(np.float16)
    return half if exponent < MOST else np.clip(half, -BELOW_TOP, BELOW_TOP)  # 2^128 is no float32


def _single(half: Array, exponent: int) -> Array:
    into = np.empty(len(half), np.float32)
    _widen(half.view(np.int16), exponent, into)
    return into


def _widen(half: Array, exponent: int, into: Array) -> None:
    """The bits of half precision, int16, as float32, times 2^(e−15): a third of the time of NumPy's conversion.

    The five bits of the exponent become the lowest of eight, which makes numbers 2^112 times smaller.
    """
    bits = into.view(np.int32)
    bits[:] = half
    bits <<= 13
    bits &= SIGN_EXPONENT_MANTISSA
    into *= np.float32(2.0**112)
    into *= np.float32(2.0 ** (exponent - TOP))
