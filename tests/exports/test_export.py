"""`topwork export`: a run's network as a reusable SavedModel, read back with no framework."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from photos import SIZE_PX, Topwork
from topwork.backbones.backbone import LAST, Backbone, load_backbone
from topwork.backbones.engine import Engine
from topwork.errors import InputError
from topwork.jobs.export import export, publish_module
from topwork.jobs.train import Run, train
from topwork.recipe import BackboneRecipe, Recipe


def _last(backbone: Backbone, pictures: np.ndarray) -> np.ndarray:
    infer = Engine(backbone)
    return np.stack([infer(picture) for picture in pictures])[:, backbone.facts.columns((LAST,))]


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, SIZE_PX, SIZE_PX, 3)).astype(np.uint8)


@pytest.mark.slow
def test_a_runs_network_reads_back_with_equal_features(
    call: Topwork, run: Run, tmp_path: Path, pictures: np.ndarray
) -> None:
    out = tmp_path / "module"
    code, told, _ = call("export", run.path, "--format", "tfhub", "--out", out)
    assert (code, told.splitlines()[0][: len(f"wrote {out} (")]) == (
        0,
        f"wrote {out} (",
    )
    again = load_backbone(str(out), precision="f32")
    assert (again.facts.size_px, again.facts.pixels) == (SIZE_PX, "0..1")
    expected = _last(run.classifier.backbone, pictures)
    found = _last(again, pictures)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-4
    code, _, err = call("export", run.path, "--format", "tfhub", "--out", out)
    assert code == 2
    assert str(out) in err


@pytest.mark.slow
def test_a_module_published(tmp_path: Path, backbone: Backbone, pictures: np.ndarray) -> None:
    path = publish_module("efficientnet-lite0", tmp_path / "module", size_px=SIZE_PX)
    found = _last(load_backbone(str(path), precision="f32"), pictures)
    expected = _last(backbone, pictures)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-4


def test_what_is_wrong_is_said(run: Run, shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tfhub: expected the precision 'f32' .* got 'int8' and 'sized'"):
        export(run.path, tmp_path / "out", format="tfhub", precision="int8")
    with pytest.raises(InputError, match="unknown format 'tfhb'; did you mean 'tfhub'"):
        export(run.path, tmp_path / "out", format="tfhb")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected a folder that `topwork train` wrote"):
        export(tmp_path, tmp_path / "out", format="tfhub")
    flipped = Recipe(BackboneRecipe(size_px=SIZE_PX, precision="f32", views="flip"))
    other = train(shapes, tmp_path / "flipped", recipe=flipped)
    with pytest.raises(
        InputError, match=r"averages over flip views.*topwork modules publish efficientnet-lite0"
    ):
        export(other.path, tmp_path / "out", format="tfhub")
