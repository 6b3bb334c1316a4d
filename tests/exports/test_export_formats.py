"""`topwork export`: the frame that all formats share, OpenVINO's own format, the resizer, the proof."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openvino import opset13 as op
from PIL import Image

from exact import in_f32
from photos import SHAPES, Topwork, one_line
from topwork.data.sources import load
from topwork.errors import InputError, MissingExtra, TopworkError
from topwork.exports import openvino_file, parity
from topwork.exports.contents import Contents
from topwork.exports.formats import FORMATS, Format, code_of
from topwork.exports.resize import resizer, with_resizer
from topwork.images.decode import _source_box, decode
from topwork.images.framing import Framing
from topwork.jobs.export import _mend, contents_of, export, whole_graph
from topwork.jobs.train import Run
from topwork.recipe import ExportFormat, ExportPrecision

FACTS = Contents(("a",), (56, 48), "any", Framing("stretch"), 1.0, None, None, {}, "x", "y", "f32", {})


def _picture(height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(height).integers(
        0, 256, (max(2, height // 6), max(2, width // 6), 3), np.uint8
    )
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))


def _echo(height: int = 56, width: int = 48) -> ov.Model:
    image = op.parameter([1, height, width, 3], ov.Type.u8, name="image")
    image.output(0).set_names({"image"})
    values = op.convert(image, "f32")
    values.output(0).set_names({"probabilities"})
    return ov.Model([values], [image], "echo")


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_the_resizer_is_pillows(fit: str) -> None:
    facts = dataclasses.replace(FACTS, fit=Framing(fit))  # type: ignore[arg-type]
    compiled = in_f32(with_resizer(_echo(), facts))
    of_tensorflow = resizer(facts)
    height, width = facts.size_px
    for size in ((56, 48), (48, 56), (30, 200), (300, 301), (7, 5), (1, 1), (411, 97)):
        picture = _picture(*size)
        box = _source_box(size[::-1], (width, height), fit)  # type: ignore[arg-type]
        expected = np.asarray(
            Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC, box=box), np.int64
        )
        for found in (compiled(picture[None])[0][0], of_tensorflow(picture[None]).numpy()[0]):
            off = np.abs(found.astype(np.int64) - expected)
            assert off.max() <= 2, size
            assert off.mean() < 0.2, size


STATED = (
    Framing("stretch", "bilinear"),
    Framing("stretch", "bicubic", 61),
    Framing("crop", "bilinear", 57),
    Framing("crop", "bicubic", 61, margin="even"),
    Framing("crop", "bicubic", share=0.9, margin="even"),
    Framing("crop", "bilinear", share=0.83),
)


@pytest.mark.parametrize("framing", STATED, ids=str)
def test_the_resizer_follows_stated_framings(framing: Framing) -> None:
    facts = dataclasses.replace(FACTS, size_px=(48, 48), fit=framing)
    compiled = in_f32(with_resizer(_echo(48, 48), facts))
    of_tensorflow = resizer(facts)
    for size in ((48, 48), (30, 200), (301, 300), (7, 5), (1, 1), (411, 97), (61, 60), (600, 799)):
        picture = _picture(*size)
        expected = decode(_png(picture), 48, fit=framing).astype(np.int64)
        for found in (compiled(picture[None])[0][0], of_tensorflow(picture[None]).numpy()[0]):
            off = np.abs(found.astype(np.int64) - expected)
            assert off.max() <= 2, size
            assert off.mean() < 0.2, size


@settings(max_examples=60, deadline=None)  # the first picture compiles a graph
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from(STATED))
def test_the_resizer_follows_stated_framings_of_any_picture(
    height: int, width: int, framing: Framing
) -> None:
    # Without black and white, where it matters that Pillow 13 resizes the columns of some pictures first: rounding in
    # between cuts off what a bicubic filter makes blacker than black.
    picture = _picture(height, width) // 2 + 64
    found = _followed(framing)(picture[None])[0][0]
    expected = decode(_png(picture), 48, fit=framing).astype(np.int64)
    assert np.abs(found.astype(np.int64) - expected).max() <= 2


@cache
def _followed(framing: Framing) -> Any:
    return in_f32(with_resizer(_echo(48, 48), dataclasses.replace(FACTS, size_px=(48, 48), fit=framing)))


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def test_a_filter_that_no_export_has_is_said() -> None:
    facts = dataclasses.replace(FACTS, fit=Framing("stretch", "lanczos"))
    for make in (lambda: with_resizer(_echo(), facts), lambda: resizer(facts)):
        with pytest.raises(InputError) as told:
            make()
        assert str(told.value) == (
            "an export for pictures of any size resizes them by a bicubic or bilinear filter; this network takes "
            "lanczos: export it for pictures of its own size (omit --input any)"
        )


@pytest.mark.parametrize("fit", [Framing("crop"), Framing("crop", "bicubic", 256)])
def test_contents_survive_json(fit: Framing) -> None:
    facts = dataclasses.replace(FACTS, fit=fit)
    assert Contents.from_json(facts.to_json()) == facts
    assert json.loads(facts.to_json())["fit"] == fit.to_plain()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "fp16", "bf16", "int8"])
def test_openvino_says_what_the_run_says(run: Run, tmp_path: Path, precision: str) -> None:
    exported = export(run.path, tmp_path / "out", format="openvino", precision=precision)  # type: ignore[arg-type]
    assert exported.parity is not None
    assert exported.parity.holds
    assert exported.parity.images > 20
    told = json.loads((tmp_path / "out.parity.json").read_text(encoding="utf-8"))
    assert (told["holds"], told["precision"], told["part"]) == (True, precision, "train")
    sizes = {p.name: p.stat().st_size for p in exported.path.iterdir()}
    whole = (run.path / "model.bin").stat().st_size
    share = {"f32": (0.9, 1.01), "fp16": (0.45, 0.55), "bf16": (0.45, 0.55), "int8": (0.2, 0.4)}[precision]
    assert share[0] < sizes["model.bin"] / whole < share[1]
    # As a receiver has it, who knows of OpenVINO alone.
    model = ov.Core().read_model(exported.path / "model.xml")
    assert json.loads(model.get_rt_info(["topwork"]).astype(str))["classes"] == list(run.classifier.classes)
    assert openvino_file.read_contents(exported.path) == contents_of(
        run.classifier, precision=precision, input="sized"
    )
    answers = in_f32(model)(np.zeros((1, 32, 32, 3), np.uint8))
    assert answers["probabilities"].sum() == pytest.approx(1, abs=1e-5)
    assert answers["novelty"].shape == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_pictures_of_any_size(run: Run, fresh: Path, tmp_path: Path, precision: str) -> None:
    exported = export(
        run.path,
        tmp_path / "out",
        format="openvino",
        input="any",
        precision=precision,  # type: ignore[arg-type]
    )
    answer = openvino_file.load(exported.path)
    agreeing = []
    for path in sorted(fresh.rglob("*.png")):
        picture = decode(path.read_bytes(), (48, 48))
        (own,) = run.classifier.predict(str(path))
        found = answer(picture[None])["probabilities"][0]
        assert own.probabilities is not None
        agreeing.append(np.abs(found - own.probabilities).max() < (0.02 if precision == "f32" else 1))
    assert all(agreeing)


@pytest.mark.slow
def test_a_file_that_says_something_else_is_told_and_stays(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parity.GAP, "int8", 0.0)
    with pytest.raises(
        TopworkError,
        match=r"differs from .* on \d+ pictures.*\"none of these\" in 100.0%.*don't ship it"
        r".*out.parity.json; try another --precision",
    ):
        export(run.path, tmp_path / "out", format="openvino", precision="int8")
    assert (tmp_path / "out" / "model.xml").is_file()
    assert json.loads((tmp_path / "out.parity.json").read_text(encoding="utf-8"))["holds"] is False


@pytest.mark.parametrize(("novelty", "holds"), [(0.5, True), (0.97, True), (1.5, False), (np.nan, False)])
def test_a_file_that_rejects_other_pictures_is_another_classifier(
    shapes: Path, novelty: float, holds: bool
) -> None:
    facts = dataclasses.replace(
        FACTS, classes=SHAPES, size_px=(32, 32), input="sized", reject_threshold=9.0, precision="int8"
    )

    def says(far: float) -> parity.Run:
        return lambda image: {"probabilities": np.float32([[0.8, 0.1, 0.1]]), "novelty": np.float32([[far]])}

    examples = [dataclasses.replace(e, split="train") for e in load(shapes)][::9]
    found = parity.compare(says(0.6), says(novelty), examples, facts, format="x", runtime="y", part="train")
    assert (found.images, found.gap, found.agreement) == (7, 0, 1)
    assert found.rejection == float(holds)
    assert found.holds is holds


def test_the_command(call: Topwork, run: Run, tmp_path: Path) -> None:
    code, out, _ = call("export", run.path, "--format", "openvino", "--out", tmp_path / "a" / "model")
    assert code == 0
    assert "the same class in all of them" in out
    code, out, _ = call("export", run.path, "--format", "openvino", "--out", tmp_path / "b", "--json")
    told = json.loads(out)
    assert (code, told["parity"]["holds"], told["contents"]["input"]) == (0, True, "sized")
    one_line(call("export", run.path, "--format", "openvino", "--out", tmp_path / "b"), "already exists")


def test_what_is_wrong_is_said(call: Topwork, run: Run, tmp_path: Path) -> None:
    def tell(*options: object) -> tuple[int, str, str]:
        return call("export", run.path, "--out", tmp_path / "x", *options)

    one_line(
        tell("--format", "savedmodel", "--precision", "int8"),
        "savedmodel supports f32; got the precision 'int8' (supported by openvino, onnx)",
    )
    one_line(tell("--format", "onnx", "--precision", "bf16"), "(supported by openvino)")
    one_line(
        tell("--format", "keras", "--input", "any"),
        "takes pictures of a fixed size; for pictures of any size use openvino, onnx, savedmodel, litert",
    )
    one_line(tell("--format", "openvino", "--data", tmp_path), "none of its training photos was found")
    one_line(tell("--format", "openvino", "--data", tmp_path / "no"), "--data FOLDER")
    one_line(
        call("export", run.path, "--out", tmp_path / "x.txt", "--format", "litert"),
        "ends in .tflite; rename --out",
    )
    one_line(
        call("export", run.path, "--out", tmp_path / "x.txt", "--format", "onnx"),
        "ends in .onnx; rename --out",
    )
    assert list(tmp_path.iterdir()) == []
    moved = shutil.copytree(run.path, tmp_path / "moved")
    report = json.loads((moved / "report.json").read_text(encoding="utf-8"))
    (moved / "report.json").write_text(json.dumps(report | {"source": None}), encoding="utf-8")
    with pytest.raises(
        InputError, match="doesn't record where its photos are; give their folder: --data FOLDER"
    ):
        export(moved, tmp_path / "y", format="openvino")


@pytest.mark.parametrize("format", [format for format in FORMATS if format.needs], ids=lambda f: f.name)
def test_a_package_that_is_missing_is_named(format: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == format.needs[-1] else there(n))
    with pytest.raises(MissingExtra, match=rf"the format {format.name} .*topwork\[export\]"):
        code_of(format)


def test_every_format_is_offered() -> None:
    assert {format.name for format in FORMATS} | {"tfhub"} == set(get_args(ExportFormat))
    assert {p for format in FORMATS for p in format.precisions} == set(get_args(ExportPrecision))


def test_the_heads_nodes_are_named(run: Run) -> None:
    names = [node.get_friendly_name() for node in whole_graph(run.classifier).get_ordered_ops()]
    assert any(name.startswith("head/softmax") for name in names)
    assert sum(not name.startswith("head/") for name in names) > 100


@pytest.mark.parametrize(
    ("blocks", "precision", "last"),
    [(("block1", "last_rooted"), "int8", True), (("last",), "int8", False), (("block1",), "f32", False)],
)
def test_the_mend_fits_the_head(run: Run, blocks: tuple[str, ...], precision: str, last: bool) -> None:
    told = _mend(dataclasses.replace(run.classifier, blocks=blocks), precision)
    assert told.startswith("try another --precision or --format")
    assert ("--features last" in told) is last
