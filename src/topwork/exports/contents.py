"""The metadata that is written into every exported file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from topwork.images.framing import Framing

KEY = "topwork"  # the name of the metadata entry
HEAD = "head/"  # prefix of the names of nodes that are not part of the backbone
InputKind = Literal["sized", "any"]


@dataclass(frozen=True, slots=True)
class Contents:
    """The metadata of a classifier; all values can be represented in JSON."""

    classes: tuple[str, ...]
    size_px: tuple[int, int]  # height, width
    input: InputKind  # "sized": uint8 RGB (1, height, width, 3), resized by the caller; "any": resized by the network
    fit: Framing  # how a picture is resized to `size_px`: "stretch", "crop" to its centre, or as a source states
    temperature: float  # the logits are divided by it, inside the network
    reject_threshold: float | None  # the distance at which `novelty` is 1; None without that output
    reject_rate: float | None  # share of in-distribution pictures that are rejected
    least_probability: dict[
        str, float
    ]  # coverage ("0.90") → least probability of a class in the prediction set
    backbone: str
    licence: str
    precision: str
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"fit": self.fit.to_plain()}

    def to_json(self) -> str:
        """On one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Contents:
        plain = json.loads(text)
        own = {"classes": tuple(plain["classes"]), "size_px": tuple(plain["size_px"])}
        return cls(**{**plain, **own, "fit": Framing.from_plain(plain["fit"])})
