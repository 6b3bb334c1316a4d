"""What a receiver must know beside the network itself: written into every exported file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from topwork.recipe import Fit

KEY = "topwork"  # the name of the entry, in whatever the format has for such things
HEAD = "head/"  # how the names of those nodes begin that are not the backbone's
InputKind = Literal["sized", "any"]


@dataclass(frozen=True, slots=True)
class Contents:
    """The classifier's facts; all of them plain JSON.

    `input`: "sized", a uint8 RGB picture (1, height, width, 3) of exactly `size_px`, made so by the receiver; or
    "any", a picture of any size, which the network itself makes the right size. `fit`: how a picture becomes
    `size_px`: "stretch", or "crop" to its middle. `temperature`: what the logits are divided by, inside the network.
    `reject_threshold`: the distance at which the output `novelty` is 1; None where the network has no such output.
    `least_probability`: by coverage ("0.90"), how probable a class must be to stand in the prediction set.
    """

    classes: tuple[str, ...]
    size_px: tuple[int, int]
    input: InputKind
    fit: Fit
    temperature: float
    reject_threshold: float | None
    reject_rate: float | None
    least_probability: dict[str, float]
    backbone: str
    licence: str
    precision: str
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        """On one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Contents:
        plain = json.loads(text)
        return cls(**{**plain, "classes": tuple(plain["classes"]), "size_px": tuple(plain["size_px"])})
