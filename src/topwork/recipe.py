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
ExportFormat = Literal["tfhub"]


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


@dataclass(frozen=True, slots=True)
class HeadRecipe:
    """The classifier on top. `features` "auto" takes the last layer or all stages: the better when held out."""

    kind: HeadKind = "linear"
    features: FeatureChoice = "auto"
    class_weight: ClassWeight = "none"


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
        ):
            value = getattr(part, name)
            if value not in get_args(known):
                raise InputError(one_of(str(value), get_args(known), what=name))
        if self.split.folds < 2:
            raise InputError(f"split.folds must be 2 or more; got {self.split.folds}")

    def to_toml(self) -> str:
        """The recipe as TOML; what is None is left out."""
        import tomli_w

        plain = dataclasses.asdict(self)
        for value in plain.values():
            if isinstance(value, dict):
                for name in [name for name, v in value.items() if v is None]:
                    del value[name]
        text: str = tomli_w.dumps(plain)
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
