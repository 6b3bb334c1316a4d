"""How a picture of any shape becomes the square that a network takes, and how that is written in a run's files.

Topwork's own ways are "stretch" and "crop". A network's source may state another one, which names a filter. It is
followed step by step, as Transformers, torchvision and timm do it with Pillow: the whole picture is resized, then the
centre is cut out at whole pixels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from topwork.errors import InputError, one_of
from topwork.recipe import Fit

Resample = Literal[
    "nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"
]  # in the order of Pillow's numbers
Margin = Literal["floor", "even"]

LARGEST_PX = 10_000


@dataclass(frozen=True, slots=True)
class Framing:
    """One way to make pictures square; `Framing("stretch")` and `Framing("crop")` are Topwork's own.

    `fit`: "stretch" ignores the aspect ratio; "crop" resizes the shorter side and cuts out the centre.
    `resample`: the filter of Pillow's that the source names; None for Topwork's own way (see `decode`).
    `resized_px`: the shorter side after resizing, or both when stretched; None for size / `share`, rounded down.
    `share`: the side of the cut over the resized side (timm's `crop_pct`).
    `margin`: where the half pixel of an odd margin goes: "floor" to the right and bottom (Transformers), "even" to
    where the number of pixels cut off at the left is even (torchvision, timm).

    >>> str(Framing("crop", "bilinear", resized_px=256))
    'resize 256, crop, bilinear'
    >>> Framing("crop").to_plain(), Framing.from_plain("stretch")
    ('crop', Framing(fit='stretch', resample=None, resized_px=None, share=1.0, margin='floor'))
    """

    fit: Fit
    resample: Resample | None = None
    resized_px: int | None = None
    share: float = 1.0
    margin: Margin = "floor"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("fit", self.fit, get_args(Fit)),
            ("resample", self.resample, (*get_args(Resample), None)),
            ("margin", self.margin, get_args(Margin)),
        ):
            if value not in known:
                raise InputError(one_of(str(value), (k for k in known if k), what=name))
        px, share = self.resized_px, self.share
        if px is not None and not (type(px) is int and 1 <= px <= LARGEST_PX):
            raise InputError(f"`resized_px` must be an int from 1 to {LARGEST_PX}; got {px!r}")
        if type(share) not in (int, float) or not 0.01 <= share <= 1:
            raise InputError(f"`share` must be a number from 0.01 to 1; got {share!r}")
        if px is not None and share != 1:
            raise InputError(f"`resized_px` and `share` exclude each other; got {px} and {share:g}")
        if self.own and (px, share, self.margin) != (None, 1, "floor"):
            raise InputError("`resized_px`, `share` and `margin` need a `resample`; got None")

    @property
    def own(self) -> bool:
        """Whether it is one of Topwork's own ways, rather than one that a source states."""
        return self.resample is None

    @property
    def cuts(self) -> bool:
        """Whether anything of a resized picture may be cut off."""
        return self.fit == "crop" or self.resized_px is not None or self.share != 1

    def resized(self, size_px: int) -> int:
        """The resized shorter side, or both sides when stretched, of which `size_px` are cut out.

        Raises:
            InputError: it is smaller than the cut.
        """
        resized_px = self.resized_px or math.floor(size_px / self.share)
        if resized_px < size_px:
            raise InputError(
                f"expected pictures resized to at least {size_px} px, the size that is cut out; got {resized_px} px"
            )
        return resized_px

    def resized_size(self, size: tuple[int, int], size_px: int) -> tuple[int, int]:
        """(width, height) that a picture of `size` (width, height) is resized to; the longer side is rounded down."""
        side = self.resized(size_px)
        if self.fit == "stretch":
            return side, side
        width, height = size
        if width <= height:
            return side, int(side * height / width)
        return int(side * width / height), side

    def cut(self, resized: int, size_px: int) -> int:
        """The number of pixels cut off at the left of `resized` pixels, or at the top, to keep `size_px`."""
        return (resized - size_px) // 2 if self.margin == "floor" else round((resized - size_px) / 2)

    def scaled(self, own_px: int, size_px: int) -> Framing:
        """The same framing for a network that takes `size_px` instead of the stated `own_px`."""
        if self.resized_px is None or own_px == size_px:
            return self
        return dataclasses.replace(self, resized_px=max(size_px, self.resized_px * size_px // own_px))

    def __str__(self) -> str:
        if self.own:
            return self.fit
        side = self.resized_px
        if self.fit == "stretch":
            steps = ["stretch"] if side is None else [f"stretch to {side}", "crop"]
        else:
            steps = ["crop"] if side is None else [f"resize {side}", "crop"]
        if self.share != 1:
            steps = [*(["stretch"] if self.fit == "stretch" else []), f"crop {100 * self.share:g} %"]
        return ", ".join([*steps, str(self.resample)])

    def to_plain(self) -> str | dict[str, Any]:
        """For JSON: "stretch" or "crop", or a dictionary if a source states it."""
        return str(self) if self.own else dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, plain: object) -> Framing:
        """Read what `to_plain` gave.

        Raises:
            InputError: it is something else.
        """
        if isinstance(plain, str):
            return framing_of(plain)
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(plain, Mapping) or set(plain) != known or plain["resample"] is None:
            raise InputError(
                f"expected stretch, crop or a framing with {', '.join(sorted(known))}; got {plain!r}"
            )
        return cls(**plain)


def framing_of(fit: str | Framing) -> Framing:
    """The framing itself, or Topwork's own one of this name.

    Raises:
        InputError: an unknown name.
    """
    if isinstance(fit, Framing):
        return fit
    if fit not in get_args(Fit):
        raise InputError(one_of(str(fit), get_args(Fit), what="fit"))
    return Framing(fit)  # type: ignore[arg-type]
