"""Write `processors.npz`: pixels that the image processors of Transformers make of pictures, by `processors.json`.

Run once, in an environment with transformers 5.24 and Pillow (and without torchvision, or it would be used instead):

    python tests/backbones/data/make_processors.py
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
# Of these shapes, each version of Pillow resizes the rows first. Of some others, Pillow 13 begins with the columns;
# since it rounds in between, pixels of strong contrast then differ.
SIZES = ((97, 131), (131, 120), (48, 48), (30, 41))
MODULES = {
    "vit": "vit",
    "deit": "deit",
    "clip": "clip",
    "dinov2": "bit",
    "siglip": "siglip",
    "convnext": "convnext",
    "convnext large": "convnext",
    "levit": "levit",
    "mobilenet": "mobilenet_v2",
    "mobilevit": "mobilevit",
    "efficientnet": "efficientnet",
    "efficientnet offset": "efficientnet",
    "poolformer": "poolformer",
    "beit": "beit",
    "pvt defaults": "pvt",
    "segformer": "segformer",
}


def picture(height: int, width: int) -> np.ndarray:
    """A picture whose every pixel differs from its neighbours, uint8 (H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    red, green, blue = x * 7 + y * 3, x * x // 5 + y * 11, x * 5 + y * y // 3
    return (np.stack([red, green, blue], axis=-1) % 256).astype(np.uint8)


def some(pixels: np.ndarray) -> np.ndarray:
    """Few enough pixels to store, and enough to see a shift by one: (H, W, 3) to (h, w, 3)."""
    step = 7 if len(pixels) < 100 else 29
    return pixels[step // 7 :: step, step // 7 :: step]


def main() -> None:
    made = {}
    for case, plain in json.loads((HERE / "processors.json").read_text(encoding="utf-8")).items():
        module = importlib.import_module(
            f"transformers.models.{MODULES[case]}.image_processing_pil_{MODULES[case]}"
        )
        (name,) = (n for n in module.__all__ if n.endswith("ImageProcessorPil"))
        settings = {key: value for key, value in plain.items() if not key.endswith("_type")}
        processor = getattr(module, name)(**settings)
        for height, width in SIZES:
            shown = Image.fromarray(picture(height, width))
            pixels = processor(shown, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
            made[f"{case}/{height}x{width}"] = some(pixels.astype(np.float32))
    np.savez_compressed(HERE / "processors.npz", **made)


if __name__ == "__main__":
    main()
