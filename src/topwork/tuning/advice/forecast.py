"""The gain and the minutes that tuning is predicted to take, from evidence: a small linear rule and a few costs.

The prior is the classic rule of "Transfer Learning" in the notes of Stanford's course CS231n
(https://cs231n.github.io/transfer-learning/): few and similar pictures → a fixed extractor; many and similar → tune;
few and different → a head on earlier layers' features; many and different → tune deeply. A frozen head sees all
stages here, so for few pictures it is what the rule asks for, like or unlike: what is left is how many there are.
`Rule` holds it as numbers that measured gains correct: benchmarks/advice.py does so.
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
# Images below which a set is small: 1,100 gained nothing by tuning, 1,967 did (docs/benchmarks.md).
FEW = 1500
UNLIKE = (
    0.15  # share of the last layer's errors that all stages avoid, from which pictures count as different
)
Z90 = 1.6449  # a normal variable lies within ± this with probability 0.9


@dataclass(frozen=True, slots=True)
class Signals:
    """The evidence as numbers of about unit size, which `Rule` weighs."""

    base: float  # 1
    size: float  # log10(images / 1000), -1.5 to 2
    unlike: float  # the share of the last layer's errors that all stages avoid, -1 to 1
    tangled: float  # how often the nearest neighbour has another class; 1: as often as by chance
    steep: float  # the share of the errors that twice the images would avoid, 0 to 0.5


@dataclass(frozen=True, slots=True)
class Rule:
    """The predicted gain of tuning, as the share of the frozen head's errors that it avoids: linear in `Signals`.

    The defaults are the prior. By it a thousand pictures gain nothing, and ten times as many a tenth of the errors:
    sets of about 1,100 pictures avoided none of them by tuning, 1,967 solar cells 6 to 14 %, sets of 4,500 pictures 0
    to 4 % (docs/benchmarks.md).

    `deep`: the gain of tuning all over that of the tail. `spread`: the standard deviation of the share around its
    prediction; `noise`: what accuracy itself varies by, added to it. `worth`: a gain below this isn't worth
    tuning; `worth_deep`: what tuning all must gain more than the tail to be worth its time.
    """

    base: float = 0.0
    size: float = 0.1
    unlike: float = 0.0
    tangled: float = 0.0
    steep: float = 0.0
    deep: float = 1.15
    least: float = 0.0  # no prediction below this share (what is worse isn't kept), nor above `most`
    most: float = 0.8
    spread: float = 0.08
    noise: float = 0.005
    worth: float = 0.005
    worth_deep: float = 0.01


@dataclass(frozen=True, slots=True)
class Costs:
    """What learning costs, from measurement: EfficientNet-Lite0 at 224 px on two cores, in f32.

    The engine runs 174 img/s forward; a training step takes 18 img/s end to end and about 75 from the 14 x 14
    stage on. `tail_step`, `full_step`: the time of a step an image over that of one forward run. `prefix`: the
    share of a forward run that comes before that stage. `start_s`: to import the framework and compile.
    """

    prefix: float = 0.6
    tail_step: float = 174 / 75
    full_step: float = 174 / 18
    start_s: float = 25.0


RULE, COSTS = Rule(), Costs()
# In one minute nothing was gained by tuning, in twelve pairs of data set and network (docs/benchmarks.md).
HURRIED = Rule(size=0.0, spread=0.05)
HURRIED_MINUTES, UNHURRIED_MINUTES = 1.0, 10.0


def rule_for(minutes: float) -> Rule:
    """The rule for a tuning of so many minutes: between the two that are known, by the logarithm of the time.

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
    """What one way is predicted to give: points of accuracy over the frozen head, their 90 % interval, minutes."""

    mode: Mode
    gain: float
    interval: Interval
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
    """What head, tail and full are predicted to give; the arguments are those of `advice.predict`."""
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
    """What `Rule` weighs."""
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
    """For head, tail and full. Tuning comes on top of the head, and ends when its minutes are over."""
    head = images * views / speed + head_s
    prefix = images * tuning.views * costs.prefix / speed
    tail = costs.start_s + prefix + tuning.epochs * images * costs.tail_step / speed
    full = costs.start_s + tuning.epochs * images * costs.full_step / speed

    def minutes(seconds: float) -> float:
        return head / 60 + min(seconds / 60, tuning.minutes)

    return head / 60, minutes(tail), minutes(full)


def choose(forecasts: Sequence[Forecast], rule: Rule = RULE) -> Mode:
    """The mode to advise: the cheapest that no other is worth more than."""
    _, tail, full = forecasts
    if max(tail.gain, full.gain) < 100 * rule.worth:
        return "head"
    return "full" if full.gain - tail.gain >= 100 * rule.worth_deep else "tail"


def is_unlike(seen: Evidence) -> bool:
    """Whether the pictures are unlike what the network learned from: then its lower blocks serve better."""
    return signals(seen).unlike >= UNLIKE or seen.early_gap > 0


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
