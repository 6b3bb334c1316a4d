"""The frame of the HTML pages: a self-contained file with a Content-Security-Policy that forbids all requests."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

from topwork.runs.report.content import FindingGroup, Item


def framed(kind: str, title: str, links: Mapping[str, str], body: str, data: Mapping[str, Any]) -> str:
    """The page as HTML. `links`: section id → title. `data`: read by the script, as JSON."""
    style, script = _file("report.css"), _file("report.js")
    # "<" is escaped so that no text can close the script element.
    embedded = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    )
    items = "".join(f'<li><a href="#{section}">{name}</a></li>' for section, name in links.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>Topwork {kind}: {escape(title)}</title><style>{style}</style></head><body>"
        '<a class="skip" href="#main">Skip to the content</a>'
        f"<header><p>Topwork {kind}</p><h1>{escape(title)}</h1>"
        '<button type="button" id="theme" aria-pressed="false">Dark</button></header>'
        f'<nav aria-label="Sections"><ul>{items}</ul></nav><main id="main">{body}</main>'
        f'<script type="application/json" id="data">{embedded}</script><script>{script}</script></body></html>\n'
    )


def finding_list(group: FindingGroup) -> str:
    """A collapsible list of the findings of one kind, with pictures."""
    items = "".join(_item(item) for item in group.items)
    shown = (
        f"{len(group.items)} of {group.count} shown; all are in audit.json"
        if len(group.items) < group.count
        else ""
    )
    return (
        f'<details class="finding" id="kind-{escape(group.name)}" open>'
        f"<summary><h3>{escape(group.title)}: {group.count}</h3></summary>"
        f"<p>{escape(group.meaning)} {shown}</p><ul>{items}</ul></details>"
    )


def named(text: str) -> str:
    """A user's text, escaped, and isolated so that it can't change the writing direction of the text around it."""
    return f"<bdi>{escape(text)}</bdi>"


def listed(lines: tuple[str, ...], kind: str) -> str:
    """The lines as an HTML list of the CSS class `kind`; empty if there are none."""
    if not lines:
        return ""
    return f'<ul class="{kind}">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>'


def data_uri(data: bytes) -> str:
    """A JPEG as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def _item(item: Item) -> str:
    pictures = "".join(
        f'<img data-picture="{escape(image_id)}" alt="{escape(image_id)}" loading="lazy" width="112" height="112">'
        for image_id in item.ids
    )
    labels = ", ".join(named(label) for label in dict.fromkeys(item.labels))
    ids = ", ".join(f"<code>{escape(image_id)}</code>" for image_id in item.ids)
    told = f"<p>{labels}</p><p>{ids}</p><p>{escape(item.note)}</p>"
    of = escape(json.dumps(item.labels, ensure_ascii=False))
    return f'<li data-labels="{of}"><div class="pictures">{pictures}</div><div>{told}</div></li>'


def _file(name: str) -> str:
    return files("topwork.runs.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
