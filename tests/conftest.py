from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from photos import SIZE_PX, write_shapes
from topwork.backbone import Backbone, load_backbone
from topwork.recipe import BackboneRecipe, Recipe
from topwork.training import Run, train


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test touches the user's cache. Features are shared between tests, which they must not notice."""
    root = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPWORK_CACHE", str(root))
        yield root


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
