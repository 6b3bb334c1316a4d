"""Choice of the cut and the number of epochs, by their cost on this machine and the time and disk allowed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from topwork.backbones.backbone import Backbone
from topwork.backbones.engine import Engine
from topwork.errors import InputError
from topwork.graphs.cuts import Cut
from topwork.recipe import FinetuneRecipe

# Time of a training step over the engine's forward pass of the same graph, for one image (docs/benchmarks.md).
STEP_COST = 6.0
LARGEST_SHARE = 0.75  # the layers before detect edges and colours: they need not learn, and cost most
TRIED, APART = 3, 0.6


def forward_seconds(backbone: Backbone, *, images: int = 12) -> float:
    """Measured time of the engine's forward pass for one image, using all cores."""
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
    """Estimated time of tuning from `cut`: the prefix over all views, then the epochs."""
    prefix = recipe.views * (1 - cut.tail_share)
    epochs = recipe.epochs * cut.tail_share * STEP_COST
    return images * forward_s * (prefix + epochs)


def affordable_cuts(
    cuts: Sequence[Cut], recipe: FinetuneRecipe, *, images: int, forward_s: float
) -> tuple[Cut, ...]:
    """The cuts that fit the allowed time and disk space, largest tail first; if none does, the smallest tail.

    Raises:
        InputError: no cut's activations fit the allowed disk space, or the network can't be cut.
    """
    if not cuts:
        raise InputError("this network has no place to cut it at: tune it whole (mode full), or not at all")
    fit = [cut for cut in cuts if cut.bytes_a_view * recipe.views * images <= recipe.disk_gb * 1e9]
    if not fit:
        least = min(cut.bytes_a_view for cut in cuts) * recipe.views * images / 1e9
        raise InputError(
            f"{images} images in {recipe.views} views take at least {least:.1f} GB on disk; {recipe.disk_gb:g} GB "
            "are allowed: use fewer views, allow more (finetune.disk_gb), or tune it whole (mode full)"
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
    """A few cuts, largest tail first, each tail at most `APART` of the previous one: close cuts differ little."""
    some = list(cuts[:1])
    for cut in cuts[1:]:
        if len(some) < TRIED and cut.tail_share <= APART * some[-1].tail_share:
            some.append(cut)
    return tuple(some)


def trial_seconds(cuts: Sequence[Cut], recipe: FinetuneRecipe, *, forward_s: float, steps: int) -> float:
    """Estimated time of a trial: `steps` steps of the largest tail, and the same time for each other one."""
    return len(cuts) * steps * recipe.batch * cuts[0].tail_share * STEP_COST * forward_s


def affordable_epochs(recipe: FinetuneRecipe, *, epoch_s: float, spent_s: float) -> int:
    """As many epochs as the recipe asks for and the time allows; at least one."""
    left = recipe.minutes * 60 - spent_s
    return max(1, min(recipe.epochs, int(left / epoch_s)))
