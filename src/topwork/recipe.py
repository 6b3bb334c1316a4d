"""All settings of one training, each default once; to and from TOML."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from topwork.errors import InputError, one_of

Fit = Literal["stretch", "crop"]
FitChoice = Literal["auto", "stretch", "crop"]
Views = Literal["one", "flip", "dihedral"]
Precision = Literal["auto", "f32", "bf16"]
Pool = Literal["auto", "cls", "mean", "cls+mean", "pooler"]
PixelRange = Literal["0..1", "-1..1", "0..255", "imagenet", "caffe"]
PixelChoice = Literal["auto", "0..1", "-1..1", "0..255", "imagenet", "caffe"]
HeadKind = Literal["linear", "kernel", "mlp", "centroid"]
FeatureChoice = Literal["auto", "last", "stages"]
ClassWeight = Literal["none", "balanced"]
FinetuneMode = Literal["head", "tail", "full", "auto"]
Flips = Literal["none", "horizontal", "both"]
ExportFormat = Literal["openvino", "onnx", "savedmodel", "litert", "keras", "tfhub"]
ExportPrecision = Literal["f32", "bf16", "fp16", "int8"]
ExportInput = Literal["sized", "any"]


@dataclass(frozen=True, slots=True)
class Help:
    """What the command line says of a setting. Its option is named as the field, unless `option` is given."""

    text: str = ""
    option: str = ""
    unset: str = ""  # what None stands for
    within: tuple[float, float] | None = None  # the least value and the greatest
    heading: str = ""  # what the options stand under; of a part: those of all its settings


@dataclass(frozen=True, slots=True)
class BackboneRecipe:
    """Which network makes the features, and how it sees a picture (see `backbone.load_backbone`)."""

    handle: Annotated[
        str, Help("Pretrained network: efficientnet-lite0, -lite1, -lite2, any handle or path.", "--backbone")
    ] = "efficientnet-lite0"
    size_px: Annotated[
        int | None,
        Help("Side of the network's square input, in pixels.", "--size", unset="the size it was trained at"),
    ] = None
    fit: Annotated[
        FitChoice, Help("How to make a picture square; auto: as the network's source states, else stretch.")
    ] = "auto"
    views: Annotated[Views, Help("Average each picture's features over mirrored or turned copies.")] = "one"
    precision: Annotated[Precision, Help("Number format that the network computes in.")] = "auto"
    pixels: Annotated[PixelChoice, Help("Pixel values it expects, where its file doesn't say.")] = "auto"
    pool: Annotated[
        Pool, Help("How a transformer's tokens become features; auto: as its library pools them.")
    ] = "auto"


@dataclass(frozen=True, slots=True)
class SplitRecipe:
    """How images are set apart where the data does not say (see `data.split.split`)."""

    test: Annotated[float, Help("Share of the images held out for the test.")] = 0.2
    validation: Annotated[float, Help("Share to choose settings by; 0 for cross-validation instead.")] = 0.0
    seed: Annotated[int, Help("Random seed of the split.")] = 0
    folds: Annotated[int, Help("Number of cross-validation folds.", within=(2, math.inf))] = 5
    group_by: Annotated[
        str | None,
        Help("What never to split up: a manifest's column, or a pattern on the path.", unset="single images"),
    ] = None
    copies: Annotated[bool, Help("Look for copies and odd pictures, and never split up copies.")] = True


@dataclass(frozen=True, slots=True)
class HeadRecipe:
    """The classifier on top. `features` "auto" takes the last layer or all stages: the better when held out."""

    kind: Annotated[HeadKind, Help("Kind of classifier on top of the network.", "--head")] = "linear"
    features: Annotated[FeatureChoice, Help("Layers whose features the classifier sees.")] = "auto"
    class_weight: Annotated[ClassWeight, Help("Whether rare classes count as much as others.")] = "none"
    reject: Annotated[
        float, Help('Share of pictures of known classes that may be called "none of these"; 0 for never.')
    ] = 0.01


@dataclass(frozen=True, slots=True)
class AugmentRecipe:
    """How pictures are changed while a network learns from them: only in ways that leave the label true."""

    flips: Annotated[Flips, Help("How to mirror training pictures at random.")] = "horizontal"
    turns: Annotated[bool, Help("Also turn pictures by 90, 180 and 270 degrees.")] = False
    crop: Annotated[
        float, Help("Smallest share of a picture that a random crop keeps; 1 for no crops.", within=(0.05, 1))
    ] = 1.0
    colour: Annotated[
        float, Help("Random change of brightness, contrast and saturation; 0.1: up to 10 %.", within=(0, 1))
    ] = 0.0


@dataclass(frozen=True, slots=True)
class FinetuneRecipe:
    """Whether the network itself learns too, and how (see `tuning.tune`). Rates are per step of a batch."""

    mode: Annotated[
        FinetuneMode,
        Help("Train the head alone, or the network's tail too, or all of it; auto decides.", "--finetune"),
    ] = "head"
    cut: Annotated[
        str | None, Help("Block after which the tail begins.", unset="by cost and gain on validation images")
    ] = None
    native: Annotated[bool, Help("Use a SavedModel's own training mode; with mode full only.")] = False
    minutes: Annotated[float, Help("Rough time limit; at least one epoch is run.", within=(0.01, 1e5))] = 15.0
    epochs: Annotated[int, Help("Passes over the training images, at most.", within=(1, 10_000))] = 15
    views: Annotated[int, Help("Augmented copies of each picture for the tail.", within=(1, 1000))] = 8
    batch: Annotated[int, Help("Images in a training step.", within=(1, 4096))] = 32
    rate: Annotated[float, Help("Peak learning rate.", within=(1e-8, 1))] = 3e-4
    rate_decay: Annotated[float, Help("Share of the rate for the next stage below.", within=(0, 1))] = 0.8
    weight_decay: Annotated[float, Help("Weight decay.", within=(0, 10))] = 0.05
    label_smoothing: Annotated[float, Help("Label smoothing.", within=(0, 0.9))] = 0.1
    average: Annotated[float, Help("Decay of the moving average of the weights.", within=(0, 0.9999))] = 0.99
    validation: Annotated[
        float,
        Help("Share of training images to stop and choose by, if none are set aside.", within=(0.01, 0.9)),
    ] = 0.15
    disk_gb: Annotated[float, Help("Disk space for stored activations, at most.", within=(0, 1e6))] = 10.0
    augment: Annotated[AugmentRecipe, Help()] = field(default_factory=AugmentRecipe)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training, whole.

    >>> Recipe().head.kind
    'linear'
    >>> Recipe.from_toml(Recipe().to_toml()) == Recipe()
    True
    """

    backbone: Annotated[BackboneRecipe, Help(heading="Network")] = field(default_factory=BackboneRecipe)
    split: Annotated[SplitRecipe, Help(heading="Data")] = field(default_factory=SplitRecipe)
    head: Annotated[HeadRecipe, Help(heading="Classifier")] = field(default_factory=HeadRecipe)
    finetune: Annotated[FinetuneRecipe, Help(heading="Fine-tuning")] = field(default_factory=FinetuneRecipe)
    strict: Annotated[bool, Help("Stop at an image that can't be read.", "--strict", heading="Data")] = False

    def __post_init__(self) -> None:
        for setting in settings(self):
            _check(setting)
        if not 0 <= self.head.reject < 1:
            raise InputError(f"head.reject must be a share from 0 to below 1; got {self.head.reject:g}")
        if self.finetune.native and self.finetune.mode != "full":
            raise InputError(
                "finetune.native tunes a SavedModel end to end: it goes with the mode full only; "
                f"got {self.finetune.mode}"
            )

    def to_toml(self) -> str:
        """The recipe as TOML; what is None is left out."""
        import tomli_w

        text: str = tomli_w.dumps(_without_none(dataclasses.asdict(self)))
        return text

    @classmethod
    def from_toml(cls, text: str, *, name: str = "recipe") -> Recipe:
        """Read what `to_toml` wrote, or a part of it: what is missing keeps its default.

        Raises:
            InputError: not TOML, an unknown name, or a value of the wrong type, with its place.
        """
        try:
            plain = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{name}: expected TOML; {error}") from None
        return _fill(cls, plain, name)  # type: ignore[no-any-return]

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a TOML file."""
        try:
            return cls.from_toml(Path(path).read_text(encoding="utf-8"), name=str(path))
        except OSError as error:
            raise InputError(f"{path}: expected a recipe (TOML); {error.strerror}") from None
        except UnicodeDecodeError:
            raise InputError(f"{path}: expected a recipe (TOML); it is not text") from None


class Setting(NamedTuple):
    """One setting of a recipe: its path such as `finetune.augment.crop`, its type, what it is set to, its help."""

    path: str
    kind: Any
    value: Any
    help: Help
    heading: str

    @property
    def name(self) -> str:
        """Its field's name."""
        return self.path.rpartition(".")[2]


