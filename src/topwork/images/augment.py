"""Random augmentation: flips, quarter turns, crops, colour. NumPy and Pillow only.

An augmentation must preserve the labels:

- flips: no class depends on left and right (as text and hands do);
- turns and `flips="both"`: pictures have no up and down (aerial photographs, cells, surfaces);
- crops: the object that decides the class is not small and near the border;
- colour: colour does not distinguish the classes.

Flips and turns only move pixels; their values do not change.
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

ASPECT = (3 / 4, 4 / 3)  # range of a crop's width / height
GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue in luma: ITU-R BT.601
# By index: bit 1 mirrors left-right, bit 2 top-bottom, bit 4 transposes.
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
STEPS = 4096  # the colour matrix is rounded to multiples of 1 / STEPS: see `_coloured`


def exact_views(recipe: AugmentRecipe) -> int:
    """The number of flipped and turned copies of a picture, including itself: 1, 2, 4 or 8.

    >>> exact_views(AugmentRecipe(flips="horizontal")), exact_views(AugmentRecipe(flips="both", turns=True))
    (2, 8)
    """
    if recipe.turns:
        return 4 if recipe.flips == "none" else 8
    return {"none": 1, "horizontal": 2, "both": 4}[recipe.flips]


def augment(pixels: Pixels, recipe: AugmentRecipe, seed: Sequence[int]) -> Pixels:
    """Augment a picture at random: a flip or turn, a crop, and colour jitter, as far as `recipe` enables them.

    Crops follow Szegedy et al. 2014, "Going deeper with convolutions": the area is a share of the picture between
    `recipe.crop` and 1, the aspect ratio is between 3/4 and 4/3, and the crop is resized to the picture's size.

    Args:
        pixels: uint8 (S, S, 3), RGB; not modified.
        recipe: the augmentations and their strengths.
        seed: whole numbers, at least 0, for instance of the run, the image and the epoch; the same seed gives the
            same result.

    Returns:
        uint8 (S, S, 3). It may be `pixels` itself, or read-only; copy it before modifying it.

    Raises:
        InputError: `pixels` is not a square RGB picture.
    """
    _check(pixels)
    random = np.random.default_rng(list(seed))
    return _changed(pixels, recipe, int(random.integers(exact_views(recipe))), random)


def view(pixels: Pixels, recipe: AugmentRecipe, number: int, seed: Sequence[int]) -> Pixels:
    """The augmented view of a picture with this number; 0 is the picture itself.

    Views cycle through the flips and turns. If the recipe enables crops or colour jitter, every view except 0 also
    gets a random crop and colours, determined by `seed` and `number`.

    Args:
        pixels: uint8 (S, S, 3), RGB; not modified.
        recipe: the augmentations and their strengths.
        number: at least 0.
        seed: whole numbers, at least 0, for instance of the run and the image.

    Returns:
        uint8 (S, S, 3). It may be `pixels` itself, or read-only; copy it before modifying it.

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
            "topwork.images.decode.decode returns this format"
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
    """A random crop with at least the share `least` of the area: left, top, right and bottom, in pixels."""
    area = random.uniform(least, 1.0)
    aspect = math.exp(random.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
    width, height = (min(1.0, math.sqrt(area * r)) for r in (aspect, 1 / aspect))
    # If a side is limited by the picture, the other one is extended to keep the area.
    width, height = min(1.0, max(width, area / height)), min(1.0, max(height, area / width))
    left, top = random.uniform(0, 1 - width), random.uniform(0, 1 - height)
    return side * left, side * top, side * min(1.0, left + width), side * min(1.0, top + height)


def _coloured(picture: Image.Image, brightness: float, contrast: float, saturation: float) -> Image.Image:
    """Jitter colours by three factors, each 1 for no change.

    `brightness` scales all values, `contrast` their distance from the mean grey, `saturation` their distance from
    the pixel's own grey. Together they are linear: the matrix c·b·(s·I + (1 − s)·GREY), plus (1 − c)·b times the
    mean grey. Its entries are rounded to multiples of 1/4096, so each product and sum is exact in Pillow's float32,
    and the result is the same on every processor.
    """
    counts = np.array(picture.histogram()).reshape(3, 256)
    sums = (counts @ np.arange(256)).tolist()  # of red, green and blue; exact
    mean_grey = sum(share * total for share, total in zip(GREY, sums, strict=True)) / counts[0].sum()
    matrix = contrast * brightness * (saturation * np.eye(3) + (1 - saturation) * np.array(GREY))  # (3, 3)
    matrix = np.column_stack([matrix, np.full(3, (1 - contrast) * brightness * mean_grey)])
    return picture.convert("RGB", matrix=tuple((np.rint(matrix * STEPS) / STEPS).ravel().tolist()))
