"""Render the report's content as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

import numpy as np

from topwork.evaluation.evaluate import Evaluation
from topwork.runs.report import charts
from topwork.runs.report.content import Content, FindingGroup
from topwork.runs.report.frame import data_uri, finding_list, framed, listed, named

MATRIX = 30  # most classes shown as a matrix; with more, the most frequent confusions are listed
CONFUSIONS = 40


def render(content: Content, pictures: Mapping[str, bytes], maps: Mapping[str, bytes]) -> str:
    """The page as HTML. `pictures`, `maps`: image id → JPEG bytes; images without a picture are shown by name."""
    shots = [
        {"id": s.id, "label": s.label, "said": s.prediction, "sure": round(s.probability, 4)}
        for s in content.shots
    ]
    data = {
        "shots": shots,
        "pictures": {image_id: data_uri(bytes_) for image_id, bytes_ in pictures.items()},
        "maps": {image_id: data_uri(bytes_) for image_id, bytes_ in maps.items()},
    }
    return framed("report", content.title, _links(content), "".join(_sections(content)), data)


def _sections(content: Content) -> Iterator[str]:
    e = content.evaluation
    yield f'<section id="score"><h2>Score</h2>{_score(e) if e else ""}{listed(content.notes, "notes")}</section>'
    if e:
        yield f'<section id="confusions"><h2>Confusion matrix</h2>{_confusions(e)}</section>'
        yield _gallery(e)
        yield (
            '<section id="reliability"><h2>Calibration: can its probabilities be trusted?</h2><div class="split">'
            f"{charts.reliability(e)}<p>Predictions with a probability of 80 % should be correct 8 times in 10: a "
            "point on the line. The mean distance from the line, the expected calibration error, is "
            f"{100 * e.calibration_error:.1f} points. Above the line, the classifier is underconfident; below, "
            "overconfident.</p></div></section>"
        )
    if content.curve:
        yield (
            '<section id="growth"><h2>Would more photos help?</h2><div class="split">'
            f"{charts.learning(content.curve)}{listed(content.growth, 'plain')}</div></section>"
        )
    if e:
        yield f'<section id="classes"><h2>Class by class</h2>{_classes(e)}</section>'
    yield f'<section id="audit"><h2>Audit findings</h2>{_audit(content.findings)}</section>'
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in content.facts)
    yield (
        f'<section id="recipe"><h2>Recipe</h2><dl>{facts}</dl><details><summary>All settings (recipe.toml)'
        f"</summary><pre>{escape(content.recipe)}</pre></details></section>"
    )


def _links(content: Content) -> dict[str, str]:
    names = {
        "score": "Score",
        "confusions": "Confusions",
        "pictures": "Pictures",
        "reliability": "Calibration",
        "growth": "More photos",
        "classes": "Classes",
        "audit": "Audit",
        "recipe": "Recipe",
    }
    if not content.evaluation:
        names = {k: v for k, v in names.items() if k in ("score", "growth", "audit", "recipe")}
    if not content.curve:
        names.pop("growth", None)
    return names


def _score(e: Evaluation) -> str:
    low, high = e.interval
    rows = [
        ("Balanced accuracy", f"{100 * e.balanced_accuracy:.1f} %"),
        ("Macro F1", f"{100 * e.macro_f1:.1f} %"),
    ]
    rows += [(f"Top-{k} accuracy", f"{100 * share:.1f} %") for k, share in e.top_k.items()]
    if e.weighted_accuracy is not None:
        rows.append(("Weighted accuracy", f"{100 * e.weighted_accuracy:.1f} %"))
    rows += [("Log-loss", f"{e.log_loss:.3f}"), ("Brier score", f"{e.brier:.3f}")]
    rows.append(("Calibration error", f"{100 * e.calibration_error:.1f} %"))
    if e.auroc is not None:
        rows.append(("AUROC", f"{e.auroc:.3f}"))
    cells = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in rows)
    return (
        f'<p class="headline"><strong>{100 * e.accuracy:.1f} %</strong> of {e.n} test images are correct '
        f"(95 %: {100 * low:.1f} to {100 * high:.1f}). Always predicting {named(e.baseline.name)} would give "
        f"{100 * e.baseline.accuracy:.1f} %.</p>{charts.bar(e.accuracy, low, high, e.baseline.accuracy)}"
        '<p class="legend"><span class="key-interval"></span> 95 % interval <span class="key-baseline"></span> '
        "always predicting the most frequent class</p><details><summary>Other metrics</summary>"
        f"<table>{cells}</table></details>"
    )


def _confusions(e: Evaluation) -> str:
    hint = "<p>Click a number to see its pictures.</p>"
    if len(e.classes) > MATRIX:
        wrong = e.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
        pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
        rows = "".join(
            f'<tr><th scope="row">{named(e.classes[i])}</th><td>{named(e.classes[j])}</td>'
            f"<td>{_cell(e.classes[i], e.classes[j], int(wrong[i, j]), 0.0)}</td></tr>"
            for i, j in pairs
            if wrong[i, j]
        )
        head = '<tr><th scope="col">true</th><th scope="col">predicted</th><th scope="col">images</th></tr>'
        table = f'<table class="listing"><thead>{head}</thead><tbody>{rows}</tbody></table>'
        return f'{hint}<div class="wide" tabindex="0" role="region" aria-label="Confusions">{table}</div>'
    columns = "".join(f'<th scope="col"><span>{named(name)}</span></th>' for name in e.classes)
    rows = ""
    for i, name in enumerate(e.classes):
        total = max(1, int(e.confusion[i].sum()))
        cells = "".join(
            f'<td class="{"right" if i == j else "wrong"}">'
            f"{_cell(name, e.classes[j], int(n), int(n) / total) if n else '<span class=none>·</span>'}</td>"
            for j, n in enumerate(e.confusion[i].tolist())
        )
        rows += f'<tr><th scope="row">{named(name)}</th>{cells}</tr>'
    return (
        f'{hint}<div class="wide" tabindex="0" role="region" aria-label="Confusion matrix"><table class="matrix">'
        "<caption>Rows: the true class. Columns: the predicted class.</caption>"
        f'<thead><tr><td class="corner"></td>{columns}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _cell(label: str, said: str, count: int, share: float) -> str:
    shade = 0 if share == 0 else 1 + min(8, int(9 * share))
    told = f"{count} of class {label} predicted as {said}"
    return (
        f'<button type="button" class="cell s{shade}" data-label="{escape(label)}" data-said="{escape(said)}" '
        f'data-count="{count}" aria-label="{escape(told)}">{count}</button>'
    )


def _gallery(e: Evaluation) -> str:
    options = "".join(f"<option>{escape(name)}</option>" for name in e.classes)
    return (
        '<section id="pictures"><h2>Pictures: the most confident mistakes first</h2><div class="filters">'
        f'<label>True class <select id="is"><option value="">any class</option>{options}</select></label>'
        f'<label>Predicted <select id="said"><option value="">any class</option>{options}</select></label>'
        '<label><input type="checkbox" id="wrong" checked> mistakes only</label>'
        '<button type="button" id="looked" aria-pressed="false">Attention maps</button>'
        '<button type="button" id="reset">Reset</button></div><p id="told" role="status"></p>'
        '<p class="legend">Attention maps: the more orange a region, the more it contributed to the prediction. The '
        "maps are coarse, and only a hint.</p>"
        '<ul id="gallery" class="gallery"></ul>'
        '<button type="button" id="more" hidden>Show more</button></section>'
    )


def _classes(e: Evaluation) -> str:
    heads = "".join(
        f'<th scope="col" aria-sort="none"><button type="button" class="sort">{name}</button></th>'
        for name in ("Class", "Images", "Recall", "Precision", "F1")
    )
    rows = ""
    for s in e.per_class:
        recall = "–"
        if s.recall is not None and s.interval is not None:
            low, high = s.interval
            recall = (
                f"{100 * s.recall:.1f} % <small>({100 * low:.0f} to {100 * high:.0f})</small>"
                f"{charts.bar(s.recall, low, high)}"
            )
        rows += (
            f'<tr><th scope="row" data-sort="{escape(s.name)}">{named(s.name)}</th><td data-sort="{s.n}">{s.n}</td>'
            f'<td data-sort="{-1 if s.recall is None else s.recall:.6f}">{recall}</td>'
            f'<td data-sort="{s.precision:.6f}">{100 * s.precision:.1f} %</td>'
            f'<td data-sort="{-1 if s.f1 is None else s.f1:.6f}">'
            f"{'–' if s.f1 is None else f'{100 * s.f1:.1f} %'}</td></tr>"
        )
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="Class by class"><table id="table" class="listing">'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _audit(findings: tuple[FindingGroup, ...]) -> str:
    if not findings:
        return "<p>No problems found, or the audit was turned off.</p>"
    out = (
        "<p>Your files were not changed. To fix problems, edit <code>fixes.csv</code> and train with "
        "<code>--fixes</code>.</p>"
    )
    return out + "".join(finding_list(group) for group in findings)
