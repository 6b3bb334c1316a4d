"""A backbone: a published network made ready here, and all that is known of it, in one frozen record."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from topwork.backbones.hub.resolve import Progress, Say
from topwork.backbones.module import Module, load_module
from topwork.errors import InputError, one_of
from topwork.graphs import compile as compiling
from topwork.graphs import features as graphs
from topwork.images.decode import DECODER
from topwork.images.framing import Framing, framing_of
from topwork.recipe import BackboneRecipe, FitChoice, PixelChoice, Pool, Precision, Views

if TYPE_CHECKING:
    import openvino as ov
from topwork.graphs.features import Block

LAST, LAST_ROOTED, TUNED = "last", "last_rooted", "tuned"


@dataclass(frozen=True, slots=True)
class BackboneFacts:
    """What is known of a backbone and travels with a classifier. `precision` is what it runs in, never "auto".

    `tuned`: what of it learnt from its user's own photos, such as "after block9"; empty where it is as published.
    `half`: whether its features are rounded to half precision, as in all but the runs of early versions.
    """

    handle: str
    size_px: int
    fit: Framing
    views: Views
    precision: Precision
    pixels: str
    blocks: tuple[Block, ...]
    license: str
    source: str
    fingerprint: str
    tuned: str = ""
    half: bool = False

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
        tuned = f", tuned {self.tuned}" if self.tuned else ""
        return f"{self.handle} at {self.size_px} px, {self.precision}{views}{tuned}"

    def to_dict(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "blocks"}
        plain["fit"] = self.fit.to_plain()
        return plain | {"blocks": [[b.name, b.start, b.stop] for b in self.blocks]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> BackboneFacts:
        later = {"tuned": "", "half": False}  # not in runs of early versions
        known = {name: plain[name] for name in cls.__slots__ if name not in ("blocks", *later)}
        known |= {name: plain.get(name, default) for name, default in later.items()}
        known["fit"] = Framing.from_plain(known["fit"])
        return cls(**known, blocks=tuple(Block(name, start, stop) for name, start, stop in plain["blocks"]))


@dataclass(frozen=True, slots=True, eq=False)
class Backbone:
    """Facts, and the graph: `image` uint8 (1, S, S, 3) in [0, 255] RGB to `features` float32 (1, width).

    `assumed`: what was assumed of it because nothing states it, each a sentence.
    """

    facts: BackboneFacts
    graph: ov.Model
    assumed: tuple[str, ...] = ()
    pixels_assumed: bool = False


def load_backbone(
    handle: str,
    *,
    size_px: int | None = None,
    fit: FitChoice = "auto",
    views: Views = "one",
    precision: Precision = "auto",
    pixels: PixelChoice = "auto",
    pool: Pool = "auto",
    progress: Progress | None = None,
    say: Say | None = None,
) -> Backbone:
    """Make a network ready as a feature extractor.

    Args:
        handle: the network's name, address or path (see `topwork.backbones.hub.handle`).
        size_px: the side of its square input; None for the size it was trained at.
        fit: how a picture that is not square becomes so; "auto" as its source states, else "stretch".
        views: which turned copies of each picture are averaged.
        precision: "auto" takes bf16 where the processor computes in it, else f32.
        pixels: the values it wants; "auto" for what its source states or it shows, else its format's custom.
        pool: how a transformer's last tokens become features; "auto" for what its library does.
        progress: told of the bytes fetched, and of how many there are.
        say: told of what else happens while fetching.

    Raises:
        InputError: an unknown name, a size out of range, or a network that takes no picture.
        TopworkError: it can't be fetched, or what came is damaged.
        MissingExtra: a package that it needs is not installed.

    >>> load_backbone("efficientnet-lite0").facts.width
    11520
    """
    if fit not in get_args(FitChoice):
        raise InputError(one_of(fit, get_args(FitChoice), what="fit"))
    precision = resolve_precision(precision)
    module = load_module(handle, size_px=size_px, range=pixels, pool=pool, progress=progress, say=say)
    framing = (module.framing or Framing("stretch")) if fit == "auto" else framing_of(fit)
    return backbone_of(module, fit=framing, views=views, precision=precision)


def backbone_from(
    recipe: BackboneRecipe, *, progress: Progress | None = None, say: Say | None = None
) -> Backbone:
    """`load_backbone` with a recipe's settings."""
    return load_backbone(
        recipe.handle,
        size_px=recipe.size_px,
        fit=recipe.fit,
        views=recipe.views,
        precision=recipe.precision,
        pixels=recipe.pixels,
        pool=recipe.pool,
        progress=progress,
        say=say,
    )


