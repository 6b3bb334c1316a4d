"""`topwork modules`: list, info; what is wrong is said in one line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from photos import Topwork
from topwork.cli.console import Console


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A network of one convolution, .xml, that shows no range of its own."""
    entry = op.parameter(ov.PartialShape([1, 3, 32, 32]), ov.Type.f32, name="x")
    entry.output(0).set_names({"x"})
    kernel = np.random.default_rng(0).normal(size=(6, 3, 3, 3)).astype(np.float32)
    found = op.relu(op.convolution(entry, op.constant(kernel), [2, 2], [1, 1], [1, 1], [1, 1]))
    pooled = op.reduce_mean(found, op.constant(np.array([2, 3])), False)
    pooled.output(0).set_names({"features"})
    ov.save_model(ov.Model([pooled.output(0)], [entry]), tmp_path / "net.xml", compress_to_fp16=False)
    return tmp_path / "net.xml"


def test_info_tells_what_was_assumed(call: Topwork, net: Path) -> None:
    code, out, err = call("modules", "info", net)
    assert (code, err) == (0, "")
    assert "input     32 x 32 px, its stated size" in out
    assert "pixels    imagenet (assumed)" in out
    assert "features  6 of the last layer, 6 of 1 stages" in out
    assert f"source    {net}" in out
    assert "note      pixels imagenet are assumed, as is usual for its format: --pixels chooses" in out
    code, out, _ = call("modules", "info", net, "--pixels", "0..1", "--json")
    told = json.loads(out)
    assert told["pixels"] == {"range": "0..1", "how": "chosen"}
    assert (told["width"], told["stages"], told["size_px"]) == (6, {"stage1": 6}, 32)


def test_the_catalog(call: Topwork) -> None:
    code, out, _ = call("modules", "list", "--known", "inception_v3")
    assert code == 0
    assert (
        out == "  2048 features   299 px+  https://tfhub.dev/google/imagenet/inception_v3/feature_vector/5\n"
    )
    assert len(json.loads(call("modules", "list", "--known", "--json")[1])["modules"]) == 79
    assert "no published module has these words in its name" in call("modules", "list", "qqqqqq")[1]


@pytest.mark.usefixtures("cache")
def test_nothing_fetched_yet(call: Topwork) -> None:
    assert call("modules", "list")[1].startswith("no modules downloaded yet")
    assert json.loads(call("modules", "list", "--json")[1]) == {"modules": []}


@pytest.mark.usefixtures("cache")
def test_what_is_wrong_is_one_line(call: Topwork, net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOPWORK_OFFLINE", raising=False)
    monkeypatch.setenv("TFHUB_CACHE_DIR", "")
    for arguments, expected in (
        (("modules", "info", "efficientnet-lite00"), "unknown backbone 'efficientnet-lite00'"),
        (("modules", "pull", "efficientnet-lite0"), "nothing to fetch: it is on this machine already"),
        (("modules", "remove", "keras:ResNet50"), "keras:ResNet50: no such module is kept. Known: none"),
        (("modules", "info", net, "--size", "4000"), "the input size must be 32 to 1024 px; got 4000"),
        (("modules", "info", "http://x.org/a.onnx"), "expected an https:// address"),
        (("--offline", "modules", "pull", "https://127.0.0.1/a.onnx"), "127.0.0.1/a.onnx"),
    ):
        code, out, err = call(*arguments)
        assert code == 2 or "--offline" in arguments, arguments
        assert out == ""
        assert expected in err
        assert err.count("\n") == 1
    monkeypatch.delenv("TOPWORK_OFFLINE", raising=False)


def test_training_on_it(call: Topwork, net: Path, shapes: Path, tmp_path: Path) -> None:
    options = ("--backbone", net, "--pixels", "0..1", "--precision", "f32")
    code, out, _ = call("train", shapes, "--out", tmp_path / "run", *options, "--json")
    assert code == 0
    assert json.loads(out)["test"]["accuracy"] > 0.5  # one random convolution, three shapes
    described = json.loads((tmp_path / "run" / "classifier.json").read_text())
    assert described["backbone"]["pixels"] == "0..1"
    net.unlink()  # the run holds all that it needs
    code, out, _ = call("predict", tmp_path / "run", shapes / "circle", "--json")
    assert code == 0
    assert len(json.loads(out)) == 20


def test_a_download_of_unknown_length_makes_room_for_the_next_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    console = Console()
    tell = console.download("a-module")
    tell(1000, None)
    tell(2_000_000, None)
    with console.bar("features", 3) as advance:  # a second live bar beside the first would be an error
        advance(3)
    tell = console.download("another")
    tell(500_000, 1_000_000)
    tell(1_000_000, 1_000_000)
    shown = terminal.getvalue()
    assert "downloading a-module" in shown
    assert "2.0" in shown
    assert "1.0/1.0 MB" in shown
    assert "3/3" in shown
