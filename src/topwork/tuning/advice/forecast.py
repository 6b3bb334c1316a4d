"""A forecast of the gain and time of tuning, from the evidence: a small linear rule and a few costs.

The prior is the classic rule of "Transfer Learning" in the notes of Stanford's course CS231n
(https://cs231n.github.io/transfer-learning/): few and similar pictures → a fixed extractor; many and similar → tune;
few and different → a head on earlier layers' features; many and different → tune deeply. Here a frozen head sees
all stages, so it suits few pictures of either kind, and only their number matters. `Rule` holds the prior as
coefficients, which benchmarks/accuracy/advice.py corrects by measured gains.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from topwork.evaluation.significance import Interval
from topwork.recipe import FinetuneRecipe
from topwork.tuning.advice.evidence import Evidence

Mode = Literal["head", "tail", "full"]
MODES: tuple[Mode, ...] = ("head", "tail", "full")
# A set with fewer images is small: 1,100 gained nothing by tuning, 1,967 did (docs/notes/advice.md).
FEW = 1500
UNLIKE = (
    0.15  # pictures count as different if all stages avoid at least this share of the last layer's errors
)
Z90 = 1.6449  # a normal variable lies within ± this with probability 0.9


@dataclass(frozen=True, slots=True)
class Signals:
    """The evidence as numbers of about unit scale, the inputs of `Rule`."""

    base: float  # 1
    size: float  # log10(images / 1000), -1.5 to 2
    unlike: float  # the share of the last layer's errors that all stages avoid, -1 to 1
    tangled: float  # how often the nearest neighbour has another class, relative to chance
    steep: float  # the share of the errors that twice the images would avoid, 0 to 0.5


@dataclass(frozen=True, slots=True)
class Rule:
    """The predicted share of the frozen head's errors that tuning avoids: linear in `Signals`.

    The defaults are the prior: a thousand pictures gain nothing, and ten thousand avoid a tenth of the errors. Sets
    of about 1,100 pictures avoided none of them by tuning, 1,967 solar cells 6 to 14 %, sets of 4,500 pictures 0 to
    4 % (docs/notes/advice.md).
    """

    base: float = 0.0
    size: float = 0.1
    unlike: float = 0.0
    tangled: float = 0.0
    steep: float = 0.0
    deep: float = 1.15  # gain of tuning all over that of the tail
    least: float = 0.0  # smallest prediction (a worse network isn't kept)
    most: float = 0.8  # largest prediction
    spread: float = 0.08  # standard deviation of the share around its prediction
    noise: float = 0.005  # standard deviation of accuracy itself, added to it
    worth: float = 0.005  # smallest gain worth tuning for
    worth_deep: float = 0.01  # smallest extra gain worth tuning all for, instead of the tail


@dataclass(frozen=True, slots=True)
class Costs:
    """Measured costs of training: EfficientNet-Lite0 at 224 px on two cores, in f32.

    The engine runs 174 img/s forward; training runs 18 img/s end to end and about 75 from the 14 x 14 stage on.
    """

    prefix: float = 0.6  # share of a forward pass before that stage
    tail_step: float = 174 / 75  # time of a training step per image over that of a forward pass
    full_step: float = 174 / 18
    start_s: float = 25.0  # to import the framework and compile


RULE, COSTS = Rule(), Costs()
# One minute of tuning gained nothing in twelve pairs of dataset and network (docs/notes/advice.md).
HURRIED = Rule(size=0.0, spread=0.05)
HURRIED_MINUTES, UNHURRIED_MINUTES = 1.0, 10.0


def rule_for(minutes: float) -> Rule:
    """The rule for a tuning of `minutes`: interpolated between the two known rules by the logarithm of the time.

    >>> rule_for(0.5) == HURRIED, rule_for(15) == RULE
    (True, True)
    """
    share = _within(
        math.log(minutes / HURRIED_MINUTES) / math.log(UNHURRIED_MINUTES / HURRIED_MINUTES), 0.0, 1.0
    )
    if share in (0.0, 1.0):
        return RULE if share else HURRIED
    mixed = {
        field.name: (1 - share) * getattr(HURRIED, field.name) + share * getattr(RULE, field.name)
        for field in dataclasses.fields(Rule)
    }
    return Rule(**mixed)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The forecast for one mode."""

    mode: Mode
    gain: float  # points of accuracy over the frozen head
    interval: Interval  # of the gain, 90 %
    minutes: float


