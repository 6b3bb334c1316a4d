"""The first steps of every job that learns from photos: loading the network and extracting features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from topwork.backbones.backbone import Backbone, backbone_from
from topwork.checks.groups import Checked, check
from topwork.checks.looks import measuring
from topwork.data.dataset import Dataset
from topwork.data.sources import load
from topwork.features.extract import Features, extract, open_store
from topwork.features.store import Store
from topwork.jobs.clock import Clock
from topwork.jobs.pixels import with_fitting_pixels
from topwork.progress import Watch
from topwork.recipe import Recipe
from topwork.storage.cache import info, size_text


def dataset_of(data: Dataset | str | Path, recipe: Recipe) -> Dataset:
    """`data` if it is a data set; otherwise load it, grouped as the recipe says."""
    return data if isinstance(data, Dataset) else load(data, group_by=recipe.split.group_by)


def backbone_for(dataset: Dataset, recipe: Recipe, watch: Watch) -> Backbone:
    """The recipe's network, downloaded if necessary, with pixels that fit the photos where nothing states them."""
    backbone = backbone_from(recipe.backbone, progress=watch.download(recipe.backbone.handle), say=watch.say)
    for note in backbone.assumed:
        watch.say(f"{backbone.facts.handle}: {note}")
    return with_fitting_pixels(backbone, dataset, recipe, watch)


@contextmanager
def features_of(
    dataset: Dataset, backbone: Backbone, recipe: Recipe, watch: Watch, clock: Clock
) -> Iterator[tuple[Features, Checked | None]]:
    """The features of every readable image, with their store open while the block runs.

    Where copies are looked for, near-duplicates are grouped in their dataset, and the results of that come too.
    """
    with (
        open_store(backbone.facts) as store,
        measuring() if recipe.split.copies else nullcontext() as beside,
    ):
        _say_of_earlier(store, watch)
        with clock.time("features"), watch.bar("features", len(dataset)) as progress:
            features = extract(
                dataset, backbone, store=store, strict=recipe.strict, progress=progress, beside=beside
            )
        if store.set_aside is not None:
            watch.say(
                f"the feature store was damaged; it is now {store.set_aside}, and a new one was created"
            )
        if beside is None:
            yield features, None
            return
        with clock.time("copies"), watch.bar("near-duplicates", len(features.dataset)) as progress:
            checked = check(features, beside.store, progress)
        yield checked.features, checked


def _say_of_earlier(store: Store, watch: Watch) -> None:
    """Where features are computed for the first time: what those of an earlier version still take."""
    old = 0 if len(store) else sum(one.size_bytes for one in info().stores if one.earlier)
    if old:
        watch.say(
            f"{store.path.parent}: {size_text(old)} of features are of an earlier version, and only its runs use "
            "them; features now take half the space; to delete all: topwork cache clear"
        )
