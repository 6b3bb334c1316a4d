"""The page of `topwork serve` in a real browser, against a real server: pictures in, answers out."""

from __future__ import annotations

import base64
import csv
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browser import Browser, start_browser
from photos import shape
from serving import Server, pictures, serving
from topwork.jobs.train import Run, train
from topwork.recipe import BackboneRecipe, Recipe

pytestmark = pytest.mark.slow

HOSTILE = '=1+1,"<img src=x onerror=window.caught=1>.png'
FAKE_CAMERA = "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream"


@pytest.fixture(scope="module")
def looking(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """At 96 px its last layer has 3 x 3 places: it has maps."""
    recipe = Recipe(backbone=BackboneRecipe(size_px=96, precision="f32"))
    return train(shapes, tmp_path_factory.mktemp("looking") / "run", recipe=recipe)


@pytest.fixture(scope="module")
def server(run: Run, looking: Run) -> Iterator[Server]:
    with serving(f"shapes={run.path}", f"looking={looking.path}") as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """With a camera that shows a test picture, and gives no cause to ask."""
    folder = tmp_path_factory.mktemp("browser")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with pytest.MonkeyPatch.context() as patch:
        if program:
            (folder / "chromium").write_text(f'#!/bin/sh\nexec "{program}" {FAKE_CAMERA} "$@"\n')
            (folder / "chromium").chmod(0o755)
            patch.setenv("PATH", str(folder), prepend=":")
        found = start_browser(folder / "profile")
    yield found
    found.close()


@pytest.fixture
def page(browser: Browser, server: Server) -> Browser:
    browser.screen(1100, 900)
    _open(browser, server)
    return browser


def _open(browser: Browser, server: Server) -> None:
    browser.open(f"{server.url}/")
    _until(browser, "document.title !== 'Topwork'")


def _until(browser: Browser, code: str) -> None:
    end = time.monotonic() + 30
    while not browser.run(code):
        assert time.monotonic() < end, (code, browser.run("document.body.innerText"))
        time.sleep(0.03)


def _give(browser: Browser, how: str, *files: tuple[str, bytes]) -> None:
    """Drop or paste files on the page, as a hand would."""
    given = json.dumps([(name, base64.b64encode(data).decode()) for name, data in files])
    event = {
        "drop": "new DragEvent('drop', {dataTransfer: all, bubbles: true, cancelable: true})",
        "paste": "new ClipboardEvent('paste', {clipboardData: all, bubbles: true, cancelable: true})",
    }[how]
    browser.run(
        f"""(() => {{ const all = new DataTransfer();
        for (const [name, text] of {given})
          all.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
        document.body.dispatchEvent({event}); }})()"""
    )


def _choose(browser: Browser, *paths: Path) -> None:
    """As if chosen in the dialog that "Choose pictures" opens."""
    root = browser._send("DOM.getDocument")["root"]["nodeId"]
    node = browser._send("DOM.querySelector", nodeId=root, selector="#files")["nodeId"]
    browser._send("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])


def _answered(browser: Browser, count: int) -> list[str]:
    """What the cards say when each has its answer, the newest first."""
    cards = "[...document.querySelectorAll('.card')]"
    _until(browser, f"{cards}.length === {count} && {cards}.every((c) => c.querySelector('.answer'))")
    # Cards out of sight are not laid out, and have no innerText.
    return list(browser.run(f"{cards}.map((c) => c.textContent)"))


def _asked(server: Server, data: bytes, **more: Any) -> dict[str, Any]:
    with server.client() as client:
        return dict(client.post("/v1/predict", content=data, params=more).json()["predictions"][0])


def _noise(path: Path) -> bytes:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    return path.read_bytes()


def test_the_answer_is_the_apis(page: Browser, server: Server, fresh: Path, run: Run) -> None:
    files = pictures(fresh)
    told = {path.name + path.parent.name: _asked(server, path.read_bytes()) for path in files}
    for path in files:
        _choose(page, path)
        (card,) = _answered(page, 1)
        answer = told[path.name + path.parent.name]
        assert path.name in card
        said = page.run("document.querySelector('.answer').innerText")
        assert said == ("None of these" if answer["rejected"] else answer["class"])
        names = page.run("[...document.querySelectorAll('.bars bdi')].map((b) => b.innerText)")
        assert names == [one["class"] for one in answer["top"]]
        widths = page.run(
            "[...document.querySelectorAll('.fill')].map((f) => parseFloat(f.style.width) / 100)"
        )
        assert widths == pytest.approx([one["probability"] for one in answer["top"]], abs=1e-5)
        near = page.run("[...document.querySelectorAll('.seen li bdi')].map((n) => n.innerText)")
        wanted = _asked(server, path.read_bytes(), explain="neighbours")["neighbours"]
        assert near == [one["label"] for one in wanted]
        heard = page.run("document.getElementById('told').innerText")
        assert heard.startswith(f"{path.name}: {said if said != 'None of these' else 'none of these'}")
        page.run("document.getElementById('clear').click()")
    assert run.test is not None
    head = page.run("document.querySelector('header').innerText")
    assert f"Tested on {run.test.n} pictures: {100 * run.test.accuracy:.0f}" in head
    assert "circle, square, stripes; or none of these." in head
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith((f"{server.url}/", "blob:", "data:"))] == []


def test_drop_and_paste_and_what_is_no_picture(page: Browser, server: Server, fresh: Path) -> None:
    first, second, *_ = (path.read_bytes() for path in pictures(fresh))
    _give(page, "drop", ("a.png", first), ("photo.heic", b"\0\0\0\x18ftypheic" + bytes(40)))
    _give(page, "paste", ("image.png", second))
    cards = _answered(page, 3)
    assert ["image.png" in cards[0], "a.png" in cards[1], "photo.heic" in cards[2]] == [True] * 3
    with server.client() as client:
        refused = client.post("/v1/predict", content=b"\0\0\0\x18ftypheic" + bytes(40)).json()["error"]
    assert "No answer" in cards[2]
    assert f"{refused['message']}. Save it as JPEG first." in cards[2]
    assert page.run("document.getElementById('progress').innerText") == "3 pictures"


def test_none_of_these(page: Browser, server: Server, tmp_path: Path) -> None:
    data = _noise(tmp_path / "noise.png")
    told = _asked(server, data)
    assert told["rejected"]
    _give(page, "drop", ("noise.png", data))
    (card,) = _answered(page, 1)
    assert page.run("document.querySelector('.answer').innerText") == "None of these"
    assert told["reason"] in card
    assert f"The nearest class would be {told['class']}" in card
    assert "none of these" in page.run("document.getElementById('told').innerText")


def test_the_map_is_laid_over_the_picture(page: Browser, server: Server, fresh: Path) -> None:
    path = pictures(fresh)[0]
    _choose(page, path)
    _answered(page, 1)
    assert page.run("document.querySelector('.view button') === null")  # at 32 px there is none
    page.run("picker.value = 'looking'; picker.dispatchEvent(new Event('change'))")
    _until(page, "document.querySelector('.view button') !== null")
    assert page.run("document.getElementById('model').innerText") == "looking"
    (card,) = _answered(page, 1)
    assert _asked(server, path.read_bytes(), model="looking")["class"] in card
    page.run("document.querySelector('.view button').click()")
    assert page.run("document.querySelector('.view button').getAttribute('aria-pressed')") == "true"
    boxes = page.run(
        "['.picture', '.map'].map((k) => document.querySelector(k).getBoundingClientRect()).map((b) => [b.x, b.y, "
        "b.width, b.height])"
    )
    assert boxes[0] == pytest.approx(boxes[1], abs=1)
    assert page.run("document.querySelector('.map').naturalWidth") == 96
    page.run("document.querySelector('.view button').click()")
    assert page.run("document.querySelector('.map').hidden")


def test_the_table_and_the_json(page: Browser, server: Server, fresh: Path, tmp_path: Path) -> None:
    data = pictures(fresh)[0].read_bytes()
    told = _asked(server, data)
    page._send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    _give(page, "drop", (HOSTILE, data), ("no.txt", b"no picture"))
    _answered(page, 2)
    page.run("document.getElementById('csv').click()")
    end = time.monotonic() + 20
    while not (tmp_path / "topwork.csv").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    with (tmp_path / "topwork.csv").open(encoding="utf-8-sig", newline="") as file:
        one, other = csv.DictReader(file)
    assert one["picture"] == f"'{HOSTILE}"
    assert (one["class"], one["rejected"]) == (told["class"], str(told["rejected"]).lower())
    assert float(one["probability"]) == told["probability"]
    assert float(one["novelty"]) == told["novelty"]
    assert (one["model"], one["class_2"]) == ("shapes", told["top"][1]["class"])
    assert (other["picture"], other["class"]) == ("no.txt", "")
    assert "not a JPEG, PNG" in other["error"]
    page._send("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    page.run("[...document.querySelectorAll('button')].find((b) => b.innerText === 'Copy as JSON').click()")
    _until(page, "[...document.querySelectorAll('button')].some((b) => b.innerText === 'Copied')")
    copied = json.loads(page.run("navigator.clipboard.readText()"))
    assert (copied["picture"], copied["top"], copied["model"]) == (HOSTILE, told["top"], "shapes")
    assert page.run("window.caught") is None
    assert [
        error for error in page.errors if "status of 422" not in error
    ] == []  # which the browser notes itself


def test_the_keyboard_alone_reaches_and_uses_it(page: Browser, fresh: Path) -> None:
    _choose(page, *pictures(fresh)[:2])
    _answered(page, 2)
    seen = []
    for _ in range(12):
        page.press("Tab", 9)
        seen.append(page.run("document.activeElement.id || document.activeElement.innerText"))
        assert page.run("getComputedStyle(document.activeElement).outlineStyle") != "none"
        if page.run("document.activeElement.innerText") == "Remove":
            break
    wanted = ["Skip to the pictures", "picker", "choose", "open-camera", "csv", "clear", "Remove"]
    assert seen == wanted
    page.press("Enter", 13, "\r")
    assert page.run("document.querySelectorAll('.card').length") == 1
    assert page.run("document.activeElement.innerText") == "Remove"
    page.press("Enter", 13, "\r")
    assert page.run("document.activeElement.id") == "choose"
    assert page.run("document.getElementById('tools').hidden")


def test_the_camera(page: Browser) -> None:
    page.run("document.getElementById('open-camera').focus()")
    page.press("Enter", 13, "\r")
    _until(page, "!document.getElementById('shutter').disabled")
    assert page.run("document.activeElement.id") == "shutter"
    page.run("window.stream = document.getElementById('live').srcObject")
    page.press("Enter", 13, "\r")
    (card,) = _answered(page, 1)
    assert "camera 1.jpg" in card
    assert "camera 1.jpg" in page.run("document.getElementById('camera-told').innerText")
    page.press("Escape", 27)
    assert not page.run("document.getElementById('camera').open")
    _until(page, "window.stream.getTracks().every((t) => t.readyState === 'ended')")
    assert page.run("document.activeElement.id") == "open-camera"
    assert page.errors == []


def test_it_fits_a_phone(browser: Browser, server: Server, fresh: Path, tmp_path: Path) -> None:
    browser.screen(360, 700, phone=True)
    _open(browser, server)
    assert browser.run("document.documentElement.scrollWidth") <= 360
    data = pictures(fresh)[0].read_bytes()
    wide = tmp_path / "wide.png"
    shape("circle", 1).resize((2000, 200)).save(wide)
    _give(browser, "drop", ("w" * 200 + ".png", data), ("n.png", _noise(tmp_path / "n.png")), ("x", b"?"))
    _give(browser, "drop", ("wide.png", wide.read_bytes()))
    _answered(browser, 4)
    assert browser.run("document.documentElement.scrollWidth") <= 360
    # WCAG 2.2, 2.5.8 asks for 24 px; a thumb is glad of more.
    sides = browser.run(
        "[...document.querySelectorAll('button')].map((b) => b.offsetHeight).filter((h) => h)"
    )
    assert min(sides) >= 36


def test_names_for_those_who_do_not_see_it(page: Browser, fresh: Path) -> None:
    _choose(page, pictures(fresh)[0])
    _answered(page, 1)
    assert page.run("[...document.images].every((i) => i.alt)")
    assert page.run("[...document.querySelectorAll('button')].every((b) => b.innerText || b.closest('[hidden], "
                    "dialog'))")  # fmt: skip
    assert page.run("document.querySelector('.card .top button').ariaLabel").startswith("Remove ")
    levels = page.run("[...document.querySelectorAll('main h2, main h3, h1')].map((h) => +h.tagName[1])")
    assert levels == [1, 2, 3]
    assert page.run("document.querySelectorAll('header, main, footer').length") == 3


def test_contrast_is_enough_in_both(page: Browser, fresh: Path, tmp_path: Path) -> None:
    """WCAG 2.2 AA, of every text as it is painted: 4.5 to 1."""
    _give(page, "drop", ("n.png", _noise(tmp_path / "n.png")), ("x", b"?"))
    _choose(page, pictures(fresh)[0])
    _answered(page, 3)
    grounds = []
    for dark in (False, True):
        page.screen(1100, 900, dark=dark)
        pairs = page.run(
            """[...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() &&
              [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())).map((e) => {
                let under = e;
                const ground = (x) => getComputedStyle(x).backgroundColor;
                while (under && ground(under) === 'rgba(0, 0, 0, 0)') under = under.parentElement;
                return [getComputedStyle(e).color, ground(under || document.body), e.textContent.slice(0, 30)];
              })"""
        )
        assert len(pairs) > 20
        for ink, ground, text in pairs:
            assert _contrast(ink, ground) >= 4.5, (dark, text, ink, ground)
        grounds.append(page.run("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]


def test_the_token(browser: Browser, run: Run, fresh: Path) -> None:
    browser.screen(1100, 900)
    with serving(f"shapes={run.path}", token="open-7") as server:
        browser.open(f"{server.url}/")
        for token, shown in (
            ("wrong", "This token is not valid."),
            ("wröng", "This token is not valid."),
            ("open-7", ""),
        ):
            _until(browser, "document.activeElement.id === 'token' && document.activeElement.value === ''")
            browser._send("Input.insertText", text=token)
            browser.press("Enter", 13, "\r")
            if shown:
                _until(browser, "!document.getElementById('refused').hidden")
                assert shown in browser.run("document.getElementById('asking').innerText")
        _until(browser, "document.title === 'shapes · Topwork'")
        assert browser.run("document.getElementById('asking').hidden")
        _give(browser, "drop", ("a.png", pictures(fresh)[0].read_bytes()))
        _answered(browser, 1)
        assert browser.run("sessionStorage.getItem('topwork-token')") == "open-7"
        assert browser.run("localStorage.length") == 0


def test_a_busy_server_is_asked_again(browser: Browser, run: Run, fresh: Path) -> None:
    with serving("--queue", 1, f"shapes={run.path}") as server:
        _open(browser, server)
        browser.run(
            """window.seen = new Set(); new MutationObserver(() => {
              for (const w of document.querySelectorAll('.wait')) window.seen.add(w.textContent); })
              .observe(document.body, {childList: true, subtree: true})"""
        )
        files = [(path.parent.name + path.name, path.read_bytes()) for path in pictures(fresh)]
        _give(browser, "drop", *files)
        cards = _answered(browser, len(files))
        assert not any("No answer" in card for card in cards)
        assert any("The server is busy; trying again in" in text for text in browser.run("[...window.seen]"))


def test_a_server_that_is_gone_and_comes_back(browser: Browser, run: Run, fresh: Path) -> None:
    one, other, *_ = (path.read_bytes() for path in pictures(fresh))
    with serving(f"shapes={run.path}") as server:
        _open(browser, server)
        _give(browser, "drop", ("a.png", one))
        _answered(browser, 1)
        port = server.address[1]
    _give(browser, "drop", ("b.png", other))
    _until(browser, "!document.getElementById('notice').hidden")
    assert "Start it again" in browser.run("document.getElementById('notice').innerText")
    assert browser.run("document.getElementById('progress').innerText") == "1 of 2 pictures done, halted"
    with serving("--port", port, f"shapes={run.path}"):
        _answered(browser, 2)
        assert browser.run("document.getElementById('notice').hidden")


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(value) / 255 for value in re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour).groups()]  # type: ignore[union-attr]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
