"""Pictures changed at random: only in the ways that were allowed."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from topwork.errors import InputError
from topwork.images.augment import ASPECT, GREY, _box, _coloured, augment, exact_views, view
from topwork.recipe import AugmentRecipe

PLAIN = AugmentRecipe(flips="none")
ALL = AugmentRecipe(flips="both", turns=True)
RICH = AugmentRecipe(flips="both", turns=True, crop=0.5, colour=0.4)


def picture(side: int = 24, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)


def dihedral(x: Any) -> list[bytes]:
    return [np.rot90(y, k).tobytes() for y in (x, x[:, ::-1]) for k in range(4)]


@pytest.mark.parametrize(
    ("recipe", "allowed"),
    [
        (PLAIN, [0]),
        (AugmentRecipe(flips="horizontal"), [0, 4]),
        (AugmentRecipe(flips="both"), [0, 4, 2, 6]),
        (AugmentRecipe(flips="none", turns=True), [0, 1, 2, 3]),
        (ALL, range(8)),
        (AugmentRecipe(flips="horizontal", turns=True), range(8)),
    ],
)
def test_the_views_are_the_turned_and_mirrored_copies(recipe: AugmentRecipe, allowed: Any) -> None:
    x = picture()
    every = dihedral(x)
    count = exact_views(recipe)
    seen = {view(x, recipe, number, (1, 2)).tobytes() for number in range(count)}
    assert seen == {every[i] for i in allowed}
    assert len(seen) == count
    assert view(x, recipe, count + 1, (1, 2)).tobytes() == view(x, recipe, 1, (9, 9)).tobytes()
    drawn = {augment(x, recipe, (seed,)).tobytes() for seed in range(100)}
    assert drawn == seen


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 40), st.integers(5, 40))
def test_the_same_seed_gives_the_same_picture_and_the_input_stays(seed: int, number: int, side: int) -> None:
    x = picture(side)
    before = x.copy()
    first = view(x, RICH, number, (seed, 7))
    assert first.dtype == np.uint8
    assert first.shape == x.shape
    np.testing.assert_array_equal(first, view(x, RICH, number, (seed, 7)))
    np.testing.assert_array_equal(augment(x, RICH, (seed,)), augment(x, RICH, (seed,)))
    np.testing.assert_array_equal(x, before)


def test_views_differ_by_seed_and_number() -> None:
    x = picture()
    seen = {view(x, RICH, number, (seed,)).tobytes() for number in range(10) for seed in range(5)}
    assert len(seen) == 46  # number 0 is the picture itself, whatever the seed
    np.testing.assert_array_equal(view(x, RICH, 0, (3,)), x)


@pytest.mark.parametrize("least", [0.2, 0.5, 0.9])
def test_a_crop_keeps_its_share_of_the_picture(least: float) -> None:
    """On a ramp from left to right and one from top to bottom, what is kept shows in how far the values go."""
    side = 200
    ramp = np.linspace(0, 255, side)
    x = np.zeros((side, side, 3), np.uint8)
    x[..., 0], x[..., 1] = ramp[None], ramp[:, None]
    recipe = AugmentRecipe(flips="none", crop=least)
    shares = []
    for seed in range(200):
        y = augment(x, recipe, (seed,)).astype(float)
        wide, high = (np.ptp(y[..., i]) / 255 for i in (0, 1))
        shares.append(wide * high)
        assert 0.6 < wide / high < 1.7  # 3 / 4 to 4 / 3, and what borders and rounding make of it
    assert least - 0.03 < min(shares) < least + 0.1
    assert 0.9 < max(shares) <= 1


def test_colours_stay_within_their_bounds() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    seen = [
        int(augment(grey, AugmentRecipe(flips="none", colour=0.2), (seed,))[0, 0, 0]) for seed in range(300)
    ]
    assert 80 <= min(seen) < 84  # a grey picture has no contrast and no saturation to change
    assert 116 < max(seen) <= 120
    x = picture(64)
    y = augment(x, AugmentRecipe(flips="none", colour=0.1), (5,))
    assert 0 < np.abs(y.astype(int) - x).mean() < 30


recipes = st.builds(
    AugmentRecipe,
    st.sampled_from(["none", "horizontal", "both"]),
    st.booleans(),
    st.sampled_from([1.0, 0.99, 0.5, 0.05]),
    st.sampled_from([0.0, 0.1, 1.0]),
)
pictures = st.builds(picture, st.integers(1, 40), st.integers(0, 2**32))
seeds = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4)


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("flips", ["none", "horizontal", "both"])
def test_the_views_are_a_group(flips: Any, turns: bool) -> None:
    """One after the other, two views come to a view: so no copy is told from the original by how it lies."""
    x, recipe = picture(7), AugmentRecipe(flips, turns)
    count = exact_views(recipe)
    views = {view(x, recipe, i, [0]).tobytes() for i in range(count)}
    for i, j in itertools.product(range(count), repeat=2):
        assert view(view(x, recipe, i, [0]), recipe, j, [0]).tobytes() in views


@settings(max_examples=150, deadline=None)
@given(pictures, recipes, st.integers(0, 40), seeds)
def test_any_picture_by_any_recipe(x: Any, recipe: AugmentRecipe, number: int, seed: list[int]) -> None:
    before = x.copy()
    x.setflags(write=False)
    for change in (lambda p: augment(p, recipe, seed), lambda p: view(p, recipe, number, tuple(seed))):
        changed = change(x)
        assert (changed.shape, changed.dtype) == (before.shape, np.uint8)
        np.testing.assert_array_equal(changed, change(np.asfortranarray(before)))  # however it lies in memory
    np.testing.assert_array_equal(x, before)


def test_a_seed_means_the_same_change_for_ever() -> None:
    """The factors that this seed gives, as NumPy 2.4 drew them; the pixels, from those by the rules."""
    x = np.array([[[10, 200, 90], [255, 0, 3]], [[128, 127, 126], [60, 70, 250]]], np.uint8)
    changed = view(x, AugmentRecipe("none", colour=0.25), 1, [3, 4])
    assert abs(changed - by_the_rules(x, 0.8019873, 0.88178027, 0.98619249)).max() <= 0.51


def by_the_rules(x: Any, brightness: float, contrast: float, saturation: float) -> Any:
    """One rule after the other, in float64."""
    values = x * brightness
    grey = (values @ np.array(GREY))[..., None]
    values = grey + saturation * (values - grey)
    return np.clip(grey.mean() + contrast * (values - grey.mean()), 0, 255)


factors = st.floats(0, 2)


@settings(max_examples=150, deadline=None)
@given(pictures, factors, factors, factors)
def test_colour_by_the_rules(x: Any, brightness: float, contrast: float, saturation: float) -> None:
    changed = np.asarray(_coloured(Image.fromarray(x), brightness, contrast, saturation))
    expected = by_the_rules(x, brightness, contrast, saturation)
    assert (
        abs(changed - expected).max() <= 0.5 + 4 * 255 / 8192
    )  # to whole numbers, and of the factors to 1/4096


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.9, 1.0, 1.1, 1.7])
@pytest.mark.parametrize(
    ("enhancer", "place"),
    [(ImageEnhance.Brightness, 0), (ImageEnhance.Contrast, 1), (ImageEnhance.Color, 2)],
)
def test_each_factor_is_pillows_enhancer(enhancer: Any, place: int, factor: float) -> None:
    image, three = Image.fromarray(picture()), [1.0, 1.0, 1.0]
    three[place] = factor
    changed = np.asarray(_coloured(image, *three), np.int64)
    # Pillow rounds the grey, or cuts what it reckons, to whole numbers first.
    assert abs(changed - np.asarray(enhancer(image).enhance(factor), np.int64)).max() <= 2


@settings(deadline=None)
@given(pictures, seeds)
def test_contrast_and_saturation_leave_the_mean_lightness(x: Any, seed: list[int]) -> None:
    inner = 100 + x // 8  # 100..131, so that nothing is cut off
    before = (inner @ np.array(GREY)).mean()
    after = (augment(inner, AugmentRecipe("none", colour=0.1), seed) @ np.array(GREY)).mean()
    assert abs(after - before) <= 0.1 * before + 0.6  # what brightness does, and rounding


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 600), st.floats(0.05, 1, exclude_max=True), st.integers(0, 2**32))
def test_boxes_keep_their_share_and_lie_inside(side: int, least: float, seed: int) -> None:
    left, top, right, bottom = _box(side, least, np.random.default_rng(seed))
    width, height = right - left, bottom - top
    assert 0 <= left < right <= side
    assert 0 <= top < bottom <= side
    assert width * height >= least * side * side * (1 - 1e-9)
    assert ASPECT[0] - 1e-9 <= width / height <= ASPECT[1] + 1e-9


@pytest.mark.parametrize("least", [0.5, 0.95, 0.999])
def test_no_seed_brings_a_box_across_the_border(least: float) -> None:
    """Where a side is as long as the picture's, rounding could; and made one seed in four fail."""
    for seed in range(2000):
        _, _, right, bottom = _box(224, least, np.random.default_rng(seed))
        assert max(right, bottom) <= 224


