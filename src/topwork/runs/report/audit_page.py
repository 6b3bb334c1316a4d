"""`audit.html`: an audit's findings with pictures, for reviewing them while editing `fixes.csv`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

from topwork.checks.findings import KINDS, Audit
from topwork.data.dataset import Dataset
from topwork.errors import TopworkError
from topwork.progress import Watch
from topwork.runs.folder import AUDIT_PAGE
from topwork.runs.report.content import FindingGroup, finding_groups
from topwork.runs.report.frame import data_uri, finding_list, framed, named
from topwork.runs.report.thumbnails import made, small

FINDINGS = 60  # shown of each kind
ROOM = 6_000_000  # bytes of JPEG at most; base64 adds a third, and the page stays below 10 MB
LINKS = {"found": "Summary", "findings": "Findings", "classes": "Classes", "next": "Next steps"}


def write_audit_page(folder: Path, audit: Audit, dataset: Dataset, watch: Watch) -> Path:
    """Write the page into an audit's folder.

    Raises:
        TopworkError: it can't be written.
    """
    groups = finding_groups(audit.to_dict()["findings"], most=FINDINGS)
    of_id = {example.id: example for example in dataset}
    ids = dict.fromkeys(image_id for group in groups for item in group.items for image_id in item.ids)
    wanted = [of_id[image_id] for image_id in ids if image_id in of_id]
    with watch.bar("pictures", len(wanted)) as progress:
        pictures = dict(_fitting(made(small, wanted, progress)))
    path = folder / AUDIT_PAGE
    try:
        path.write_text(render_audit(audit, groups, pictures), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise TopworkError(f"{folder}: can't be written ({error.strerror}); choose another --out") from None
    return path


def render_audit(audit: Audit, groups: tuple[FindingGroup, ...], pictures: Mapping[str, bytes]) -> str:
    """The page as HTML. `pictures`: image id → JPEG bytes; images without a picture are shown by name."""
    data = {"pictures": {image_id: data_uri(bytes_) for image_id, bytes_ in pictures.items()}}
    return framed("audit", audit.data, LINKS, "".join(_sections(audit, groups)), data)


def _fitting(pictures: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    room = ROOM
    for image_id, data in pictures:
        room -= len(data)
        if room < 0:
            return
        yield image_id, data


def _sections(audit: Audit, groups: tuple[FindingGroup, ...]) -> Iterator[str]:
    count, classes = len(audit.findings), len(audit.class_counts)
    yield (
        '<section id="found"><h2>Summary</h2>'
        f'<p class="headline"><strong>{count}</strong> {"finding" if count == 1 else "findings"} in {audit.images} '
        f"pictures of {classes} classes. Your files were not changed.</p>{_kinds(audit)}</section>"
    )
    options = "".join(f"<option>{escape(name)}</option>" for name in audit.class_counts)
    yield (
        '<section id="findings"><h2>Findings, most serious first</h2><div class="filters">'
        f'<label>Class <select id="of"><option value="">any class</option>{options}</select></label></div>'
        f'<p id="told" role="status"></p>{"".join(map(finding_list, groups)) or "<p>No problems found.</p>"}'
        "</section>"
    )
    yield f'<section id="classes"><h2>Class by class</h2>{_classes(audit)}</section>'
    yield (
        '<section id="next"><h2>Next steps</h2><p>The file <code>fixes.csv</code> next to this page has a row for '
        "each finding and picture. Edit its column <code>suggestion</code>: <code>leave out</code>, "
        "<code>relabel</code> (with the class in <code>label</code>), <code>keep one</code> (of a "
        "<code>group</code>), or <code>look</code> (no change). Then train with <code>--fixes fixes.csv</code>.</p>"
        "</section>"
    )


def _kinds(audit: Audit) -> str:
    """All kinds of findings with their counts, including kinds without findings."""
    rows = "".join(
        f'<tr><th scope="row">{_linked(name, n)}</th><td>{n or "none"}</td></tr>'
        for name, n in audit.counts().items()
    )
    head = '<tr><th scope="col">Check</th><th scope="col">Findings</th></tr>'
    return f'<table class="listing"><thead>{head}</thead><tbody>{rows}</tbody></table>'


def _linked(kind: str, count: int) -> str:
    title = escape(KINDS[kind].title)
    return f'<a href="#kind-{kind}">{title}</a>' if count else title


def _classes(audit: Audit) -> str:
    touched = Counter(label for f in audit.findings for label in {*f.labels} if label)
    heads = "".join(
        f'<th scope="col" aria-sort="none"><button type="button" class="sort">{name}</button></th>'
        for name in ("Class", "Pictures", "Findings")
    )
    rows = "".join(
        f'<tr><th scope="row" data-sort="{escape(name)}">{named(name)}</th><td data-sort="{n}">{n}</td>'
        f'<td data-sort="{touched[name]}">{touched[name]}</td></tr>'
        for name, n in audit.class_counts.items()
    )
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="Class by class"><table id="table" class="listing">'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
