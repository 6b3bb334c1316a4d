"""Advice as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from topwork.tuning.advice.advice import Advice
    from topwork.tuning.advice.forecast import Forecast

_WAYS = {"head": "frozen", "tail": "tune the tail", "full": "tune all"}


def advice_text(advice: Advice) -> str:
    """The three sentences, the forecast for each mode, and the evidence."""
    seen = advice.evidence
    probes = ", ".join(f"{probe.block} {100 * probe.accuracy:.1f}" for probe in seen.probes)
    curve = ", ".join(
        f"{100 * (1 - error):.1f} from {size:,}"
        for size, error in zip(seen.curve.sizes, seen.curve.errors, strict=True)
    )
    low, high = seen.interval
    return "\n".join(
        [
            f"{advice.data}, {advice.backbone}",
            "",
            *advice.sentences,
            "",
            f"  {'':13}  {'points':>6}  {'90 % interval':>15}  {'minutes':>7}",
            *(_row(forecast, chosen=forecast.mode == advice.mode) for forecast in advice.forecasts),
            "",
            "Held out, with the network frozen:",
            f"  accuracy, %: {100 * seen.accuracy:.1f} (95 %: {100 * low:.1f} to {100 * high:.1f}); always "
            f"predicting the most frequent class: {100 * seen.chance:.1f}",
            f"  by block, %: {probes}",
            f"  by number of training images, %: {curve}",
            f"  distance to the nearest class: {seen.separation:.2f} spreads; nearest neighbours of the same class: "
            f"{100 * seen.neighbours:.1f} %",
            f"  speed: {advice.images_a_second:.0f} images/s",
        ]
    )


def advice_json(advice: Advice) -> str:
    """`data`, `backbone`, `advice` (the mode), `forecasts` by mode, `sentences`, `evidence`, `images_a_second`."""
    seen = advice.evidence
    return json.dumps(
        {
            "data": advice.data,
            "backbone": advice.backbone,
            "advice": advice.mode,
            "forecasts": {
                f.mode: {"gain": f.gain, "interval": list(f.interval), "minutes": f.minutes}
                for f in advice.forecasts
            },
            "sentences": list(advice.sentences),
            "evidence": asdict(seen)
            | {
                "accuracy": seen.accuracy,
                "headroom": seen.headroom,
                "stage_gap": seen.stage_gap,
                "early_gap": seen.early_gap,
            },
            "images_a_second": advice.images_a_second,
        },
        ensure_ascii=False,
    )


def _row(forecast: Forecast, *, chosen: bool) -> str:
    low, high = forecast.interval
    interval = "" if forecast.mode == "head" else f"{low:+.1f} to {high:+.1f}"
    mark = "→" if chosen else " "
    return f"{mark} {_WAYS[forecast.mode]:13}  {forecast.gain:+6.1f}  {interval:>15}  {forecast.minutes:7.1f}"
