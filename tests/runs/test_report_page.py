"""report.html in a real browser: what it says, that all on it works, and that nothing hostile does."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from browser import Browser, start_browser
from photos import Topwork, one_line
from topwork.evaluation.evaluate import evaluate
from topwork.jobs.train import Run, train
from topwork.recipe import BackboneRecipe, Recipe
from topwork.runs.report.content import Content, FindingGroup, Item, Shot, content_of
from topwork.runs.report.page import render
from topwork.runs.report.write import write_report

HOSTILE = "</script><script>window.caught=1</script>\"'><img src=x onerror=window.caught=1>\u202ertl"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    one = start_browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def erring(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with answers that err: its page has mistakes to look at. At 96 px its last layer has 3 x 3 places."""
    folder = tmp_path_factory.mktemp("erring") / "run"
    run = train(shapes, folder, recipe=Recipe(backbone=BackboneRecipe(size_px=96, precision="f32")))
    with (folder / "splits.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = list(run.classifier.classes)
    tested = [row for row in rows if row["split"] == "test"]
    for row in tested[::2]:
        row["prediction"] = classes[(classes.index(row["label"]) + 1) % 3]
        row["probability"] = "0.9"
    with (folder / "splits.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    said = np.array([classes.index(row["prediction"]) for row in tested])
    probabilities = np.full((len(said), 3), 0.05)
    probabilities[np.arange(len(said)), said] = 0.9
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    truth = [classes.index(row["label"]) for row in tested]
    report["test"] = evaluate(truth, probabilities, classes=classes).to_dict()
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    write_report(folder)
    return folder / "report.html"


@pytest.fixture
def page(browser: Browser, erring: Path) -> Browser:
    browser.screen(1100, 900)
    browser.open(erring.as_uri())
    return browser


def test_it_needs_nothing_but_itself(page: Browser) -> None:
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in page.requests if url.startswith("file:")]) == 1
    assert page.run("document.images.length") > 0
    page.run(
        "Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode(); })).then(() => true)"
    )


def test_its_numbers_are_the_runs(page: Browser, erring: Path) -> None:
    content = content_of(erring.parent)
    assert content.evaluation is not None
    assert f"{100 * content.evaluation.accuracy:.1f} %" in page.run(
        "document.querySelector('.headline').innerText"
    )
    shown = page.run(
        "[...document.querySelectorAll('.cell')].map(c => [c.dataset.label, c.dataset.said, c.innerText])"
    )
    names = content.evaluation.classes
    for label, said, count in shown:
        assert int(count) == content.evaluation.confusion[names.index(label), names.index(said)]
    assert sum(int(count) for _, _, count in shown) == content.evaluation.n


def test_each_cell_shows_the_pictures_behind_it(page: Browser) -> None:
    for i in range(page.run("document.querySelectorAll('.cell').length")):
        page.run(f"document.querySelectorAll('.cell')[{i}].click()")
        label, said, count = page.run(
            f"(c => [c.dataset.label, c.dataset.said, +c.dataset.count])(document.querySelectorAll('.cell')[{i}])"
        )
        cards = page.run("[...document.querySelectorAll('#gallery li')].map(l => l.innerText)")
        assert len(cards) == min(count, 6 if label == said else count)
        assert all(said in card for card in cards)
        assert f"of {count} test images in this cell" in page.run("document.getElementById('told').innerText")


def test_filters_and_reset(page: Browser) -> None:
    every = page.run("document.querySelectorAll('#gallery li').length")
    assert every > 0
    first = page.run("document.querySelector('#said option:nth-child(2)').value")
    page.run(f"said.value = {first!r}; said.dispatchEvent(new Event('change'))")
    cards = page.run("[...document.querySelectorAll('#gallery li')].map(l => l.innerText)")
    assert 0 < len(cards) < every
    assert all(f"predicted: {first}" in card for card in cards)
    page.run("wrong.checked = false; wrong.dispatchEvent(new Event('change'))")
    assert page.run("document.querySelectorAll('#gallery li').length") > len(cards)
    page.run("reset.click()")
    assert page.run("document.querySelectorAll('#gallery li').length") == every


def test_where_it_looked_is_another_picture(page: Browser) -> None:
    before = page.run("document.querySelector('#gallery img').src")
    page.run("looked.click()")
    assert page.run("looked.getAttribute('aria-pressed')") == "true"
    assert page.run("document.querySelector('#gallery img').src") != before
    page.run("looked.click()")
    assert page.run("document.querySelector('#gallery img').src") == before


def test_the_table_sorts(page: Browser) -> None:
    column = "[...document.querySelectorAll('#table tbody tr')].map(r => r.cells[0].innerText)"
    names = page.run(column)
    page.run("document.querySelector('#table .sort').click()")
    assert page.run(column) == sorted(names)
    assert page.run("document.querySelector('#table th').getAttribute('aria-sort')") == "ascending"
    page.run("document.querySelector('#table .sort').click()")
    assert page.run(column) == sorted(names, reverse=True)


def test_links_lead_somewhere(page: Browser) -> None:
    assert page.run("[...document.querySelectorAll('a[href]')].every(a => document.querySelector(a.hash))")


