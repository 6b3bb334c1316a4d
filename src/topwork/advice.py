"""Whether to tune a network for some pictures: what was seen, what that predicts, and what to do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from topwork.backbone import Backbone, load_backbone
from topwork.checking import check
from topwork.data.dataset import Dataset
from topwork.data.sources import load
from topwork.data.split import Splits, splits_of
from topwork.engine import Engine, Pixels, stream
from topwork.errors import ImageError, TopworkError
from topwork.evidence import STEPS, Evidence, evidence
from topwork.features import Features, extract, open_store
from topwork.forecasting import (
    COSTS,
    FEW,
    MODES,
    Costs,
    Forecast,
    Mode,
    Rule,
    choose,
    forecast,
    is_unlike,
    rule_for,
)
from topwork.images import decode
from topwork.recipe import FinetuneRecipe, Recipe
from topwork.watch import Silent, Watch

TIMED = 16  # images that the network is timed on
TIMED_S = 1.0  # and the seconds that this may take, once it is compiled
VIEWS = {"one": 1, "flip": 2, "dihedral": 8}


@dataclass(frozen=True, slots=True)
class Advice:
    """The advised mode, what each is predicted to give, and the reasons in three sentences.

    `data`, `backbone`: what was looked at, through what. `sentences`: what was seen, what it predicts, what to do.
    """

    data: str
    backbone: str
    mode: Mode
    forecasts: tuple[Forecast, ...]
    sentences: tuple[str, str, str]
    evidence: Evidence
    images_a_second: float

    def forecast(self, mode: Mode) -> Forecast:
        """What `mode` is predicted to give."""
        return self.forecasts[MODES.index(mode)]


def advise(data: Dataset | str | Path, *, recipe: Recipe | None = None, watch: Watch | None = None) -> Advice:
    """Tell whether to tune: extract features only, tune the tail, or tune all.

    The features are computed once and kept, so that a training after it finds them there. The test part is not
    looked at.

    Args:
        data: a dataset, or what `topwork.load` takes.
        recipe: the settings that a training would have; None for the defaults.
        watch: told of the progress.

    Raises:
        InputError: the data or a setting is wrong, or there are too few images.
        TopworkError: the features can't be stored.

    >>> advice = advise("photos")  # doctest: +SKIP
    >>> advice.mode, advice.forecast("tail").gain  # doctest: +SKIP
    ('tail', 2.1)
    """
    recipe, watch = recipe or Recipe(), watch or Silent()
    wanted, settings = recipe.split, recipe.backbone
    dataset = data if isinstance(data, Dataset) else load(data, group_by=wanted.group_by)
    splits_of(dataset, test=wanted.test, validation=wanted.validation, seed=wanted.seed)  # errors before work
    backbone = load_backbone(
        settings.handle,
        size_px=settings.size_px,
        fit=settings.fit,
        views=settings.views,
        precision=settings.precision,
        pixels=settings.pixels,
        progress=watch.download(settings.handle),
        say=watch.say,
    )
    with open_store(backbone.facts) as store:
        with watch.bar("features", len(dataset)) as progress:
            features = extract(dataset, backbone, store=store, strict=recipe.strict, progress=progress)
        if store.set_aside is not None:
            watch.say(f"the feature store was damaged; it is now {store.set_aside}, and a new one was begun")
        if wanted.copies:  # split as a training splits them
            with watch.bar("looks", len(features.dataset)) as progress:
                features = check(features, progress).features
        splits = splits_of(features.dataset, test=wanted.test, validation=wanted.validation, seed=wanted.seed)
        return advise_on(features, splits, backbone, recipe=recipe, watch=watch)


def advise_on(
    features: Features, splits: Splits, backbone: Backbone, *, recipe: Recipe, watch: Watch
) -> Advice:
    """`advise`, for images whose features are there and that were split.

    Args:
        features: of all images of `splits`, in an open store.
        splits: train, and validation if there is one; the test is not looked at.
        backbone: the network.
        recipe: the settings of the training.
        watch: told of the progress.

    Raises:
        InputError: there are too few images.
    """
    with watch.bar("evidence", STEPS) as progress:
        began = time.perf_counter()
        seen = evidence(features, splits, recipe, progress=progress)
        head_s = time.perf_counter() - began
    return predict(
        seen,
        measure_speed(backbone, splits.train),
        tuning=recipe.finetune,
        views=VIEWS[backbone.facts.views],
        head_s=head_s,
        data=features.dataset.name,
        backbone=str(backbone.facts),
    )


def measure_speed(backbone: Backbone, dataset: Dataset) -> float:
    """Images a second that the engine runs forward on this machine, in f32, one view each; decoding not counted."""
    pixels = _some_pixels(backbone, dataset)
    infer = Engine(replace(backbone, facts=replace(backbone.facts, precision="f32")))
    infer(pixels[0])  # compiles
    done, began = 0, time.perf_counter()
    while not done or time.perf_counter() - began < TIMED_S:
        with closing(stream(infer, pixels, workers=infer.workers)) as results:
            done += sum(1 for _ in results)
    return done * VIEWS[backbone.facts.views] / (time.perf_counter() - began)


def predict(
    seen: Evidence,
    images_a_second: float,
    *,
    tuning: FinetuneRecipe | None = None,
    views: int = 1,
    head_s: float = 0.0,
    data: str = "",
    backbone: str = "",
    rule: Rule | None = None,
    costs: Costs = COSTS,
) -> Advice:
    """From evidence to advice.

    Args:
        seen: the evidence.
        images_a_second: how fast the network runs forward here (see `measure_speed`).
        tuning: how it would be tuned; None for the defaults.
        views: how many turned copies of a picture the frozen features average.
        head_s: the seconds that fitting the head takes.
        data, backbone: what was looked at, through what, for the record.
        rule, costs: the constants; None for the rule that goes with the minutes.
    """
    tuning = tuning or FinetuneRecipe()
    rule = rule or rule_for(tuning.minutes)
    forecasts = forecast(seen, images_a_second, tuning, views=views, head_s=head_s, rule=rule, costs=costs)
    mode = choose(forecasts, rule)
    sentences = (_seen(seen), _predicted(seen, forecasts), _to_do(seen, mode, forecasts, tuning, rule))
    return Advice(data, backbone, mode, forecasts, sentences, seen, images_a_second)


def _seen(seen: Evidence) -> str:
    best = "all stages" if seen.stages > seen.last else "the last layer"
    probed = f" ({seen.probed:,} of them looked at)" if seen.probed < seen.images else ""
    return (
        f"Seen: {seen.images:,} training images{probed} of {seen.classes} classes, {seen.smallest_class:,} in the "
        f"smallest; a frozen head is right on {100 * seen.last:.1f} % of held-out images with the last layer and "
        f"on {100 * seen.stages:.1f} % with all stages, and {100 * seen.neighbours:.0f} % of images have a nearest "
        f"neighbour of their class, so that the pictures are {'unlike' if is_unlike(seen) else 'like'} what the "
        f"network learned from and {100 * seen.headroom:.1f} points are left to gain over {best}."
    )


def _predicted(seen: Evidence, forecasts: Sequence[Forecast]) -> str:
    head, tail, full = forecasts
    return (
        f"Predicted: tuning the tail changes the accuracy by {_points(tail)} in {_time(tail.minutes)} on this "
        f"machine, tuning all of it by {_points(full)} in {_time(full.minutes)}, beside {_time(head.minutes)} for "
        f"the head alone; twice the images would give the head {100 * seen.curve.doubled:+.1f}."
    )


def _to_do(
    seen: Evidence, mode: Mode, forecasts: Sequence[Forecast], tuning: FinetuneRecipe, rule: Rule
) -> str:
    few, unlike = seen.images < FEW, is_unlike(seen)
    classic = {
        (True, False): "keeps the network fixed",
        (False, False): "tunes",
        (True, True): "takes earlier layers' features",
        (False, True): "tunes deeply",
    }[few, unlike]
    kind = f"{'few' if few else 'many'} and {'different' if unlike else 'similar'} pictures"
    case = f"the classic rule for {kind} {classic}"
    if mode == "head":
        return (
            f"Do: keep the frozen network (topwork train), since no tuning is predicted to gain "
            f"{100 * rule.worth:g} points or more{';' if few else ', although'} {case}."
        )
    what = "the tail" if mode == "tail" else "all of the network"
    bound = forecasts[MODES.index(mode)].minutes - forecasts[0].minutes >= tuning.minutes
    over = f", which its limit of {tuning.minutes:g} minutes will cut short" if bound else ""
    return (
        f"Do: tune {what} (topwork train --finetune {mode}){over}; it is kept only where it wins on held-out "
        f"images; {case}."
    )


def _points(forecast: Forecast) -> str:
    low, high = forecast.interval
    return f"{forecast.gain:+.1f} points (90 %: {low:+.1f} to {high:+.1f})"


def _time(minutes: float) -> str:
    return f"{60 * minutes:.0f} s" if minutes < 1 else f"{minutes:.0f} min"


def _some_pixels(backbone: Backbone, dataset: Dataset) -> list[Pixels]:
    facts, found = backbone.facts, []
    for example in dataset:
        try:
            found.append(decode(example.image.read(), facts.size_px, fit=facts.fit))
        except (ImageError, OSError):  # gone since its features were computed
            continue
        if len(found) == TIMED:
            break
    if not found:
        raise TopworkError(
            f"{dataset.name}: no image can be read any more; expected those that were just read: put the images back"
        )
    return found
