"""The image processors of Transformers: what each does where a network's file is silent.

From `models/*/image_processing_*.py` of Transformers 5.24. Earlier versions had other defaults for a few; files of
any version state nearly all of it.
"""

from __future__ import annotations

from typing import NamedTuple

from topwork.backbones.json_values import Plain, Three
from topwork.graphs.pixels import IMAGENET_DEVIATION, IMAGENET_MEAN
from topwork.images.framing import Resample

HALF: Three = (0.5, 0.5, 0.5)
CLIP_MEAN: Three = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION: Three = (0.26862954, 0.26130258, 0.27577711)
_HALF, _CLIP, _IMAGENET = (HALF, HALF), (CLIP_MEAN, CLIP_DEVIATION), (IMAGENET_MEAN, IMAGENET_DEVIATION)


class Defaults(NamedTuple):
    """What an image processor does by default."""

    size: Plain
    crop: int | None = None  # the side of the centre crop
    crops: bool = False  # whether it takes it
    resample: Resample = "bicubic"
    normal: tuple[Three, Three] | None = _HALF  # mean and deviation; None: it never normalises
    square: bool = True  # whether a size that is one number is both sides, rather than the shorter one
    share: float | None = None  # `crop_pct`
    bgr: bool = False


def both(side: int) -> Plain:
    return {"height": side, "width": side}


def edge(side: int) -> Plain:
    return {"shortest_edge": side}


_CLIPS = Defaults(edge(224), 224, True, normal=_CLIP, square=False)
_MOBILE = Defaults(edge(256), 224, True, "bilinear", square=False)
PROCESSORS = {
    "BeitImageProcessor": Defaults(both(224), 224),
    "BitImageProcessor": _CLIPS,
    "BlipImageProcessor": Defaults(both(384), normal=_CLIP),
    "ChineseCLIPImageProcessor": _CLIPS,
    "CLIPImageProcessor": _CLIPS,
    "ConvNextImageProcessor": Defaults(edge(384), square=False, share=0.875),
    "DeiTImageProcessor": Defaults(both(256), 224, True),
    # It resizes numbers that are not rounded afterwards: pixels differ from these by up to half a level.
    "DINOv3ViTImageProcessor": Defaults(both(224), resample="bilinear", normal=_IMAGENET),
    "EfficientNetImageProcessor": Defaults(both(346), 289),
    "LevitImageProcessor": Defaults(edge(224), 224, True, normal=_IMAGENET, square=False),
    "MobileNetV1ImageProcessor": _MOBILE,
    "MobileNetV2ImageProcessor": _MOBILE,
    "MobileViTImageProcessor": Defaults(edge(224), 256, True, normal=None, square=False, bgr=True),
    "PoolFormerImageProcessor": Defaults(edge(224), 224, True, normal=_IMAGENET, square=False, share=0.9),
    "PvtImageProcessor": Defaults(both(224), normal=_IMAGENET),
    "SegformerImageProcessor": Defaults(both(512), resample="bilinear", normal=_IMAGENET),
    "SiglipImageProcessor": Defaults(both(224), square=False),
    "ViTImageProcessor": Defaults(both(224), resample="bilinear"),
}
UNKNOWN = Defaults({})

# The processor of a network whose file doesn't name one, by its `model_type`.
OF_MODELS = {
    "beit": "Beit",
    "bit": "Bit",
    "clip": "CLIP",
    "clip_vision_model": "CLIP",
    "convnext": "ConvNext",
    "convnextv2": "ConvNext",
    "cvt": "ConvNext",
    "data2vec-vision": "Beit",
    "deit": "DeiT",
    "dinat": "ViT",
    "dinov2": "Bit",
    "dinov3_vit": "DINOv3ViT",
    "efficientnet": "EfficientNet",
    "focalnet": "Bit",
    "hiera": "Bit",
    "ijepa": "ViT",
    "levit": "Levit",
    "mobilenet_v1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "mobilevit": "MobileViT",
    "mobilevitv2": "MobileViT",
    "poolformer": "PoolFormer",
    "pvt": "Pvt",
    "pvt_v2": "Pvt",
    "regnet": "ConvNext",
    "resnet": "ConvNext",
    "segformer": "Segformer",
    "siglip": "Siglip",
    "siglip_vision_model": "Siglip",
    "swiftformer": "ViT",
    "swin": "ViT",
    "swinv2": "ViT",
    "vit": "ViT",
    "vit_mae": "ViT",
    "vit_msn": "ViT",
}
