"""What a network's source states of its input: size, framing and pixel values.

Two libraries' files are read, by the rules of their code: Transformers 5.24 with Pillow (`image_transforms.py`,
`models/*/image_processing_pil_*.py`) and timm 1.0.31 (`data/config.py`, `data/transforms_factory.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from topwork.backbones.json_values import Plain, Reader, load_object, shown
from topwork.backbones.processors import HALF, OF_MODELS, PROCESSORS, UNKNOWN, Defaults, both
from topwork.errors import InputError
from topwork.graphs.pixels import IMAGENET_DEVIATION, IMAGENET_MEAN, Pixels, pixels_of
from topwork.images.framing import Framing, Resample
from topwork.recipe import Fit

NESTED, OWN, CONFIG = "processor_config.json", "preprocessor_config.json", "config.json"
FILES = (NESTED, OWN, CONFIG)  # that a repository may have; the first that states something decides

WARPED_PX = 384  # from this size on, ConvNeXt's processor stretches pictures instead of cropping them
TIMM_SHARE = 0.875  # timm's default `crop_pct`


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What a source states. `notes`: what of it can't be followed, each a sentence.

    `size_px`, `framing`, `pixels`: None where nothing is stated that can be followed. `source`: the file's name.
    """

    size_px: int | None
    framing: Framing | None
    pixels: Pixels | None
    source: str
    notes: tuple[str, ...] = ()

    def framing_at(self, size_px: int) -> Framing | None:
        """The framing for pictures of another size than the stated one, enlarged or reduced as they are."""
        if self.framing is None or self.size_px is None:
            return self.framing
        return self.framing.scaled(self.size_px, size_px)


def read_preprocessing(files: Mapping[str, Path]) -> Preprocessing | None:
    """What the files of a repository state, by their names; None if none of them states any preprocessing.

    Raises:
        InputError: a file isn't JSON, or has a value that makes no sense: its name, the key, what was expected.
    """
    plain = {name: load_object(files[name]) for name in FILES if name in files}
    config = plain.get(CONFIG, {})
    model_type = str(config.get("model_type", ""))
    own, source = plain.get(NESTED, {}).get("image_processor"), NESTED
    if own is None and OWN in plain:
        own, source = plain[OWN], OWN
    if own is not None and not isinstance(own, dict):
        raise InputError(f"{files[source]}: image_processor: expected an object; got {shown(own)}")
    if own is not None and "pretrained_cfg" in own:  # Transformers' wrapper of timm
        return parse_timm(own, name=str(files[source]))
    if own is not None and own.get("image_processor_type") != "TimmWrapperImageProcessor":
        return parse_transformers(own, name=str(files[source]), model_type=model_type)
    if "pretrained_cfg" in config or ("architecture" in config and "input_size" in config):
        return parse_timm(config, name=str(files[CONFIG]))
    return None


def parse_transformers(plain: Plain, *, name: str, model_type: str = "") -> Preprocessing:
    """What a `preprocessor_config.json` of Transformers states.

    Args:
        plain: the file's content.
        name: the file's, for errors.
        model_type: the network's kind, from its `config.json`, which tells the processor where the file doesn't.

    Raises:
        InputError: a value that makes no sense: the file, the key, what was expected.

    >>> file = {"image_processor_type": "ViTImageProcessor", "size": 224, "resample": 2}
    >>> found = parse_transformers(file, name="preprocessor_config.json")
    >>> found.size_px, str(found.framing), found.pixels.range
    (224, 'stretch, bilinear', '-1..1')
    """
    read = Reader(plain, name)
    processor = _processor_of(read, model_type)
    usual, file = PROCESSORS.get(processor), Path(name).name
    if usual is None:
        named = (
            f"image processor {processor[:60]!r} is unknown" if processor else "image processor isn't named"
        )
        note = f"its {named}: how it frames pictures is not followed ({file})"
        stated = plain.get("image_mean") is not None and plain.get("image_std") is not None
        return Preprocessing(None, None, _pixels(read, UNKNOWN, "") if stated else None, file, (note,))
    size_px, framing, problem = _framing(read, usual, processor)
    notes = (f"{problem} ({file})",) if problem else ()
    return Preprocessing(size_px, framing, _pixels(read, usual, processor), file, notes)


def parse_timm(plain: Plain, *, name: str) -> Preprocessing:
    """What the `config.json` of a network of timm's states, for evaluation at the size it was trained at.

    Raises:
        InputError: a value that makes no sense: the file, the key, what was expected.

    >>> file = {"pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 0.9, "interpolation": "bicubic"}}
    >>> found = parse_timm(file, name="config.json")
    >>> found.size_px, str(found.framing), found.pixels.range
    (224, 'crop 90 %, bicubic', 'imagenet')
    """
    inner = plain.get("pretrained_cfg", plain)
    if not isinstance(inner, dict):
        raise InputError(f"{name}: pretrained_cfg: expected an object; got {shown(inner)}")
    read, file = Reader(inner, name), Path(name).name
    channels, height, width = read.sides("input_size", 3) or (3, 224, 224)
    share = read.number("crop_pct", 0.0, within=(0, 100)) or TIMM_SHARE
    mode = read.text("crop_mode", "") or "center"
    filter_ = read.text("interpolation", "") or "bicubic"
    mean = read.three("mean") or IMAGENET_MEAN
    deviation = read.three("std", positive=True) or IMAGENET_DEVIATION
    size_px = height if channels == 3 and height == width else None
    framing, problem = None, ""
    if channels != 3:
        problem = f"it takes pictures of {channels} channels"
    elif height != width:
        problem = f"it takes pictures of {height} x {width} px, not squares"
    elif mode not in ("center", "squash"):
        problem = f"its crop mode is {mode[:60]!r}"
    elif filter_ not in get_args(Resample):
        problem = f"its interpolation is {filter_[:60]!r}"
    elif not 0.01 <= share <= 1:
        problem = f"it cuts out {share:g} times the resized picture"
    else:
        resample: Any = filter_
        framing = Framing("crop" if mode == "center" else "stretch", resample, share=share, margin="even")
    notes = (f"{problem}: how it frames pictures is not followed ({file})",) if problem else ()
    return Preprocessing(size_px, framing, pixels_of(mean, deviation), file, notes)


