from __future__ import annotations

import io
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from photos import SIZE_PX, Told, write_shapes
from topwork.backbones.backbone import Backbone, load_backbone
from topwork.cli.main import main
from topwork.graphs.compile import computes_in_bf16
from topwork.jobs.train import Run, train
from topwork.recipe import BackboneRecipe, Recipe


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test touches the user's cache. Features are shared between tests, which they must not notice."""
    root = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPWORK_CACHE", str(root))
        yield root


HAS_BF16 = computes_in_bf16()  # of the processor itself: below, tests pretend


@pytest.fixture
def bf16_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the tests of bf16 itself; what they say of numbers holds where the processor has it."""
    if not HAS_BF16:
        pytest.skip("this processor has no bf16")
    monkeypatch.setattr("topwork.graphs.compile.computes_in_bf16", lambda: True)


@pytest.fixture(scope="session", autouse=True)
def plain_processor() -> Iterator[None]:
    """In this process "auto" takes f32 on every processor. Tests of what it takes pretend otherwise themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("topwork.graphs.compile.computes_in_bf16", lambda: False)
        yield


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, for this test alone."""
    root = tmp_path / "own-cache"
    monkeypatch.setenv("TOPWORK_CACHE", str(root))
    return root


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """The default network at its smallest input, in float32 on every processor."""
    return load_backbone("efficientnet-lite0", size_px=SIZE_PX, precision="f32")


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe(backbone=BackboneRecipe(size_px=SIZE_PX, precision="f32"))


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, 20 pictures each. Read only."""
    return write_shapes(tmp_path_factory.mktemp("photos") / "shapes", 20)


@pytest.fixture(scope="session")
def run(shapes: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A training on `shapes` with the defaults. Its folder is read only: copy it to change it."""
    return train(shapes, tmp_path_factory.mktemp("runs") / "shapes", recipe=recipe)


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of the same shapes that `run` has not seen. Read only."""
    return write_shapes(tmp_path_factory.mktemp("fresh") / "shapes", 3, first=700)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """The command line, called in this process as the program would be."""
    interrupt = signal.getsignal(signal.SIGINT)

    def call(*arguments: object, stdin: str = "") -> Told:
        monkeypatch.setattr(sys, "argv", ["topwork", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            signal.signal(signal.SIGINT, interrupt)
        return code, *capsys.readouterr()

    return call


INSTALL = {  # what a reason for skipping names → what to do
    "jax": "pip install jax",
    "torch": "pip install torch",
    "keras_hub": "an environment of its own with .[kerashub]",
    "no bf16": "a processor with AVX-512 bf16",
    "root": "run as a user that isn't root",
    "chromium": "install chromium",
}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line at the end: what was skipped, why, and what would let it run."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "?"
        for report in terminalreporter.stats.get("skipped", [])
    )
    told = []
    for reason, count in reasons.most_common():
        mend = next((text for word, text in INSTALL.items() if word in reason.lower()), None)
        told.append(f"{count} ({reason}{f': {mend}' if mend else ''})")
    terminalreporter.write_line(f"skipped: {'; '.join(told) or 'nothing'}")
