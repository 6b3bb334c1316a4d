"""Charts as SVG, coloured by the page's style sheet, with titles for screen readers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from topwork.evaluation.evaluate import Evaluation
from topwork.evaluation.learning_curve import LearningCurve

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 420, 300, 48, 14, 14, 42


def reliability(evaluation: Evaluation) -> str:
    """Reliability diagram: accuracy by confidence, a point per bin, sized by its number of images."""
    most = max(b.n for b in evaluation.calibration)
    parts = [_axes("confidence", "accuracy", (0, 0.5, 1), (0, 0.5, 1), _share, _share)]
    parts.append(f'<line class="ideal" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>')
    for b in evaluation.calibration:
        if b.n and b.confidence is not None and b.accuracy is not None:
            radius = 3 + 9 * math.sqrt(b.n / most)
            told = f"{b.n} images: confidence {100 * b.confidence:.0f} %, accuracy {100 * b.accuracy:.0f} %"
            parts.append(
                f'<circle class="point" cx="{_x(b.confidence)}" cy="{_y(b.accuracy)}" r="{radius:.1f}">'
                f"<title>{told}</title></circle>"
            )
    return _svg("Reliability diagram: accuracy by confidence", parts)


def learning(curve: LearningCurve) -> str:
    """Learning curve: accuracy by number of training images (logarithmic). The fit is dashed where extrapolated."""
    last = curve.sizes[-1]
    first, end = math.log(max(1, curve.sizes[0])), math.log(4 * last)
    accuracies = [1 - e for e in curve.errors] + [1 - curve.error(4 * last)]
    low = max(0.0, math.floor(20 * min(accuracies) - 0.5) / 20)
    high = min(1.0, math.ceil(20 * max(accuracies) + 0.2) / 20)

    def x(n: float) -> float:
        return _x((math.log(n) - first) / (end - first))

    def y(accuracy: float) -> float:
        return _y((accuracy - low) / (high - low))

    ticks = [(math.log(n) - first) / (end - first) for n in (*curve.sizes, 2 * last, 4 * last)]
    names = [str(n) for n in (*curve.sizes, 2 * last, 4 * last)]
    parts = [
        _axes(
            "training images",
            "accuracy",
            ticks,
            (0, 0.5, 1),
            lambda t: names[ticks.index(t)],
            lambda t: f"{100 * (low + t * (high - low)):.0f} %",
        )
    ]
    for name, start, stop in (("law", curve.sizes[0], last), ("forecast", last, 4 * last)):
        sizes = [start * (stop / start) ** (i / 40) for i in range(41)]
        points = " ".join(f"{x(n):.1f},{y(1 - curve.error(n)):.1f}" for n in sizes)
        parts.append(f'<polyline class="{name}" points="{points}"/>')
    for n, error in zip(curve.sizes, curve.errors, strict=True):
        parts.append(
            f'<circle class="point" cx="{x(n):.1f}" cy="{y(1 - error):.1f}" r="5">'
            f"<title>{n} images: accuracy {100 * (1 - error):.1f} %</title></circle>"
        )
    return _svg("Learning curve: accuracy by number of training images, with extrapolation", parts)


def bar(accuracy: float, low: float, high: float, baseline: float | None = None) -> str:
    """A bar for an accuracy with its interval, and optionally a mark for the baseline."""
    mark = (
        f'<line class="baseline" x1="{100 * baseline:.2f}" y1="0" x2="{100 * baseline:.2f}" y2="10"/>'
        if baseline is not None
        else ""
    )
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="10"/><rect class="fill" width="{100 * accuracy:.2f}" height="10"/>'
        f'<rect class="interval" x="{100 * low:.2f}" y="3.5" width="{100 * (high - low):.2f}" height="3"/>'
        f"{mark}</svg>"
    )


def _axes(
    across: str, up: str, x_ticks: Sequence[float], y_ticks: Sequence[float], x_name: object, y_name: object
) -> str:
    assert callable(x_name)
    assert callable(y_name)
    parts = [f'<path class="axis" d="M{_x(0)} {_y(1)}V{_y(0)}H{_x(1)}"/>']
    for t in x_ticks:
        parts.append(f'<text x="{_x(t)}" y="{_y(0) + 16}" text-anchor="middle">{escape(x_name(t))}</text>')
    for t in y_ticks:
        parts.append(f'<text x="{LEFT - 6}" y="{_y(t) + 4}" text-anchor="end">{escape(y_name(t))}</text>')
        parts.append(f'<line class="grid" x1="{_x(0)}" y1="{_y(t)}" x2="{_x(1)}" y2="{_y(t)}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="name" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{across}</text>')
    parts.append(f'<text class="name" x="{LEFT + 6}" y="{TOP + 4}">{up}</text>')
    return "".join(parts)


def _svg(title: str, parts: list[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _share(t: float) -> str:
    return f"{100 * t:.0f} %"


def _x(share: float) -> float:
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _y(share: float) -> float:
    return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)