def _processor_of(read: Reader, model_type: str) -> str:
    """The name of the class in Transformers, without the words for its variants; "" where nothing tells it."""
    named = read.text("image_processor_type", "") or read.text("feature_extractor_type", "")
    if named:
        named = named.replace("FeatureExtractor", "ImageProcessor")
        return named.removesuffix("Fast").removesuffix("Pil")
    kind = OF_MODELS.get(model_type)
    return f"{kind}ImageProcessor" if kind else ""


def _framing(read: Reader, usual: Defaults, processor: str) -> tuple[int | None, Framing | None, str]:
    """The size of the network's input, how pictures get it, and what of that can't be followed."""
    size = read.size("size", usual.size, square=usual.square)
    crop = read.size("crop_size", both(usual.crop) if usual.crop else {}, square=True)
    resizes, crops = read.flag("do_resize", True), read.flag("do_center_crop", usual.crops)
    share = read.number("crop_pct", usual.share or 1, within=(0.01, 100)) if usual.share else 1.0
    number = read.number("resample", get_args(Resample).index(usual.resample), within=(0, 5))
    resample = get_args(Resample)[int(number)]
    if number != int(number):
        raise read.wrong("resample", "a whole number from 0 to 5", number)

    cut = crop.get("height") if crops else None
    if crops and crop.get("height") != crop.get("width"):
        return None, None, f"it crops pictures to {_sides(crop)}, not squares: that is not followed"
    if not resizes:
        return cut, None, "it doesn't resize pictures: how it frames them is not followed"
    if set(size) == {"shortest_edge"}:
        side = size["shortest_edge"]
        return _by_edge(side, cut, share, resample, processor)
    if set(size) == {"height", "width"} and size["height"] == size["width"]:
        side = size["height"]
        if processor == "PoolFormerImageProcessor":
            return _by_edge(side, cut, share, resample, processor)
        if cut is None or cut == side:
            return side, Framing("stretch", resample), ""
        return _cropped("stretch", side, cut, resample)
    return cut, None, f"it resizes pictures to {_sides(size)}, not squares: that is not followed"


def _by_edge(
    side: int, cut: int | None, share: float, resample: Resample, processor: str
) -> tuple[int | None, Framing | None, str]:
    """For a `side` that the shorter side is resized to; some processors resize it to more."""
    if processor == "ConvNextImageProcessor":
        if cut not in (None, side):
            return cut, None, f"it crops pictures twice, to {side} and {cut} px: that is not followed"
        if side >= WARPED_PX:
            return side, Framing("stretch", resample), ""
        if share > 1:
            return side, None, f"it cuts out {share:g} times the resized picture: that is not followed"
        return side, Framing("crop", resample, share=share), ""
    if processor == "LevitImageProcessor":
        side = int((256 / 224) * side)
    elif processor == "PoolFormerImageProcessor":
        side = int(side / share)
    if cut is not None:
        return _cropped("crop", side, cut, resample)
    note = "it keeps the shape of pictures; here they are cropped to their centre, since squares are needed"
    return side, Framing("crop", resample, resized_px=side), note


def _cropped(fit: Fit, side: int, cut: int, resample: Resample) -> tuple[int, Framing | None, str]:
    if cut > side:
        return cut, None, f"it pads pictures of {side} px to {cut} px: that is not followed"
    return cut, Framing(fit, resample, resized_px=side), ""


def _pixels(read: Reader, usual: Defaults, processor: str) -> Pixels:
    rescale = read.number("rescale_factor", 1 / 255, within=(1e-9, 1e9))
    own_mean, own_deviation = usual.normal or (HALF, HALF)
    mean = read.three("image_mean") or own_mean
    deviation = stated = read.three("image_std", positive=True) or own_deviation
    if usual.normal is None or not read.flag("do_normalize", True):
        mean, deviation = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if processor == "EfficientNetImageProcessor":
        if read.flag("rescale_offset", False):  # x · rescale − 1
            r, g, b = mean
            mean = (r + 1, g + 1, b + 1)
        if read.flag("include_top", True):  # divided by the stated deviation, also where it was already
            r, g, b = (d * more for d, more in zip(deviation, stated, strict=True))
            deviation = (r, g, b)
    rescale = rescale if read.flag("do_rescale", True) else 1.0
    return pixels_of(mean, deviation, rescale=rescale, bgr=read.flag("do_flip_channel_order", usual.bgr))


def _sides(size: Mapping[str, int]) -> str:
    """A size in words, such as "384 x 192 px" or "a longest edge of 448 px"."""
    if set(size) == {"height", "width"}:
        return f"{size['height']} x {size['width']} px"
    edges = [f"a {side[:40].replace('_', ' ')} of {length} px" for side, length in size.items()]
    return " and ".join(edges) or "no size"