def settings(part: Any, place: str = "", heading: str = "") -> Iterator[Setting]:
    """All settings of a recipe, or of a part of it, in their order."""
    for name, (kind, about) in _fields(part.__class__).items():
        value, under = getattr(part, name), about.heading or heading
        if dataclasses.is_dataclass(value):
            yield from settings(value, f"{place}{name}.", under)
        else:
            yield Setting(f"{place}{name}", kind, value, about, under)


@cache
def _fields(part: Any) -> dict[str, tuple[Any, Help]]:
    hints = get_type_hints(part, include_extras=True)
    return {name: (hint.__origin__, hint.__metadata__[0]) for name, hint in hints.items()}


def _check(setting: Setting) -> None:
    value, known, within = setting.value, get_args(setting.kind), setting.help.within
    if get_origin(setting.kind) is Literal and value not in known:
        raise InputError(one_of(str(value), known, what=setting.name))
    if within and not within[0] <= value <= within[1]:
        span = f"{within[0]:g} " + ("or more" if within[1] == math.inf else f"to {within[1]:g}")
        raise InputError(f"{setting.path} must be {span}; got {value:g}")


def _without_none(plain: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in plain.items()
        if value is not None
    }


def _fill(kind: Any, plain: dict[str, Any], place: str) -> Any:
    fields = _fields(kind)
    values = {}
    for name, value in plain.items():
        if name not in fields:
            raise InputError(f"{place}: " + one_of(name, fields, what="setting"))
        hint, where = fields[name][0], f"{place}: {name}"
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, dict):
                raise InputError(f"{where}: expected a table; got {value!r}")
            values[name] = _fill(hint, value, where)
        else:
            values[name] = _checked(value, hint, where)
    return kind(**values)


def _checked(value: Any, hint: Any, where: str) -> Any:
    """TOML knows 1 and 1.0, true and "true": a setting takes its own type only, but a whole number as a float."""
    if (choices := get_args(hint)) and all(isinstance(c, str) for c in choices):
        if value not in choices:
            raise InputError(f"{where}: " + one_of(str(value), choices, what="value"))
        return value
    kinds = tuple(k for k in (choices or (hint,)) if k is not type(None))
    if float in kinds and type(value) is int:
        return float(value)
    if type(value) not in kinds:
        expected = " or ".join(k.__name__ for k in kinds)
        raise InputError(f"{where}: expected {expected}; got {value!r}")
    return value