def backbone_of(module: Module, *, fit: Framing, views: Views, precision: Precision) -> Backbone:
    """Pool a module's stages and last layer into one feature vector.

    First all stages: what each block saw after its spatial filter, and the last layer where it can't be negative;
    rooted. Beside them the last layer as it was published. docs/notes/elpv.md has what else was measured. Stages that
    may be negative, a transformer's, are not rooted.
    """
    plain = module.stages if module.signed else ()
    rooted = (*(() if module.signed else module.stages), *((LAST,) if module.rectified else ()))
    graph = graphs.average_views(graphs.pool(module.graph, [*plain, LAST], rooted=rooted), views)
    names = (
        *(() if module.signed else module.stages),
        *((LAST_ROOTED,) if module.rectified else ()),
        *plain,
        LAST,
    )
    stops = np.cumsum([module.graph.output(name).shape[1] for name in (*rooted, *plain, LAST)]).tolist()
    starts = [0, *stops[:-1]]
    facts = BackboneFacts(
        handle=module.handle,
        size_px=module.size_px,
        fit=fit,
        views=views,
        precision=precision,
        pixels=module.pixels.range,
        blocks=tuple(Block(*block) for block in zip(names, starts, stops, strict=True)),
        license=module.license,
        source=module.source,
        fingerprint=_fingerprint(graph, fit, precision, half=True),
        half=True,
    )
    return Backbone(facts, graph, module.assumed, module.pixels.how == "assumed")


def retuned(backbone: Backbone, graph: ov.Model, tuned: str, *, beside: bool = False) -> Backbone:
    """The same backbone with other weights: `graph`, whose features are the last layer's, in place of its own.

    With `beside`, the features are the backbone's own and, behind them, as a block `TUNED`, the tuned last layer's.
    """
    facts, width = backbone.facts, graph.outputs[0].shape[1]
    own = (*facts.blocks, Block(TUNED, facts.width, width)) if beside else (Block(LAST, 0, width),)
    return Backbone(
        dataclasses.replace(
            facts,
            blocks=own,
            fingerprint=_fingerprint(graph, facts.fit, facts.precision, half=facts.half),
            tuned=tuned,
        ),
        graph,
    )


def resolve_precision(precision: Precision) -> Precision:
    """What "auto" means on this processor; f32 and bf16 stay as they are."""
    if precision not in get_args(Precision):
        raise InputError(one_of(precision, get_args(Precision), what="precision"))
    if precision != "auto":
        return precision
    return "bf16" if compiling.computes_in_bf16() else "f32"


def precision_note(facts: BackboneFacts) -> str | None:
    """What to tell of a network that can't run here in the precision that its classifier learned in; else None."""
    if compiling.precision_here(facts.precision) == facts.precision:
        return None
    return (
        f"{facts.handle} ran in bf16 when this run was trained; this processor has no bf16, so it runs in f32: "
        "slower, and probabilities may differ a little from those of the training"
    )


def _fingerprint(graph: ov.Model, fit: Framing, precision: Precision, *, half: bool) -> str:
    """All that a feature depends on besides the image's bytes."""
    facts = [graphs.digest(graph), DECODER, fit.to_plain(), precision, *(["half"] if half else [])]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
