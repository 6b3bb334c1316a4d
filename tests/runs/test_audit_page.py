"""audit.html in a real browser: every finding with its pictures, by class, and nothing hostile does anything."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import Browser, start_browser
from photos import shape, write_shapes
from topwork.checks.findings import KINDS, Audit, Finding
from topwork.data.dataset import Dataset, Example, FileImage
from topwork.jobs.audit import audit
from topwork.progress import Silent
from topwork.recipe import Recipe
from topwork.runs.report import audit_page
from topwork.runs.report.audit_page import render_audit, write_audit_page
from topwork.runs.report.content import finding_groups

HOSTILE = "</script><script>window.caught=1</script>\"'><img src=x onerror=window.caught=1>\u202ertl"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    one = start_browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> tuple[Path, Audit]:
    """A folder with some faults: the page of its audit, and the audit."""
    root = write_shapes(tmp_path_factory.mktemp("faulty") / "photos", 12)
    shutil.copy(root / "circle" / "003.png", root / "circle" / "copy.png")
    shutil.copy(root / "square" / "005.png", root / "stripes" / "wrong.png")
    (root / "circle" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    Image.new("RGB", (48, 48), (90, 90, 90)).save(root / "square" / "blank.png")
    (root / "rare").mkdir()
    shape("square", 800).rotate(45, expand=True).save(root / "rare" / "0.png")
    out = tmp_path_factory.mktemp("out") / "audit"
    return out / "audit.html", audit(root, out, recipe=recipe)


@pytest.fixture
def page(browser: Browser, found: tuple[Path, Audit]) -> Browser:
    browser.screen(1100, 900)
    browser.open(found[0].as_uri())
    return browser


def made_up(findings: tuple[Finding, ...], classes: dict[str, int]) -> Audit:
    return Audit("made up", sum(classes.values()), classes, findings, (), {})


def test_it_needs_nothing_but_itself(page: Browser) -> None:
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in page.requests if url.startswith("file:")]) == 1
    assert page.run(
        "Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode(); })).then(() => true)"
    )


def test_every_finding_is_there_with_its_pictures(page: Browser, found: tuple[Path, Audit]) -> None:
    audited = found[1]
    for kind, count in audited.counts().items():
        items = page.run(f"[...document.querySelectorAll('#kind-{kind} li')].map(i => i.innerText)")
        assert len(items) == count
        for text, finding in zip(items, audited.of(kind), strict=True):
            assert all(id in text for id in finding.ids)
            assert finding.note in text
    shown = page.run("[...document.images].map(i => i.alt)")
    named = {id for f in audited.findings for id in f.ids}
    assert set(shown) == named - {"circle/broken.jpg"}  # of which there is no picture


def test_every_kind_is_named_found_or_not(page: Browser, found: tuple[Path, Audit]) -> None:
    rows = page.run("[...document.querySelectorAll('#found tbody tr')].map(r => r.innerText.split('\\t'))")
    counts = found[1].counts()
    assert rows == [[KINDS[name].title, str(n or "none")] for name, n in counts.items()]


def test_findings_of_one_class(page: Browser, found: tuple[Path, Audit]) -> None:
    page.run("of.value = 'stripes'; of.dispatchEvent(new Event('change'))")
    shown = page.run(
        "[...document.querySelectorAll('.finding li')].filter(i => i.checkVisibility()).map(i => i.dataset.labels)"
    )
    expected = sum("stripes" in f.labels for f in found[1].findings)
    assert 0 < len(shown) == expected
    assert page.run("told.innerText") == f"{expected} of the findings below"
    assert not page.run("document.getElementById('kind-blank').checkVisibility()")
    # A link to a kind that is filtered out brings all back.
    page.run("document.querySelector('a[href=\"#kind-blank\"]').click()")
    page.run("new Promise(done => setTimeout(() => done(true), 50))")
    assert page.run("document.getElementById('kind-blank').checkVisibility()")
    assert page.run("of.value") == ""


def test_the_classes_sort(page: Browser) -> None:
    counts = "[...document.querySelectorAll('#table tbody tr')].map(r => +r.cells[1].innerText)"
    page.run("document.querySelectorAll('#table .sort')[1].click()")
    assert page.run(counts) == sorted(page.run(counts))


def test_links_lead_somewhere(page: Browser) -> None:
    assert page.run("[...document.querySelectorAll('a[href]')].every(a => document.querySelector(a.hash))")


def test_it_fits_a_phone(browser: Browser, found: tuple[Path, Audit]) -> None:
    browser.screen(360, 700, phone=True)
    browser.open(found[0].as_uri())
    assert browser.run("document.documentElement.scrollWidth") <= 360


def test_the_keyboard_alone_folds_and_filters(page: Browser) -> None:
    for _ in range(60):
        page.press("Tab", 9)
        if page.run("document.activeElement.matches('.finding summary')"):
            break
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.press("Enter", 13, "\r")
    assert not page.run("document.querySelector('.finding').open")


def test_every_picture_and_control_has_a_name(page: Browser) -> None:
    assert page.run("[...document.images].every(i => i.alt)")
    assert page.run("[...document.querySelectorAll('button')].every(b => b.innerText.trim() || b.ariaLabel)")
    assert page.run("of.labels[0].innerText").startswith("Class")
    levels = page.run("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_hostile_names_do_nothing(browser: Browser, tmp_path: Path) -> None:
    finding = Finding("blank", (HOSTILE,), (HOSTILE,), "look", HOSTILE)
    audited = made_up((finding,), {HOSTILE: 1, "z" * 400: 1})
    path = tmp_path / "hostile.html"
    path.write_text(render_audit(audited, finding_groups(audited.to_dict()["findings"]), {}), "utf-8")
    browser.screen(360, 700, phone=True)
    browser.open(path.as_uri())
    browser.run("of.value = of.options[1].value; of.dispatchEvent(new Event('change'))")
    assert browser.run("document.querySelector('.finding li').checkVisibility()")
    assert browser.run("window.caught") is None
    assert browser.errors == []
    assert browser.run("document.documentElement.scrollWidth") <= 360


def test_nothing_found_says_so(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "none.html"
    path.write_text(render_audit(made_up((), {"a": 3}), (), {}), encoding="utf-8")
    browser.open(path.as_uri())
    assert browser.errors == []
    assert "No problems found." in browser.run("document.getElementById('findings').innerText")


def test_with_ten_thousand_pictures_it_stays_below_ten_megabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them findings of every kind, and each as large as noise makes it: those that fit are shown."""
    noise = np.random.default_rng(0).integers(0, 256, 12_000, np.uint8).tobytes()
    ids = [f"some-folder/with/a-long-name/picture-{i:05}.jpg" for i in range(10_000)]
    monkeypatch.setattr(audit_page, "small", lambda example: (example.id, noise))
    dataset = Dataset(tuple(Example(id, FileImage(id), "a") for id in ids), ("a",), "made up")
    findings = tuple(
        Finding(kind, tuple(ids[i : i + 4]), ("a",) * 4, "look", "x" * 200)
        for number, kind in enumerate(KINDS)
        for i in range(240 * number, len(ids), 4)
    )
    path = write_audit_page(tmp_path, made_up(findings, {"a": 10_000}), dataset, Silent())
    assert 5_000_000 < path.stat().st_size < 10_000_000
