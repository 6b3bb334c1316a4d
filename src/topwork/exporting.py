"""From a run or a module to another program's format."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from topwork import graph as graphs
from topwork.backbone import LAST
from topwork.classifier import Classifier
from topwork.errors import InputError, one_of
from topwork.hub.module import load_module
from topwork.hub.resolve import Progress
from topwork.recipe import ExportFormat, PixelChoice


def export(run: str | Path, out: str | Path, *, format: ExportFormat) -> Path:
    """Write a run's network to the new folder `out`.

    "tfhub": the backbone alone, as a reusable TF2 SavedModel that gives its last layer, (N, D), for float32
    (N, S, S, 3) pictures in [0, 1]: for programs that put a head of their own on it, or fine-tune it.

    Raises:
        InputError: no run, an unknown format, a folder that holds something, or features averaged over views.
        MissingExtra: TensorFlow is not installed.
    """
    if format not in get_args(ExportFormat):
        raise InputError(one_of(format, get_args(ExportFormat), what="format"))
    classifier = Classifier.load(run)
    facts = classifier.backbone.facts
    if facts.views != "one":
        raise InputError(
            f"{run}: its features are averages over {facts.views} views, which can't be fine-tuned; publish the "
            f"network by itself: topwork modules publish {facts.handle} --out {out}"
        )
    from topwork.publish import publish_backbone

    return publish_backbone(graphs.last_layer(classifier.backbone.graph), Path(out), size_px=facts.size_px)


def publish_module(
    handle: str,
    out: str | Path,
    *,
    size_px: int | None = None,
    pixels: PixelChoice = "auto",
    progress: Progress | None = None,
) -> Path:
    """Write a module's trunk to the new folder `out` as `export` writes a run's, format "tfhub"."""
    from topwork.publish import publish_backbone

    module = load_module(handle, size_px=size_px, range=pixels, progress=progress)
    return publish_backbone(graphs.pool(module.graph, [LAST]), Path(out), size_px=module.size_px)
