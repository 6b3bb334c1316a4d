from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from exact import in_f32
from photos import SHAPES, SIZE_PX, shape
from topwork.classifiers.classifier import (
    CALIBRATION,
    DESCRIPTION,
    FORMAT,
    GRAPH,
    HEAD,
    WEIGHTS,
    Classifier,
    Prediction,
)
from topwork.data.dataset import Dataset, Example, FileImage
from topwork.data.sources import load
from topwork.errors import InputError
from topwork.images.decode import decode
from topwork.jobs.evaluate import score_dataset
from topwork.jobs.train import Run


@pytest.fixture(scope="module")
def predicted(run: Run, fresh: Path) -> np.ndarray:
    return rows(run.classifier.predict(str(fresh)))


@pytest.fixture
def copied(run: Run, tmp_path: Path) -> Path:
    """A run's folder that may be changed."""
    return Path(shutil.copytree(run.path, tmp_path / "run"))


def rows(predictions: object) -> np.ndarray:
    return np.stack([p.probabilities for p in predictions])


def test_loaded_it_predicts_the_same_bit_for_bit(run: Run, fresh: Path, predicted: np.ndarray) -> None:
    loaded = Classifier.load(run.path)
    assert loaded.classes == run.classifier.classes == SHAPES
    assert loaded.backbone.facts == run.classifier.backbone.facts
    assert loaded.blocks == run.classifier.blocks
    np.testing.assert_array_equal(rows(loaded.predict(str(fresh))), predicted)
    np.testing.assert_allclose(predicted.sum(axis=1), 1, atol=1e-6)
    assert predicted.dtype == np.float32


def test_saved_again_it_is_the_same(copied: Path, tmp_path: Path, fresh: Path, predicted: np.ndarray) -> None:
    (tmp_path / "again").mkdir()
    Classifier.load(copied).save(tmp_path / "again")
    assert {p.name for p in (tmp_path / "again").iterdir()} == {
        DESCRIPTION,
        GRAPH,
        WEIGHTS,
        HEAD,
        CALIBRATION,
    }
    np.testing.assert_array_equal(rows(Classifier.load(tmp_path / "again").predict(str(fresh))), predicted)


@pytest.mark.parametrize("kind", ["linear", "mlp", "centroid"])
def test_the_graph_alone_gives_the_same_probabilities(
    kind: str, run: Run, fresh: Path, shapes: Path, tmp_path: Path
) -> None:
    import dataclasses

    from topwork.jobs.train import train
    from topwork.recipe import BackboneRecipe, HeadRecipe, Recipe

    recipe = Recipe(backbone=BackboneRecipe(size_px=SIZE_PX, precision="f32"), head=HeadRecipe(kind=kind))
    run = run if kind == "linear" else train(shapes, tmp_path / "run", recipe=recipe)
    assert dataclasses.asdict(run.fitted)["blocks"]
    graph = in_f32(run.path / GRAPH)
    assert {name for out in graph.outputs for name in out.names} == {"probabilities", "features", "novelty"}
    examples = list(load(fresh))
    expected = rows(run.classifier.predict(str(fresh)))
    for example, row in zip(examples, expected, strict=True):
        pixels = decode(example.image.read(), SIZE_PX)
        answer = graph({"image": pixels[None]})
        assert answer["features"].shape == (1, run.classifier.backbone.facts.width)
        np.testing.assert_allclose(answer["probabilities"][0], row, atol=1e-4)  # the engine rounds features


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS, HEAD])
@pytest.mark.parametrize("how", ["missing", "changed", "cut"])
def test_a_damaged_run_is_refused(copied: Path, name: str, how: str) -> None:
    path = copied / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(content if how == "changed" else content[:-1])
    with pytest.raises(InputError) as told:
        Classifier.load(copied)
    assert str(told.value) == (
        f"{path}: expected the file that was saved with this classifier; it is missing or was changed since; "
        "copy the run's folder whole, or train again"
    )


@pytest.mark.parametrize("name", ["classes", "backbone", "blocks", "sha256"])
def test_a_description_that_lacks_something_is_refused(copied: Path, name: str) -> None:
    plain = json.loads((copied / DESCRIPTION).read_text(encoding="utf-8"))
    del plain[name]
    (copied / DESCRIPTION).write_text(json.dumps(plain), encoding="utf-8")
    message = rf"classifier.json: expected a classifier's description; .* \(KeyError: '{name}'\)"
    with pytest.raises(InputError, match=message):
        Classifier.load(copied)