def forecast(
    seen: Evidence,
    images_a_second: float,
    tuning: FinetuneRecipe,
    *,
    views: int = 1,
    head_s: float = 0.0,
    rule: Rule | None = None,
    costs: Costs = COSTS,
) -> tuple[Forecast, Forecast, Forecast]:
    """The forecasts for head, tail and full; the arguments are those of `advice.predict`."""
    rule = rule or rule_for(tuning.minutes)
    share = predicted_share(seen, rule)
    deep = min(share * rule.deep, rule.most) if share > 0 else share
    head, tail, full = _minutes(seen.images, images_a_second, tuning, views, head_s, costs)
    return (
        Forecast("head", 0.0, Interval(0.0, 0.0), head),
        _forecast("tail", share, seen, rule, tail),
        _forecast("full", deep, seen, rule, full),
    )


def signals(seen: Evidence) -> Signals:
    """The inputs of `Rule`."""
    error = max(seen.headroom, 1e-9)
    return Signals(
        base=1.0,
        size=_within(math.log10(seen.images / 1000), -1.5, 2.0),
        unlike=_within(seen.stage_gap / max(1 - seen.last, 0.01), -1.0, 1.0),
        tangled=_within((1 - seen.neighbours) / max(1 - seen.chance, 1e-9), 0.0, 1.0),
        steep=_within(seen.curve.doubled / error, 0.0, 0.5),
    )


def predicted_share(seen: Evidence, rule: Rule = RULE) -> float:
    """The share of the frozen head's errors that tuning the tail is predicted to avoid."""
    values = signals(seen)
    share = sum(getattr(rule, field.name) * getattr(values, field.name) for field in fields(Signals))
    return _within(share, rule.least, rule.most)


def _forecast(mode: Mode, share: float, seen: Evidence, rule: Rule, minutes: float) -> Forecast:
    gain = share * seen.headroom
    half = Z90 * math.hypot(rule.spread * seen.headroom, rule.noise)
    interval = Interval(100 * (gain - half), 100 * min(gain + half, seen.headroom))
    return Forecast(mode, 100 * gain, interval, minutes)


def _minutes(
    images: int, speed: float, tuning: FinetuneRecipe, views: int, head_s: float, costs: Costs
) -> tuple[float, float, float]:
    """Minutes for head, tail and full. Tuning adds to the head's time and stops at its time limit."""
    head = images * views / speed + head_s
    prefix = images * tuning.views * costs.prefix / speed
    tail = costs.start_s + prefix + tuning.epochs * images * costs.tail_step / speed
    full = costs.start_s + tuning.epochs * images * costs.full_step / speed

    def minutes(seconds: float) -> float:
        return head / 60 + min(seconds / 60, tuning.minutes)

    return head / 60, minutes(tail), minutes(full)


def choose(forecasts: Sequence[Forecast], rule: Rule = RULE) -> Mode:
    """The mode to advise: the cheapest, unless a costlier one gains enough more."""
    _, tail, full = forecasts
    if max(tail.gain, full.gain) < 100 * rule.worth:
        return "head"
    return "full" if full.gain - tail.gain >= 100 * rule.worth_deep else "tail"


def is_unlike(seen: Evidence) -> bool:
    """Whether the pictures are unlike the pretraining data, so that lower blocks transfer better."""
    return signals(seen).unlike >= UNLIKE or seen.early_gap > 0


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
