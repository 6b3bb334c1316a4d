"""A backbone: a published network made ready here, and all that is known of it, in one frozen record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from topwork import graph as graphs
from topwork.errors import InputError, one_of
from topwork.hub import builtin
from topwork.images import DECODER
from topwork.recipe import Fit, Precision, Views

if TYPE_CHECKING:
    import openvino as ov

LAST, LAST_ROOTED = "last", "last_rooted"
SMALLEST_PX, LARGEST_PX = 32, 1024


@dataclass(frozen=True, slots=True)
class Block:
    """A named range of the feature vector: the channels of one place in the network, averaged over the picture."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class BackboneFacts:
    """What is known of a backbone and travels with a classifier. `precision` is what it runs in, never "auto"."""

    handle: str
    size_px: int
    fit: Fit
    views: Views
    precision: Precision
    blocks: tuple[Block, ...]
    license: str
    source: str
    fingerprint: str

    @property
    def width(self) -> int:
        """How many numbers a feature vector has."""
        return self.blocks[-1].stop

    def columns(self, names: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The positions in the feature vector of the blocks `names`, in the vector's own order."""
        ranges = [np.arange(b.start, b.stop) for b in self.blocks if b.name in names]
        return np.concatenate(ranges).astype(np.int64)

    def __str__(self) -> str:
        views = "" if self.views == "one" else f", views {self.views}"
        return f"{self.handle} at {self.size_px} px, {self.precision}{views}"

    def to_dict(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "blocks"}
        return plain | {"blocks": [[b.name, b.start, b.stop] for b in self.blocks]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> BackboneFacts:
        known = {name: plain[name] for name in cls.__slots__ if name != "blocks"}
        return cls(**known, blocks=tuple(Block(name, start, stop) for name, start, stop in plain["blocks"]))


@dataclass(frozen=True, slots=True, eq=False)
class Backbone:
    """Facts, and the graph: `image` uint8 (1, S, S, 3) in [0, 255] RGB to `features` float32 (1, width)."""

    facts: BackboneFacts
    graph: ov.Model


def load_backbone(
    handle: str,
    *,
    size_px: int | None = None,
    fit: Fit = "stretch",
    views: Views = "one",
    precision: Precision = "auto",
) -> Backbone:
    """Make a network ready as a feature extractor.

    Args:
        handle: the network's name.
        size_px: the side of its square input; None for the size it was trained at.
        fit: how a picture that is not square becomes so.
        views: which turned copies of each picture are averaged.
        precision: "auto" takes bf16 where the processor computes in it, else f32.

    Raises:
        InputError: an unknown name, or a size out of range.
        MissingExtra: the package with the network's weights is not installed.

    >>> load_backbone("efficientnet-lite0").facts.width
    11520
    """
    if handle not in builtin.LITES:
        raise InputError(one_of(handle, builtin.LITES, what="backbone"))
    if fit not in get_args(Fit):
        raise InputError(one_of(fit, get_args(Fit), what="fit"))
    size_px = builtin.LITES[handle].size_px if size_px is None else size_px
    if not SMALLEST_PX <= size_px <= LARGEST_PX:
        raise InputError(f"the input size must be {SMALLEST_PX} to {LARGEST_PX} px; got {size_px}")
    whole = builtin.build(handle, size_px=size_px)
    # All stages: what each block saw, widened, before it was squeezed, and the last layer; rooted. Beside them the
    # last layer as it was published. docs/benchmarks.md has what else was measured.
    seen = [name for output in whole.outputs for name in output.names if name.startswith("block")]
    graph = graphs.average_views(graphs.pool(whole, [LAST], rooted=[*seen, LAST]), views)
    names = (*seen, LAST_ROOTED, LAST)
    stops = np.cumsum([whole.output(name).shape[1] for name in (*seen, LAST, LAST)]).tolist()
    starts = [0, *stops[:-1]]
    blocks = tuple(Block(*block) for block in zip(names, starts, stops, strict=True))
    precision = resolve_precision(precision)
    facts = BackboneFacts(
        handle=handle,
        size_px=size_px,
        fit=fit,
        views=views,
        precision=precision,
        blocks=blocks,
        license="Apache-2.0",
        source=f"https://pypi.org/project/{builtin.LITES[handle].package}/",
        fingerprint=_fingerprint(graph, fit, precision),
    )
    return Backbone(facts, graph)


def resolve_precision(precision: Precision) -> Precision:
    """What "auto" means on this processor; f32 and bf16 stay as they are."""
    if precision not in get_args(Precision):
        raise InputError(one_of(precision, get_args(Precision), what="precision"))
    if precision != "auto":
        return precision
    import openvino as ov

    return "bf16" if "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def _fingerprint(graph: ov.Model, fit: Fit, precision: Precision) -> str:
    """All that a feature depends on besides the image's bytes."""
    facts = [graphs.digest(graph), DECODER, fit, precision]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
