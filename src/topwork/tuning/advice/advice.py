"""Advice on whether to fine-tune: what was measured, the predicted gain, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from topwork.recipe import FinetuneRecipe
from topwork.tuning.advice.evidence import Evidence
from topwork.tuning.advice.forecast import (
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


@dataclass(frozen=True, slots=True)
class Advice:
    """The advised mode, the forecast for each mode, and the reasons."""

    data: str  # name of the dataset
    backbone: str
    mode: Mode
    forecasts: tuple[Forecast, ...]  # in the order of `MODES`
    sentences: tuple[str, str, str]  # what was seen, what it predicts, what to do
    evidence: Evidence
    images_a_second: float

    def forecast(self, mode: Mode) -> Forecast:
        """The forecast for `mode`."""
        return self.forecasts[MODES.index(mode)]


def advice_from(
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
    """Turn evidence into advice.

    Args:
        seen: the evidence.
        images_a_second: how fast the network runs forward here (see `measure_speed`).
        tuning: the settings of the tuning; None for the defaults.
        views: number of views over which the frozen features are averaged.
        head_s: seconds that fitting the head takes.
        data, backbone: names, for the record.
        rule, costs: the constants; by default, the rule for the recipe's minutes.
    """
    tuning = tuning or FinetuneRecipe()
    rule = rule or rule_for(tuning.minutes)
    forecasts = forecast(seen, images_a_second, tuning, views=views, head_s=head_s, rule=rule, costs=costs)
    mode = choose(forecasts, rule)
    sentences = (_seen(seen), _predicted(seen, forecasts), _to_do(seen, mode, forecasts, tuning, rule))
    return Advice(data, backbone, mode, forecasts, sentences, seen, images_a_second)


def _seen(seen: Evidence) -> str:
    best = "all stages" if seen.stages > seen.last else "the last layer"
    probed = f" ({seen.probed:,} of them used)" if seen.probed < seen.images else ""
    return (
        f"Seen: {seen.images:,} training images{probed} of {seen.classes} classes, {seen.smallest_class:,} in the "
        f"smallest; a frozen head is right on {100 * seen.last:.1f} % of held-out images with the last layer and "
        f"on {100 * seen.stages:.1f} % with all stages, and {100 * seen.neighbours:.0f} % of images have a nearest "
        f"neighbour of their class, so the pictures are {'unlike' if is_unlike(seen) else 'like'} the network's "
        f"pretraining data, and {100 * seen.headroom:.1f} points are left to gain over {best}."
    )


def _predicted(seen: Evidence, forecasts: Sequence[Forecast]) -> str:
    head, tail, full = forecasts
    return (
        f"Predicted: tuning the tail changes the accuracy by {_points(tail)} in {_time(tail.minutes)} on this "
        f"machine, and tuning the whole network by {_points(full)} in {_time(full.minutes)}; training only the head "
        f"takes {_time(head.minutes)}, and twice the images would change its accuracy by "
        f"{100 * seen.curve.doubled:+.1f}."
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
    what = "the tail" if mode == "tail" else "the whole network"
    bound = forecasts[MODES.index(mode)].minutes - forecasts[0].minutes >= tuning.minutes
    over = f", which will stop at its limit of {tuning.minutes:g} minutes" if bound else ""
    return (
        f"Do: tune {what} (topwork train --finetune {mode}){over}; the result is kept only if it is better on "
        f"held-out images; {case}."
    )


def _points(forecast: Forecast) -> str:
    low, high = forecast.interval
    return f"{forecast.gain:+.1f} points (90 %: {low:+.1f} to {high:+.1f})"


def _time(minutes: float) -> str:
    return f"{60 * minutes:.0f} s" if minutes < 1 else f"{minutes:.0f} min"
