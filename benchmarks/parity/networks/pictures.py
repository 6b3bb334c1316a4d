"""Four pictures, drawn alike everywhere, and the preprocessing that timm states, written out with Pillow.

timm's own transforms need torchvision, which has no build for CPUs here: `as_timm` follows its rules for evaluation
(timm/data/transforms_factory.py, torchvision's Resize, CenterCrop, ToTensor and Normalize).
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

PICTURES = (
    (300, 240, "JPEG"),
    (251, 377, "PNG"),
    (224, 224, "PNG"),
    (431, 290, "JPEG"),
)  # width, height, format
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def picture_bytes(told: tuple[int, int, str]) -> bytes:
    """The file: colours that vary slowly, and shapes with sharp edges."""
    width, height, kind = told
    random = np.random.default_rng(width)
    image = Image.fromarray(random.integers(0, 256, (9, 7, 3), np.uint8)).resize(
        (width, height), FILTERS["bicubic"]
    )
    brush = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, w, h = (int(v) for v in random.integers(0, min(width, height) // 2, 4))
        brush.ellipse((x, y, x + w + 5, y + h + 5), fill=tuple(random.integers(0, 256, 3).tolist()))
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 92} if kind == "JPEG" else {}))
    return file.getvalue()


def open_picture(told: tuple[int, int, str]) -> Image.Image:
    return Image.open(io.BytesIO(picture_bytes(told))).convert("RGB")


def as_timm(image: Image.Image, told: dict[str, Any]) -> np.ndarray:
    """A picture as timm's evaluation preprocesses it: float32 (3, S, S)."""
    side = told["input_size"][-1]
    how = FILTERS[told["interpolation"]]
    scaled = math.floor(side / told.get("crop_pct", 0.875))
    if told.get("crop_mode", "center") == "squash":
        image = image.resize((scaled, scaled), how)
    else:
        width, height = image.size
        short, long = min(width, height), max(width, height)
        sides = (scaled, int(scaled * long / short))
        image = image.resize(sides if width <= height else sides[::-1], how)
    left, top = (round((n - side) / 2.0) for n in image.size)
    image = image.crop((left, top, left + side, top + side))
    x = np.asarray(image, np.float32) / 255
    x = (x - np.array(told["mean"], np.float32)) / np.array(told["std"], np.float32)
    return np.ascontiguousarray(x.transpose(2, 0, 1))
