"""Handles: every form parsed and back; what is wrong is said."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from topwork.backbones.hub import catalog, handle
from topwork.backbones.hub.handle import Handle, parse
from topwork.errors import InputError


def test_the_examples_run() -> None:
    assert doctest.testmod(handle).failed == 0
    assert doctest.testmod(catalog).failed == 0


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("efficientnet-lite2", "builtin", "efficientnet-lite2"),
        ("https://tfhub.dev/google/imagenet/inception_v3/feature_vector/5", "url", None),
        ("https://example.org/nets/a.onnx?download=1", "url", None),
        ("https://example.org:8443/a.tar.gz", "url", None),
        ("kaggle:google/mobilenet-v2/tensorFlow2/f-v", "kaggle", "google/mobilenet-v2/tensorFlow2/f-v"),
        ("kaggle:g/m/tfLite/v/3", "kaggle", "g/m/tfLite/v/3"),
        ("keras:InceptionV3", "keras", "InceptionV3"),
        ("kerashub:efficientnet_b0_ra_imagenet", "kerashub", "efficientnet_b0_ra_imagenet"),
        ("hf:timm/resnet18.a1_in1k", "hf", "timm/resnet18.a1_in1k"),
        ("hf:owner/repo/onnx/model.onnx", "hf", "owner/repo/onnx/model.onnx"),
        ("hf:owner/repo@v1.0/model.onnx", "hf", "owner/repo@v1.0/model.onnx"),
    ],
)  # fmt: skip
def test_every_form_and_back(text: str, kind: str, name: str | None) -> None:
    found = parse(text)
    assert found == Handle(kind, text if name is None else name)
    assert str(found) == text
    assert parse(str(found)) == found


@pytest.mark.parametrize(
    "address",
    [
        "https://www.kaggle.com/models/google/mobilenet-v2/frameworks/TensorFlow2/variations/a-b/versions/2",
        "https://www.kaggle.com/models/google/mobilenet-v2/TensorFlow2/a-b/2",
        "https://kaggle.com/models/google/mobilenet-v2/TensorFlow2/a-b/2/",
    ],
)
def test_pages_of_kaggle_are_kaggles_handles(address: str) -> None:
    assert str(parse(address)) == "kaggle:google/mobilenet-v2/TensorFlow2/a-b/2"


def test_a_page_without_a_version() -> None:
    found = parse("https://www.kaggle.com/models/g/m/frameworks/TfLite/variations/v")
    assert found.name == "g/m/TfLite/v"


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").touch()
    for name in ("a.onnx", "b.TFLITE", "c.xml", "d.keras"):
        (tmp_path / name).touch()
        assert parse(name) == Handle("path", name)
    assert parse("model") == parse(" model ") == Handle("path", "model")
    assert parse(str(tmp_path / "model")).kind == "path"


def test_what_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x.txt").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "tfhub_module.pb").touch()
    (tmp_path / "net.pt").touch()
    folder = "expected a SavedModel folder, or one with model.safetensors or onnx/model.onnx; it holds none"
    files = "a file that ends in .onnx, .tflite, .xml, .keras or .safetensors"
    for text, message in (
        ("efficientnet-lite9", "unknown backbone 'efficientnet-lite9'; did you mean 'efficientnet-lite"),
        ("resnet", "unknown backbone 'resnet'. Known: efficientnet-lite0; "),
        ("kers:ResNet50", "unknown backbone 'kers:ResNet50'"),
        ("http://tfhub.dev/a/b/1", "expected an https:// address; got 'http://tfhub.dev/a/b/1'"),
        ("ftp://x/y", "expected an https:// address; got 'ftp://x/y'"),
        ("https:///x", "expected an https:// address; got 'https:///x'"),
        ("https://www.kaggle.com/models/google/mobilenet-v2", "expected https://www.kaggle.com/models/OWNER/MODEL/FR"),
        ("https://www.kaggle.com/datasets/a/b/c/d", "expected https://www.kaggle.com/models/OWNER/MODEL/FR"),
        ("kaggle:google/mobilenet", "expected kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]; got 'kaggle:go"),
        ("keras:", "expected keras:NAME, such as keras:InceptionV3; got 'keras:'"),
        ("hf:repo", "expected hf:OWNER/REPO[@REVISION][/FILE]; got 'hf:repo'"),
        ("hf:a/b/../c", "expected hf:OWNER/REPO[@REVISION][/FILE]; got 'hf:a/b/../c'"),
        ("kerashub:", "expected kerashub:PRESET; got 'kerashub:'"),
        ("gone.onnx", f"no such file or folder: gone.onnx; expected a SavedModel folder or {files}"),
        ("no/such", "no such file or folder: no/such"),
        ("empty", f"empty: {folder} (it is empty)"),
        ("full", f"full: {folder}: unpack it, or name one of"),
        ("old", "old: a module of TF1's format without its saved_model.pb; fetch it whole"),
        ("net.pt", f"net.pt: expected {files}, or a SavedModel folder"),
    ):  # fmt: skip
        with pytest.raises(InputError) as told:
            parse(text)
        assert str(told.value).startswith(message), text


# --- the catalog ------------------------------------------------------------------------------------------


def test_the_catalog_knows_the_79_modules() -> None:
    known = catalog.known_modules()
    assert len(known) == 79
    assert len({k.name for k in known}) == 79
    assert all(k.width > 0 and 90 < k.size_px < 900 for k in known)
    assert sum(k.format == "hub" for k in known) == 1
    for k in known:
        assert parse(k.handle).kind == "url"
        assert catalog.look_up(k.handle) == k


def test_facts_by_address() -> None:
    found = catalog.look_up(
        "https://tfhub.dev/google/imagenet/mobilenet_v2_140_224/feature_vector/5?tf-hub-format=compressed"
    )
    assert found is not None
    assert (found.width, found.size_px) == (1792, 224)  # 1.4 · 1280
    assert catalog.look_up("https://tfhub.dev/google/imagenet/mobilenet_v2_140_224/feature_vector") == found
    assert catalog.look_up("https://tfhub.dev/google/imagenet/no_such/feature_vector/5") is None
    assert catalog.look_up("https://example.org/google/imagenet/inception_v3/feature_vector/5") is None


def test_looking_by_words() -> None:
    assert {k.name.split("/")[2] for k in catalog.search("inception v3")} == {"inception_v3"}
    assert any("mobilenet_v2_100_224" in k.name for k in catalog.search("moblenet_v2_100_224"))
    assert len(catalog.search("")) == 79
