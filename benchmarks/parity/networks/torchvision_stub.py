"""Import timm without torchvision, which has no build for CPUs here: its networks need none of it.

While timm is imported, stand-ins take the place of torchvision's modules; afterwards they are gone, so that other
libraries see that there is none.
"""

from __future__ import annotations

import enum
import importlib.machinery
import sys
import types
from typing import Any, ClassVar

PARTS = (
    "torchvision",
    *(f"torchvision.{name}" for name in ("transforms", "datasets", "ops", "models", "utils", "io")),
    *(f"torchvision.transforms.{name}" for name in ("functional", "v2", "v2.functional")),
    *("torchvision.datasets.folder", "torchvision.ops.misc", "torchvision.models.feature_extraction"),
)


class _Any(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class Anything(metaclass=_Any):
    def __init__(self, *_: Any, **__: Any) -> None:
        pass


class InterpolationMode(enum.Enum):
    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class _Module(types.ModuleType):
    __version__ = "0.28.0"
    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return InterpolationMode if name == "InterpolationMode" else Anything


def _import_timm() -> Any:
    for name in PARTS:
        module = _Module(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name] = module
    try:
        import timm
        import timm.models._hub
    finally:
        for name in PARTS:
            sys.modules.pop(name, None)
    return timm


timm = _import_timm()
