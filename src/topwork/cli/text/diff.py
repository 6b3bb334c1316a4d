"""The difference of two runs as text and as JSON."""

from __future__ import annotations

import json

from topwork.jobs.diff import Difference

SHOWN = 20


def diff_text(difference: Difference, *, limit: int = SHOWN) -> str:
    """The result of the test, the two scores, and the pictures whose prediction changed."""
    d = difference
    kinds = {kind: sum(flip.kind == kind for flip in d.flips) for kind in ("fixed", "broken", "changed")}
    lines = [
        sentence(d),
        "",
        f"{d.a}: {_share(d.accuracy_a, *d.interval_a)}",
        f"{d.b}: {_share(d.accuracy_b, *d.interval_b)}",
        f"fixed {kinds['fixed']}, broken {kinds['broken']}, wrong in both but different {kinds['changed']}",
    ]
    if d.only_in_a or d.only_in_b:
        lines.append(
            f"test images in only one run, not compared: {d.only_in_a} in {d.a}, {d.only_in_b} in {d.b}"
        )
    for flip in d.flips[:limit]:
        lines.append(
            f"  {flip.kind:7} {flip.id} ({flip.label}): {flip.before} {100 * flip.probability_before:.0f} % → "
            f"{flip.after} {100 * flip.probability_after:.0f} %"
        )
    if len(d.flips) > limit:
        lines.append(f"  … and {len(d.flips) - limit} more; --json lists all")
    return "\n".join(lines)


def sentence(difference: Difference) -> str:
    """'B is better than A by +1.9 points (95 % −0.4 to +4.1) on 269 common test images: not significant (…)'."""
    d = difference
    points, (low, high) = 100 * d.comparison.difference, d.comparison.interval
    interval = f"(95 % {100 * low:+.1f} to {100 * high:+.1f})"
    proven = "significant" if d.comparison.p_value < 0.05 else "not significant"
    if d.comparison.difference == 0:
        return f"{d.b} and {d.a} are equally good {interval} on {d.n} common test images"
    word = "better" if points > 0 else "worse"
    return (
        f"{d.b} is {word} than {d.a} by {points:+.1f} points {interval} on {d.n} common test images: {proven} "
        f"(McNemar p = {d.comparison.p_value:.2g})"
    )


def diff_json(difference: Difference) -> str:
    """`Difference.to_dict` on one line."""
    return json.dumps(difference.to_dict(), ensure_ascii=False)


def _share(accuracy: float, low: float, high: float) -> str:
    return f"{100 * accuracy:.1f} % right (95 %: {100 * low:.1f} to {100 * high:.1f})"