def test_light_and_dark(page: Browser) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.run(ground)
    page.run("theme.click()")
    dark = page.run(ground)
    assert dark != light
    page.screen(1100, 900, dark=True)
    assert page.run(ground) == dark
    page.run("theme.click()")
    assert page.run(ground) == light


def test_contrast_is_enough_in_both(page: Browser) -> None:
    """WCAG 2.2 AA: 4.5 to 1 for text."""
    for dark in (False, True):
        page.screen(1100, 900, dark=dark)
        for colour in ("--ink", "--soft", "--accent", "--warn"):
            for ground in ("--ground", "--card"):
                one, other = (
                    page.run(f"getComputedStyle(document.documentElement).getPropertyValue('{name}').trim()")
                    for name in (colour, ground)
                )
                assert _contrast(one, other) >= 4.5, (dark, colour, ground)


def test_it_fits_a_phone(browser: Browser, erring: Path) -> None:
    browser.screen(360, 700, phone=True)
    browser.open(erring.as_uri())
    assert browser.run("document.documentElement.scrollWidth") <= 360


def test_the_keyboard_alone_reaches_and_uses_it(page: Browser) -> None:
    seen = set()
    for _ in range(40):
        page.press("Tab", 9)
        seen.add(page.run("document.activeElement.className || document.activeElement.id"))
        if page.run("document.activeElement.matches('.wrong .cell')"):
            break
    assert "skip" in seen
    said = page.run("document.activeElement.dataset.said")
    page.press("Enter", 13, "\r")
    assert page.run("document.getElementById('said').value") == said
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_every_picture_and_control_has_a_name(page: Browser) -> None:
    assert page.run("[...document.images].every(i => i.alt)")
    assert page.run("[...document.querySelectorAll('button')].every(b => b.innerText.trim() || b.ariaLabel)")
    assert page.run("[...document.querySelectorAll('svg[role=img]')].every(s => s.ariaLabel)")
    levels = page.run("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_hostile_names_do_nothing(browser: Browser, tmp_path: Path) -> None:
    classes = [HOSTILE, "z" * 400]
    evaluation = evaluate([0, 1, 0], [[0.9, 0.1], [0.2, 0.8], [0.1, 0.9]], classes=classes)
    finding = FindingGroup("blank", HOSTILE, HOSTILE, 1, (Item((HOSTILE,), (HOSTILE,), HOSTILE),))
    content = Content(
        HOSTILE, evaluation, (Shot(HOSTILE, *classes, 0.9),), None, (), (HOSTILE,), (finding,),
        ((HOSTILE, HOSTILE),), HOSTILE,
    )  # fmt: skip
    path = tmp_path / "hostile.html"
    path.write_text(render(content, {}, {}), encoding="utf-8")
    browser.screen(360, 700, phone=True)
    browser.open(path.as_uri())
    assert browser.run("window.caught") is None
    assert browser.errors == []
    assert browser.run("document.documentElement.scrollWidth") <= 360
    assert browser.run("document.querySelectorAll('#gallery li').length") == 1
    assert HOSTILE.replace("\u202e", "") in browser.run("document.querySelector('h1').textContent").replace(
        "\u202e", ""
    )


def test_without_a_test_it_says_so(browser: Browser, tmp_path: Path) -> None:
    content = Content("few", None, (), None, (), ("No image could be spared.",), (), (), "")
    path = tmp_path / "few.html"
    path.write_text(render(content, {}, {}), encoding="utf-8")
    browser.open(path.as_uri())
    assert browser.errors == []
    assert "No image could be spared." in browser.run("document.getElementById('score').innerText")


def test_many_classes_are_listed(browser: Browser, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    names = [f"class {i:03}" for i in range(1000)]
    targets = random.integers(0, 1000, 10_000)
    said = np.where(random.random(10_000) < 0.7, targets, random.integers(0, 1000, 10_000))
    probabilities = np.full((10_000, 1000), 0.1 / 999)
    probabilities[np.arange(10_000), said] = 0.9
    evaluation = evaluate(targets, probabilities, classes=names)
    shots = tuple(Shot(f"{i}.jpg", names[0], names[1], 0.9) for i in range(480))
    content = Content("many", evaluation, shots, None, (), (), (), (), "")
    picture = random.integers(0, 256, 6000, np.uint8).tobytes()  # as large as a small picture gets
    text = render(content, {s.id: picture for s in shots}, {})
    assert len(text.encode()) < 10_000_000
    path = tmp_path / "many.html"
    path.write_text(text, encoding="utf-8")
    browser.open(path.as_uri())
    assert browser.run("document.querySelectorAll('.cell').length") == 40
    assert browser.run("document.querySelectorAll('#table tbody tr').length") == 1000


def test_report_is_written_again(call: Topwork, run: Run, tmp_path: Path, shapes: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.path, folder)
    (folder / "report.html").unlink()
    code, out, _ = call("report", folder)
    assert (code, out) == (0, f"wrote {folder / 'report.html'}\n")
    assert (folder / "report.html").read_text("utf-8") == (run.path / "report.html").read_text("utf-8")
    one_line(call("report", tmp_path), "expected a folder that `topwork train` wrote")


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    digits = re.fullmatch("#([0-9a-f]{3}|[0-9a-f]{6})", colour)
    assert digits, colour
    text = digits[1] if len(digits[1]) == 6 else "".join(2 * c for c in digits[1])
    channels = [int(text[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
