"""Pictures changed at random, in ways that leave their label true: flips, turns, crops, colour.

What the labels must allow: flips, where no class is told by left and right (so not for text, or a left and a
right hand); turns and `flips="both"`, where there is no up and down (photographs from above, cells, surfaces);
crops, where what a class is told by is not small and at the border; colour, where it is not what tells the classes.

Flips and turns move pixels and change none. NumPy and Pillow only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from topwork.errors import InputError
from topwork.recipe import AugmentRecipe

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Box = tuple[float, float, float, float]
Turn = Image.Transpose

ASPECT = (3 / 4, 4 / 3)  # of a crop, width to height
GREY = (0.299, 0.587, 0.114)  # the share of red, green and blue in lightness: ITU-R BT.601
# Mirrored by 1, put on its head by 2, on its side by 4.
SYMMETRIES = (
    None,
    Turn.FLIP_LEFT_RIGHT,
    Turn.FLIP_TOP_BOTTOM,
    Turn.ROTATE_180,
    Turn.TRANSPOSE,
    Turn.ROTATE_90,
    Turn.ROTATE_270,
    Turn.TRANSVERSE,
)
TURNS = (None, Turn.ROTATE_90, Turn.ROTATE_180, Turn.ROTATE_270)
STEPS = 4096  # to which factors of colour are rounded: see `_coloured`


def exact_views(recipe: AugmentRecipe) -> int:
    """How many flipped and turned copies of a picture there are, itself among them: 1, 2, 4 or 8.

    >>> exact_views(AugmentRecipe(flips="horizontal")), exact_views(AugmentRecipe(flips="both", turns=True))
    (2, 8)
    """
    if recipe.turns:
        return 4 if recipe.flips == "none" else 8
    return {"none": 1, "horizontal": 2, "both": 4}[recipe.flips]


def augment(pixels: Pixels, recipe: AugmentRecipe, seed: Sequence[int]) -> Pixels:
    """One random change of a picture: a flip or turn, a crop, and other colours, as far as the recipe has them.

    Crops follow Szegedy et al. 2014, "Going deeper with convolutions": a share of the area between `recipe.crop`
    and all of it, and an aspect ratio between 3/4 and 4/3, brought back to the size of the whole.

    Args:
        pixels: uint8 (S, S, 3), RGB; not written to.
        recipe: what may be changed.
        seed: whole numbers, at least 0, which alone decide the change: say the run's, the image's and the epoch's.

    Returns:
        uint8 (S, S, 3). It may be `pixels` itself, or read only: copy it before writing to it.

    Raises:
        InputError: `pixels` is not a square RGB picture.
    """
    _check(pixels)
    random = np.random.default_rng(list(seed))
    return _changed(pixels, recipe, int(random.integers(exact_views(recipe))), random)


def view(pixels: Pixels, recipe: AugmentRecipe, number: int, seed: Sequence[int]) -> Pixels:
    """The copy of a picture that has this number: 0 is the picture itself.

    The numbers go through the flips and turns, and then again from the first. Where the recipe has crops or colour,
    each number but 0 also has its own of these, by `seed` and `number` alone.

    Args:
        pixels: uint8 (S, S, 3), RGB; not written to.
        recipe: what may be changed.
        number: at least 0.
        seed: whole numbers, at least 0: say the run's and the image's.

    Returns:
        uint8 (S, S, 3). It may be `pixels` itself, or read only: copy it before writing to it.

    Raises:
        InputError: `pixels` is not a square RGB picture, or `number` is negative.
    """
    _check(pixels)
    if number < 0:
        raise InputError(f"`number` must be at least 0, which is the picture itself; got {number}")
    if number == 0:
        return pixels
    return _changed(pixels, recipe, number % exact_views(recipe), np.random.default_rng([*seed, number]))


def _check(pixels: Pixels) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or len(set(pixels.shape[:2])) > 1:
        raise InputError(
            f"`pixels` must be a square picture, uint8 (S, S, 3); got {pixels.dtype} {pixels.shape}: "
            "decode it with topwork.images.decode.decode, which makes it so"
        )


def _changed(pixels: Pixels, recipe: AugmentRecipe, turned: int, random: np.random.Generator) -> Pixels:
    turn = (TURNS if recipe.turns and recipe.flips == "none" else SYMMETRIES)[turned]
    if turn is None and recipe.crop >= 1 and recipe.colour <= 0:
        return pixels
    picture = Image.fromarray(pixels)
    if turn is not None:
        picture = picture.transpose(turn)
    if recipe.crop < 1:
        box = _box(len(pixels), recipe.crop, random)
        picture = picture.resize(picture.size, Image.Resampling.BILINEAR, box=box)
    if recipe.colour > 0:
        picture = _coloured(picture, *random.uniform(1 - recipe.colour, 1 + recipe.colour, 3).tolist())
    return np.asarray(picture)


def _box(side: int, least: float, random: np.random.Generator) -> Box:
    """Left, top, right and bottom, in pixels, of a part with at least that share of the area."""
    area = random.uniform(least, 1.0)
    aspect = math.exp(random.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
    width, height = (min(1.0, math.sqrt(area * r)) for r in (aspect, 1 / aspect))
    # What one side can't take, as the picture ends there, the other does: the area stays.
    width, height = min(1.0, max(width, area / height)), min(1.0, max(height, area / width))
    left, top = random.uniform(0, 1 - width), random.uniform(0, 1 - height)
    return side * left, side * top, side * min(1.0, left + width), side * min(1.0, top + height)


def _coloured(picture: Image.Image, brightness: float, contrast: float, saturation: float) -> Image.Image:
    """Factors, 1 for no change: of all values, of their distance to the mean grey, of that to their own grey.

    All three together are linear: the matrix c·b·(s·I + (1 − s)·GREY), plus (1 − c)·b times the mean grey. Its
    numbers are rounded to 1/4096, so that each product and sum is exact in the float32 that Pillow reckons
    with: the outcome is the same on every processor.
    """
    counts = np.array(picture.histogram()).reshape(3, 256)
    sums = (counts @ np.arange(256)).tolist()  # of red, green and blue: exact
    mean_grey = sum(share * total for share, total in zip(GREY, sums, strict=True)) / counts[0].sum()
    matrix = contrast * brightness * (saturation * np.eye(3) + (1 - saturation) * np.array(GREY))  # (3, 3)
    matrix = np.column_stack([matrix, np.full(3, (1 - contrast) * brightness * mean_grey)])
    return picture.convert("RGB", matrix=tuple((np.rint(matrix * STEPS) / STEPS).ravel().tolist()))