def test_what_is_no_run_is_refused(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"expected a folder that `topwork train` wrote; it has no classifier"
    ):
        Classifier.load(tmp_path)
    with pytest.raises(InputError, match=r"none: expected a folder that `topwork train` wrote"):
        Classifier.load(tmp_path / "none")
    description = copied / DESCRIPTION
    plain = json.loads(description.read_text(encoding="utf-8"))
    description.write_text(json.dumps(plain | {"format": FORMAT + 1}), encoding="utf-8")
    with pytest.raises(InputError) as told:
        Classifier.load(copied)
    assert str(told.value) == (
        f"{description}: expected format {FORMAT}; got {FORMAT + 1}; use the Topwork version that wrote it"
    )
    for content in (b"[]", b"{}"):
        description.write_bytes(content)
        with pytest.raises(InputError, match=r"expected format 1; got None"):
            Classifier.load(copied)
    for content in (b'{"format": 1', b"\xff"):
        description.write_bytes(content)
        with pytest.raises(InputError, match=r"expected a classifier's description; it can't be read"):
            Classifier.load(copied)


def test_the_description_says_what_it_is_made_of(run: Run) -> None:
    plain = json.loads((run.path / DESCRIPTION).read_text(encoding="utf-8"))
    assert plain["format"] == FORMAT
    assert plain["classes"] == list(SHAPES)
    assert plain["backbone"]["handle"] == "efficientnet-lite0"
    assert plain["backbone"]["fingerprint"] == run.classifier.backbone.facts.fingerprint
    assert plain["temperature"] == run.classifier.head.temperature
    assert run.classifier.novelty is not None
    assert plain["reject_threshold"] == run.classifier.novelty.threshold > 0
    assert plain["reject_rate"] == 0.01
    assert set(plain["versions"]) >= {"topwork", "openvino", "numpy"}


def test_order_is_kept_and_what_cannot_be_read_has_an_error(run: Run, fresh: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    paths = [str(fresh / label / "702.png") for label in ("stripes", "circle", "square")]
    given = [paths[0], str(bad), paths[1], str(tmp_path / "gone.png"), paths[2]]
    predictions = list(run.classifier.predict(given))
    assert [p.image for p in predictions[:4]] == [paths[0], str(bad), paths[1], paths[2]]
    assert predictions[1].error
    assert predictions[1].probabilities is None
    assert predictions[1].top() == []
    assert predictions[4].image == str(tmp_path / "gone.png")  # never a picture: told at the end
    assert predictions[4].error == "no such file"
    assert [p.error for p in predictions if p.image in paths] == [None] * 3


def test_folders_globs_and_datasets_give_the_same(run: Run, fresh: Path, predicted: np.ndarray) -> None:
    predict = run.classifier.predict
    for images in (fresh, f"{fresh}/*/*.png", [str(fresh / c) for c in SHAPES], load(fresh)):
        np.testing.assert_array_equal(rows(predict(images)), predicted)


def test_prediction_reads_only_a_little_ahead(run: Run, fresh: Path) -> None:
    """An endless stream of images would do: the first prediction comes after a few have been read."""
    read = []

    class Counted:
        def read(self) -> bytes:
            read.append(1)
            return (fresh / "circle" / "700.png").read_bytes()

    images = Dataset(tuple(Example(str(i), Counted()) for i in range(500)), (), "many")
    predictions = run.classifier.predict(images)
    next(predictions)
    predictions.close()
    assert len(read) < 100


def test_top_is_likeliest_first() -> None:
    prediction = Prediction("a.jpg", ("x", "y", "z"), np.float32([0.25, 0.5, 0.25]))
    assert prediction.top() == [("y", 0.5)]
    assert prediction.top(2) == [("y", 0.5), ("x", 0.25)]  # of two as likely, the first class
    assert len(prediction.top(10)) == 3


def test_score_on_other_photos(run: Run, fresh: Path, predicted: np.ndarray) -> None:
    scored = score_dataset(run.classifier, load(fresh))
    targets = np.repeat([0, 1, 2], 3)
    assert scored.evaluation.n == 9
    assert scored.evaluation.accuracy == (predicted.argmax(axis=1) == targets).mean()
    np.testing.assert_allclose(
        scored.evaluation.log_loss, -np.log(predicted[np.arange(9), targets]).mean(), rtol=1e-5
    )
    np.testing.assert_allclose(scored.probabilities, predicted, atol=1e-6)


def test_score_needs_the_classifiers_classes(run: Run, fresh: Path, tmp_path: Path) -> None:
    (tmp_path / "more" / "triangle").mkdir(parents=True)
    shutil.copytree(fresh / "circle", tmp_path / "more" / "circle")
    shape("circle", 1).save(tmp_path / "more" / "triangle" / "1.png")
    with pytest.raises(InputError) as told:
        score_dataset(run.classifier, load(tmp_path / "more"))
    assert str(told.value) == (
        f"{tmp_path / 'more'}: expected the classifier's classes (circle, square, stripes); triangle/1.png has "
        "the class 'triangle'; rename the folder or column, or train with it"
    )
    unlabelled = Dataset((Example("a.png", FileImage("a.png")),), (), "mine")
    with pytest.raises(InputError, match=r"mine: expected the classifier's .*; a.png has no label; rename"):
        score_dataset(run.classifier, unlabelled)


def test_score_of_some_of_the_classes(run: Run, fresh: Path) -> None:
    some = load(fresh).filter(lambda e: e.label != "square")
    assert score_dataset(run.classifier, some).evaluation.n == 6
