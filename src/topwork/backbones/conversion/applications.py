"""The networks of `keras.applications`: their sizes, and what each does to pixels before its first layer.

The package says neither in a form that a program can read: the sizes stand in its documentation, the pixels'
treatment in a function `preprocess_input` beside each family (https://keras.io/api/applications/).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Pixels = Literal["bytes", "symmetric", "blue_first", "standardised"]
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB, of pixels in [0, 1]
BLUE_FIRST_MEAN = (103.939, 116.779, 123.68)  # BGR, of pixels in [0, 255]


@dataclass(frozen=True, slots=True)
class Application:
    """One network. `size_px`: what its ImageNet weights were trained at; `smallest_px`: what Keras allows."""

    name: str
    size_px: int
    pixels: Pixels
    smallest_px: int = 32


APPLICATIONS = {
    application.name: application
    for application in (
        *(
            Application(f"ConvNeXt{size}", 224, "bytes")
            for size in ("Tiny", "Small", "Base", "Large", "XLarge")
        ),
        *(Application(f"DenseNet{depth}", 224, "standardised") for depth in (121, 169, 201)),
        Application("EfficientNetB0", 224, "bytes"),
        Application("EfficientNetB1", 240, "bytes"),
        Application("EfficientNetB2", 260, "bytes"),
        Application("EfficientNetB3", 300, "bytes"),
        Application("EfficientNetB4", 380, "bytes"),
        Application("EfficientNetB5", 456, "bytes"),
        Application("EfficientNetB6", 528, "bytes"),
        Application("EfficientNetB7", 600, "bytes"),
        Application("EfficientNetV2B0", 224, "bytes"),
        Application("EfficientNetV2B1", 240, "bytes"),
        Application("EfficientNetV2B2", 260, "bytes"),
        Application("EfficientNetV2B3", 300, "bytes"),
        Application("EfficientNetV2S", 384, "bytes"),
        Application("EfficientNetV2M", 480, "bytes"),
        Application("EfficientNetV2L", 480, "bytes"),
        Application("InceptionResNetV2", 299, "symmetric", smallest_px=75),
        Application("InceptionV3", 299, "symmetric", smallest_px=75),
        Application("MobileNet", 224, "symmetric"),
        Application("MobileNetV2", 224, "symmetric"),
        Application("MobileNetV3Large", 224, "bytes"),
        Application("MobileNetV3Small", 224, "bytes"),
        Application("NASNetLarge", 331, "symmetric"),
        Application("NASNetMobile", 224, "symmetric"),
        *(Application(f"ResNet{depth}", 224, "blue_first") for depth in (50, 101, 152)),
        *(Application(f"ResNet{depth}V2", 224, "symmetric") for depth in (50, 101, 152)),
        Application("VGG16", 224, "blue_first"),
        Application("VGG19", 224, "blue_first"),
        Application("Xception", 299, "symmetric", smallest_px=71),
    )
}


def prepare(image: Any, pixels: Pixels) -> Any:
    """What the network's first layer gets: float32 (…, 3) RGB in [0, 1] to the family's own range.

    Arithmetic alone, so that NumPy's arrays and TensorFlow's tensors do alike.
    """
    if pixels == "bytes":  # the network holds its own rescaling
        return image * 255.0
    if pixels == "symmetric":
        return image * 2.0 - 1.0
    if pixels == "blue_first":
        return image[..., ::-1] * 255.0 - BLUE_FIRST_MEAN
    return (image - IMAGENET_MEAN) / IMAGENET_DEVIATION
