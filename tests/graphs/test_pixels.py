"""Means and deviations as scale and offset, and their text."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topwork.errors import InputError
from topwork.graphs.pixels import Pixels, pixels, pixels_from, pixels_of
from topwork.recipe import PixelRange

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def normalised(of: Pixels, levels: np.ndarray) -> np.ndarray:
    found = levels * np.array(of.scale) + np.array(of.offset)
    return found[..., ::-1] if of.bgr else found


@settings(deadline=None)
@given(
    st.tuples(*[st.floats(-2, 2)] * 3),
    st.tuples(*[st.floats(0.01, 3)] * 3),
    st.sampled_from([1 / 255, 1 / 127.5, 1.0]),
    st.booleans(),
)
def test_it_is_the_libraries_formula(mean: Any, deviation: Any, rescale: float, bgr: bool) -> None:
    levels = np.arange(256.0)[:, None] * np.ones(3)
    expected = (levels * rescale - np.array(mean)) / np.array(deviation)
    found = pixels_of(mean, deviation, rescale=rescale, bgr=bgr)
    np.testing.assert_allclose(
        normalised(found, levels), expected[:, ::-1] if bgr else expected, rtol=1e-5, atol=2e-5 * 255
    )
    again = pixels_from(found.range, found.how)
    assert again == found


@pytest.mark.parametrize(
    ("mean", "deviation", "options", "name"),
    [
        ((0, 0, 0), (1, 1, 1), {}, "0..1"),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), {}, "-1..1"),
        ((1, 1, 1), (1, 1, 1), {"rescale": 0.00784313725490196}, "-1..1"),
        ((0, 0, 0), (1, 1, 1), {"rescale": 1.0}, "0..255"),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), {"rescale": 0.00392156862745098}, "imagenet"),
        ((123.68, 116.779, 103.939), (1, 1, 1), {"rescale": 1.0, "bgr": True}, "caffe"),
        ((123.68, 116.779, 103.939), (1, 1, 1), {"rescale": 1.0}, None),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.226), {}, None),
    ],
)
def test_named_ranges_keep_their_names(mean: Any, deviation: Any, options: Any, name: Any) -> None:
    found = pixels_of(mean, deviation, **options)
    if name is None:
        assert found.range not in get_args(PixelRange)
    else:
        assert found == pixels(name, "stated")  # the same numbers, so the same graph


def test_the_text_has_all_digits() -> None:
    assert pixels_of(*CLIP).range == (
        "mean 0.48145466 0.4578275 0.40821073, deviation 0.26862954 0.26130258 0.27577711"
    )
    assert pixels_of((0, 0, 0), (1, 1, 1), bgr=True).range == "mean 0 0 0, deviation 1 1 1, BGR"


@pytest.mark.parametrize("name", get_args(PixelRange))
def test_named_ranges_are_read(name: Any) -> None:
    assert pixels_from(name, "chosen") == pixels(name, "chosen")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "imagnet",
        "mean 1 2, deviation 1 1 1",
        "mean 1 2 3, deviation 1 1 0",
        "mean 1.2.3 2 3, deviation 1 1 1",
        "mean nan 2 3, deviation 1 1 1",
    ],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="unknown range of pixels"):
        pixels_from(text, "chosen")
