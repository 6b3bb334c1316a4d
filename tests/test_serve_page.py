"""The page of `topwork serve` in a real browser: pictures in, answers out."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import Browser, start_browser
from serving import Server, pictures, serving
from topwork.training import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(run: Run) -> Iterator[Server]:
    with serving(f"shapes={run.path}") as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = start_browser(tmp_path_factory.mktemp("browser"))
    yield found
    found.close()


def _drop(browser: Browser, *files: tuple[str, bytes]) -> None:
    """Drop files on the page, as a hand would."""
    given = ", ".join(f'["{name}", "{base64.b64encode(data).decode()}"]' for name, data in files)
    browser.run(
        f"""(() => {{ const all = new DataTransfer();
        for (const [name, text] of [{given}])
          all.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
        const how = {{ dataTransfer: all, bubbles: true, cancelable: true }};
        document.dispatchEvent(new DragEvent("drop", how)); }})()"""
    )


def _until(browser: Browser, code: str) -> None:
    end = time.monotonic() + 20
    while not browser.run(code):
        assert time.monotonic() < end, code
        time.sleep(0.05)


ANSWERED = (
    "[...document.querySelectorAll('.card h2')].every((h) => h.textContent !== '…') && "
    "document.querySelectorAll('.card').length"
)


def test_pictures_are_answered(browser: Browser, server: Server, fresh: Path) -> None:
    browser.screen(1000, 900)
    browser.open(f"{server.url}/")
    _until(browser, "document.querySelector('#about').textContent.startsWith('Knows circle')")
    path = pictures(fresh)[0]
    _drop(browser, ("=1+1.png", path.read_bytes()), ("bad.txt", b"no picture"))
    _until(browser, f"({ANSWERED}) === 2")
    with server.client() as client:
        (told,) = client.post("/v1/predict", content=path.read_bytes()).json()["predictions"]
    shown = browser.run("[...document.querySelectorAll('.card')].map((c) => [c.querySelector('h2').textContent, "
                        "c.querySelector('.reason').textContent, c.querySelectorAll('dt').length])")  # fmt: skip
    assert shown[0][0] == "No answer"
    assert "not a JPEG, PNG" in shown[0][1]
    assert shown[1][0] == ("None of these" if told["rejected"] else told["class"])
    assert shown[1][2] == 3
    assert browser.run("document.querySelectorAll('.near:not([hidden]) img').length") == 4
    assert browser.run("document.querySelector('#live').textContent") != ""
    browser.run("document.querySelectorAll('.remove').forEach((b) => b.click())")
    assert browser.run("document.querySelectorAll('.card').length") == 0
    assert browser.run("document.querySelector('#tools').hidden") is True


def test_noise_is_none_of_these(browser: Browser, server: Server, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    data = (tmp_path / "noise.png").read_bytes()
    with server.client() as client:
        (told,) = client.post("/v1/predict", content=data).json()["predictions"]
    browser.open(f"{server.url}/")
    _until(browser, "document.querySelector('#about').textContent.startsWith('Knows')")
    _drop(browser, ("noise.png", data))
    _until(browser, f"({ANSWERED}) === 1")
    assert told["rejected"]
    assert browser.run("document.querySelector('.card h2').textContent") == "None of these"
    assert "the limit" in browser.run("document.querySelector('.card .reason').textContent")


def test_a_phone_the_dark_and_the_keyboard(browser: Browser, server: Server, fresh: Path) -> None:
    browser.screen(360, 740, dark=True, phone=True)
    browser.open(f"{server.url}/")
    _until(browser, "document.querySelector('#about').textContent.startsWith('Knows')")
    _drop(
        browser,
        (
            "a_very_long_name_of_a_picture_that_somebody_has_taken_on_a_phone.png",
            pictures(fresh)[0].read_bytes(),
        ),
    )
    _until(browser, f"({ANSWERED}) === 1")
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 22)"
    reached = []
    for _ in range(8):
        browser.press("Tab", 9)
        reached.append(browser.run("document.activeElement.id || document.activeElement.className"))
    assert {"files", "camera", "save", "clear"} <= set(reached)


def test_the_token(browser: Browser, run: Run, fresh: Path) -> None:
    browser.screen(1000, 900)
    with serving(f"shapes={run.path}", token="open") as server:
        browser.open(f"{server.url}/")
        _until(browser, "!document.querySelector('#unlock').hidden")
        browser.run(
            "document.querySelector('#token').value = 'open'; document.querySelector('#unlock button').click()"
        )
        _until(browser, "document.querySelector('#about').textContent.startsWith('Knows')")
        _drop(browser, ("a.png", pictures(fresh)[0].read_bytes()))
        _until(browser, f"({ANSWERED}) === 1")
        assert browser.run("document.querySelector('.card').classList.contains('failed')") is False
