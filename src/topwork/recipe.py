"""All settings of one training, each default once; to and from TOML."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from topwork.errors import InputError, one_of

Fit = Literal["stretch", "crop"]
Views = Literal["one", "flip", "dihedral"]
Precision = Literal["auto", "f32", "bf16"]
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
class BackboneRecipe:
    """Which network makes the features, and how it sees a picture (see `backbone.load_backbone`)."""

    handle: str = "efficientnet-lite0"
    size_px: int | None = None  # None: the size it was trained at
    fit: Fit = "stretch"
    views: Views = "one"
    precision: Precision = "auto"
    pixels: PixelChoice = "auto"  # the values that a module wants, where its file doesn't say


@dataclass(frozen=True, slots=True)
class SplitRecipe:
    """How images are set apart where the data does not say (see `data.split.split`)."""

    test: float = 0.2
    validation: float = 0.0  # 0: settings are chosen by cross-validation on the training images
    seed: int = 0
    folds: int = 5
    group_by: str | None = None  # a manifest's column, or a pattern on the path: what stays on one side
    copies: bool = True  # whether near copies stay on one side, too


@dataclass(frozen=True, slots=True)
class HeadRecipe:
    """The classifier on top. `features` "auto" takes the last layer or all stages: the better when held out."""

    kind: HeadKind = "linear"
    features: FeatureChoice = "auto"
    class_weight: ClassWeight = "none"
    reject: float = (
        0.01  # the share of pictures of the known classes that may be called "none of these"; 0: no rule
    )


@dataclass(frozen=True, slots=True)
class AugmentRecipe:
    """How pictures are changed while a network learns from them: only in ways that leave the label true."""

    flips: Flips = "horizontal"
    turns: bool = False  # by 90, 180 and 270 degrees
    crop: float = 1.0  # the smallest share of the picture that a random crop keeps; 1: no crops
    colour: float = 0.0  # of random changes of brightness, contrast and saturation; 0.1: each by up to 10 %


@dataclass(frozen=True, slots=True)
class FinetuneRecipe:
    """Whether the network itself learns too, and how (see `tuning.tune`). Rates are per step of a batch."""

    mode: FinetuneMode = "head"
    cut: str | None = None  # where the tail begins; None: by its cost, and by what validation images gain
    native: bool = False  # with "full": a SavedModel by its own training mode, not its graph
    minutes: float = 15.0  # what tuning may take, about: as many epochs as fit are planned, one at least
    epochs: int = 15
    views: int = (
        8  # augmented copies of each picture that the tail learns from; its prefix is run once for each
    )
    batch: int = 32
    rate: float = 3e-4
    rate_decay: float = 0.8  # of the rate, from each stage to the one below it
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    average: float = 0.99  # decay of the moving average of the weights
    validation: float = 0.15  # share of the training images to stop and choose by, if no part is set aside
    disk_gb: float = 10.0  # what stored activations may take, at most
    augment: AugmentRecipe = field(default_factory=AugmentRecipe)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training, whole.

    >>> Recipe().head.kind
    'linear'
    >>> Recipe.from_toml(Recipe().to_toml()) == Recipe()
    True
    """

    backbone: BackboneRecipe = field(default_factory=BackboneRecipe)
    split: SplitRecipe = field(default_factory=SplitRecipe)
    head: HeadRecipe = field(default_factory=HeadRecipe)
    finetune: FinetuneRecipe = field(default_factory=FinetuneRecipe)
    strict: bool = False

    def __post_init__(self) -> None:
        for part, name, known in (
            (self.backbone, "fit", Fit),
            (self.backbone, "views", Views),
            (self.backbone, "precision", Precision),
            (self.backbone, "pixels", PixelChoice),
            (self.head, "kind", HeadKind),
            (self.head, "features", FeatureChoice),
            (self.head, "class_weight", ClassWeight),
            (self.finetune, "mode", FinetuneMode),
            (self.finetune.augment, "flips", Flips),
        ):
            value = getattr(part, name)
            if value not in get_args(known):
                raise InputError(one_of(str(value), get_args(known), what=name))
        if not 0 <= self.head.reject < 1:
            raise InputError(f"head.reject must be a share from 0 to below 1; got {self.head.reject:g}")
        if self.split.folds < 2:
            raise InputError(f"split.folds must be 2 or more; got {self.split.folds}")
        _check_tuning(self.finetune)

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


def _check_tuning(tuning: FinetuneRecipe) -> None:
    for name, value, least, most in (
        ("minutes", tuning.minutes, 0.01, 1e5),
        ("epochs", tuning.epochs, 1, 10_000),
        ("views", tuning.views, 1, 1000),
        ("batch", tuning.batch, 1, 4096),
        ("rate", tuning.rate, 1e-8, 1.0),
        ("rate_decay", tuning.rate_decay, 0.0, 1.0),
        ("weight_decay", tuning.weight_decay, 0.0, 10.0),
        ("label_smoothing", tuning.label_smoothing, 0.0, 0.9),
        ("average", tuning.average, 0.0, 0.9999),
        ("validation", tuning.validation, 0.01, 0.9),
        ("disk_gb", tuning.disk_gb, 0.0, 1e6),
        ("augment.crop", tuning.augment.crop, 0.05, 1.0),
        ("augment.colour", tuning.augment.colour, 0.0, 1.0),
    ):
        if not least <= value <= most:
            raise InputError(f"finetune.{name} must be {least:g} to {most:g}; got {value:g}")
    if tuning.native and tuning.mode != "full":
        raise InputError(
            f"finetune.native tunes a SavedModel end to end: it goes with the mode full only; got {tuning.mode}"
        )


def _without_none(plain: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in plain.items()
        if value is not None
    }


def _fill(kind: Any, plain: dict[str, Any], place: str) -> Any:
    hints = get_type_hints(kind)
    values = {}
    for name, value in plain.items():
        if name not in hints:
            raise InputError(f"{place}: " + one_of(name, hints, what="setting"))
        hint, where = hints[name], f"{place}: {name}"
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
