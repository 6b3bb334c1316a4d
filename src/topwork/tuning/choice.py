"""Which cut, and how many epochs: by what they cost on this machine, and what may be spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from topwork.backbones.backbone import Backbone
from topwork.backbones.engine import Engine
from topwork.errors import InputError
from topwork.graphs.cuts import Cut
from topwork.recipe import FinetuneRecipe

# A step of training against the engine's forward run of the same graph, for one image (docs/benchmarks.md).
STEP_COST = 6.0
LARGEST_SHARE = 0.75  # what comes before is edges and colours: it need not learn, and costs most
TRIED, APART = 3, 0.6


def forward_seconds(backbone: Backbone, *, images: int = 12) -> float:
    """What the engine takes for one image, all cores at work; measured."""
    import numpy as np

    from topwork.parallel import stream

    side = backbone.facts.size_px
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    infer = Engine(backbone)
    run: Callable[[int], object] = lambda _: infer(picture)  # noqa: E731
    for _ in stream(run, range(infer.workers * 2), workers=infer.workers):
        pass
    began = time.perf_counter()
    for _ in stream(run, range(images), workers=infer.workers):
        pass
    return (time.perf_counter() - began) / images


def tail_seconds(cut: Cut, recipe: FinetuneRecipe, *, images: int, forward_s: float) -> float:
    """What tuning from `cut` takes, about: its prefix over all views, then its epochs."""
    prefix = recipe.views * (1 - cut.tail_share)
    epochs = recipe.epochs * cut.tail_share * STEP_COST
    return images * forward_s * (prefix + epochs)


def affordable_cuts(
    cuts: Sequence[Cut], recipe: FinetuneRecipe, *, images: int, forward_s: float
) -> tuple[Cut, ...]:
    """The cuts that the time and the disk allow, the largest tail first; if none is, the smallest tail of all.

    Raises:
        InputError: no activations fit on what the disk may hold, or the network can't be cut.
    """
    if not cuts:
        raise InputError(
            "this network has no place to cut it at: tune it whole (the mode full), or not at all"
        )
    fit = [cut for cut in cuts if cut.bytes_a_view * recipe.views * images <= recipe.disk_gb * 1e9]
    if not fit:
        least = min(cut.bytes_a_view for cut in cuts) * recipe.views * images / 1e9
        raise InputError(
            f"{images} images in {recipe.views} views take {least:.1f} GB on disk at least; {recipe.disk_gb:g} GB "
            "are allowed: take fewer views, allow more (finetune.disk_gb), or tune it whole (the mode full)"
        )
    allowed = recipe.minutes * 60
    affordable = [
        cut
        for cut in fit
        if cut.tail_share <= LARGEST_SHARE
        and tail_seconds(cut, recipe, images=images, forward_s=forward_s) <= allowed
    ]
    smallest = min(fit, key=lambda cut: cut.tail_share)
    return tuple(sorted(affordable, key=lambda cut: -cut.tail_share)) or (smallest,)


def thinned(cuts: Sequence[Cut]) -> tuple[Cut, ...]:
    """A few of them, from the largest tail on, each at most `APART` of the one before: near ones differ little."""
    some = list(cuts[:1])
    for cut in cuts[1:]:
        if len(some) < TRIED and cut.tail_share <= APART * some[-1].tail_share:
            some.append(cut)
    return tuple(some)


def trial_seconds(cuts: Sequence[Cut], recipe: FinetuneRecipe, *, forward_s: float, steps: int) -> float:
    """What a trial of cuts takes, about: `steps` of the largest, and as long for each of the others."""
    return len(cuts) * steps * recipe.batch * cuts[0].tail_share * STEP_COST * forward_s


def affordable_epochs(recipe: FinetuneRecipe, *, epoch_s: float, spent_s: float) -> int:
    """As many as the recipe asks for and the time allows; one at least."""
    left = recipe.minutes * 60 - spent_s
    return max(1, min(recipe.epochs, int(left / epoch_s)))