def test_boxes_are_spread_over_all_that_is_allowed() -> None:
    boxes = np.array([_box(1, 0.3, np.random.default_rng(seed)) for seed in range(4000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area = width * height
    assert np.quantile(area, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx([0.3, 0.475, 0.65, 0.825, 1], abs=0.03)
    small = area < 0.7  # hardly a side is at the border: the logarithm of the aspect is spread evenly
    logs = np.log((width / height)[small])
    assert np.quantile(logs, [0, 0.5, 1]) == pytest.approx(np.log([0.75, 1, 4 / 3]), abs=0.03)
    places = boxes[small, 0] / (1 - width[small])
    assert np.quantile(places, [0, 0.5, 1]) == pytest.approx([0, 0.5, 1], abs=0.05)


def test_a_crop_shows_its_box_at_the_size_of_the_whole() -> None:
    """Of a ramp, a crop is a ramp: from the box's left border to its right one."""
    side = 64
    ramp = np.zeros((side, side, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = 3 * np.arange(side), 3 * np.arange(side)[:, None]
    changed = view(ramp, AugmentRecipe("none", crop=0.3), 1, [9])
    left, top, right, bottom = _box(side, 0.3, np.random.default_rng([9, 1]))
    centres = (np.arange(side) + 0.5) / side
    for shown, start, end in ((changed[0, :, 0], left, right), (changed[:, 0, 1], top, bottom)):
        expected = 3 * np.clip(start + centres * (end - start) - 0.5, 0, side - 1)
        assert abs(shown - expected).max() <= 1.6


def test_crops_and_colour_come_on_top_of_the_flip_or_turn_of_the_number() -> None:
    """A smooth picture changes little by a slight crop: the flip or turn of its number is the nearest."""
    v, h = np.mgrid[:48, :48] / 47
    x = np.rint(np.stack([40 + 100 * h, 60 + 120 * v, 200 - 90 * h * v], axis=2)).astype(np.uint8)
    recipe = AugmentRecipe("both", True, crop=0.97, colour=0.01)
    for number in range(1, 17):
        changed = view(x, recipe, number, [2]).astype(float)
        distance = [abs(changed - view(x, ALL, other, [2])).mean() for other in range(8)]
        assert int(np.argmin(distance)) == number % 8
        assert 0 < min(distance) < 6


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (np.zeros((4, 5, 3), np.uint8), r"uint8 \(4, 5, 3\)"),
        (np.zeros((4, 4), np.uint8), r"uint8 \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \(4, 4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), r"float32 \(4, 4, 3\)"),
    ],
)
def test_refuses_what_is_no_square_picture(x: Any, got: str) -> None:
    message = r"`pixels` must be a square picture, uint8 \(S, S, 3\); got " + got + ": topwork.images"
    with pytest.raises(InputError, match=message):
        augment(x, ALL, [1])
    with pytest.raises(InputError, match=message):
        view(x, ALL, 0, [1])


def test_refuses_a_negative_number() -> None:
    with pytest.raises(InputError, match=r"`number` must be at least 0, which is the picture itself; got -1"):
        view(picture(4), ALL, -1, [1])
