"""Graph surgery on a tiny network: views, head, digest. NumPy is the oracle."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from exact import in_f32
from topwork.classifiers.graph import attach, without_head
from topwork.errors import InputError
from topwork.graphs.features import average_views, digest, pool
from topwork.heads.head import Head, Layer

SIDE = 12
Array = np.ndarray[Any, Any]


def _network(
    *,
    height: int = SIDE,
    width: int = SIDE,
    stride: int = 2,
    nudge: float = 0.0,
    crossed: bool = False,
    names: str = "",
) -> ov.Model:
    """Two convolutions in a row and a sum; outputs `a` (1, 4, …) and `b` (1, 3, …)."""
    rng = np.random.default_rng(3)
    image = op.parameter([1, height, width, 3], ov.Type.u8, name="image" + names)
    image.output(0).set_names({"image"})
    x = op.divide(op.convert(image, ov.Type.f32), op.constant(np.float32(255)))
    x = op.transpose(x, op.constant(np.array([0, 3, 1, 2])))
    kernel = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    kernel[1, 2, 0, 1] += np.float32(nudge)
    a = op.relu(op.convolution(x, op.constant(kernel), [stride] * 2, [1, 1], [1, 1], [1, 1]))
    kernel = rng.normal(size=(3, 4, 3, 3)).astype(np.float32)
    b = op.convolution(a, op.constant(kernel), [1, 1], [1, 1], [1, 1], [1, 1])
    minuend, subtrahend = op.relu(b), op.sigmoid(b)
    b = op.subtract(subtrahend, minuend) if crossed else op.subtract(minuend, subtrahend)
    if names:
        a.set_friendly_name("a" + names)
    a.output(0).set_names({"a"})
    b.output(0).set_names({"b"})
    return ov.Model([a.output(0), b.output(0)], [image], "tiny" + names)


def _features(**options: Any) -> ov.Model:
    return pool(_network(**options), ["a", "b"])


def _run(graph: ov.Model, picture: Array) -> dict[str, Array]:
    compiled = in_f32(graph)
    found = compiled([picture[None]])
    return {output.get_any_name(): found[output][0].copy() for output in compiled.outputs}


@pytest.fixture(scope="module")
def picture() -> Array:
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def _dihedral(picture: Array) -> list[Array]:
    turned = [np.rot90(picture, quarter) for quarter in range(4)]
    return [np.ascontiguousarray(each) for image in turned for each in (image, image[:, ::-1])]


# --- pool -------------------------------------------------------------------------------------------------


def test_pool_is_the_mean_over_pixels_in_the_order_asked(picture: Array) -> None:
    maps = _run(_network(), picture)
    wanted = np.concatenate([maps["b"].mean((1, 2)), maps["a"].mean((1, 2))])
    found = _run(pool(_network(), ["b", "a"]), picture)
    assert list(found) == ["features"]
    np.testing.assert_allclose(found["features"], wanted, atol=1e-6)


# --- views ------------------------------------------------------------------------------------------------


def test_flip_is_numpys_mean_of_the_image_and_its_mirror_image(picture: Array) -> None:
    graph = _features()
    both = [picture, np.ascontiguousarray(picture[:, ::-1])]
    wanted = np.mean([_run(graph, each)["features"] for each in both], axis=0)
    np.testing.assert_allclose(_run(average_views(graph, "flip"), picture)["features"], wanted, atol=1e-5)


def test_flip_of_an_image_that_is_not_square() -> None:
    graph = _features(height=10, width=14)
    picture = np.random.default_rng(1).integers(0, 256, (10, 14, 3), dtype=np.uint8)
    both = [picture, np.ascontiguousarray(picture[:, ::-1])]
    wanted = np.mean([_run(graph, each)["features"] for each in both], axis=0)
    np.testing.assert_allclose(_run(average_views(graph, "flip"), picture)["features"], wanted, atol=1e-5)


def test_dihedral_is_numpys_mean_of_the_eight_turned_images(picture: Array) -> None:
    graph = _features()
    alone = [_run(graph, each)["features"] for each in _dihedral(picture)]
    assert np.ptp(alone, axis=0).max() > 0.01  # they do differ
    found = _run(average_views(graph, "dihedral"), picture)["features"]
    assert found.shape == (7,)
    np.testing.assert_allclose(found, np.mean(alone, axis=0), atol=1e-5)


def test_dihedral_features_stay_when_the_image_is_turned(picture: Array) -> None:
    graph = average_views(_features(), "dihedral")
    found = [_run(graph, each)["features"] for each in _dihedral(picture)]
    np.testing.assert_allclose(found, np.broadcast_to(found[0], (8, 7)), atol=1e-5)


def test_one_view_is_the_graph_itself() -> None:
    graph = _features()
    assert average_views(graph, "one") is graph


def test_views_that_are_not_known_or_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="unknown set of views 'dihedrl'; did you mean 'dihedral'"):
        average_views(_features(), "dihedrl")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="need a square input; this backbone's is 10 x 14"):
        average_views(_features(height=10, width=14), "dihedral")


# --- head -------------------------------------------------------------------------------------------------


def _head(*widths: int, temperature: float) -> Head:
    rng = np.random.default_rng(5)
    layers = tuple(
        Layer(rng.normal(size=(a, b)).astype(np.float32), rng.normal(size=b).astype(np.float32))
        for a, b in itertools.pairwise(widths)
    )
    return Head("linear" if len(layers) == 1 else "mlp", layers, temperature)


@pytest.mark.parametrize("widths", [(5,), (6, 5)], ids=["one layer", "two layers"])
@pytest.mark.parametrize("temperature", [1.0, 0.3, 4.0])
@pytest.mark.parametrize(
    "columns", [range(7), [1, 2, 5], [6], [6, 5, 4, 3, 2, 1, 0]], ids=["all", "some", "one", "all, turned"]
)
def test_attached_is_the_heads_own_probabilities(
    widths: tuple[int, ...], temperature: float, columns: list[int], picture: Array
) -> None:
    head = _head(len(columns), *widths, temperature=temperature)
    chosen = np.array(columns, np.int64)
    whole = attach(_features(), head, chosen)
    assert [output.get_any_name() for output in whole.outputs] == ["probabilities", "features"]
    found = _run(whole, picture)
    np.testing.assert_allclose(
        found["probabilities"], head.probabilities(found["features"][None, chosen])[0], atol=1e-5
    )
    np.testing.assert_array_equal(found["features"], _run(_features(), picture)["features"])


@pytest.mark.parametrize("views", ["one", "flip", "dihedral"])
def test_a_head_goes_on_and_comes_off_through_a_file_and_the_features_keep_their_bits(
    views: Any, tmp_path: Path, picture: Array
) -> None:
    backbone = average_views(_features(), views)
    columns = np.arange(2, 7)
    head = _head(5, 3, temperature=2.0)
    ov.save_model(attach(backbone, head, columns), tmp_path / "model.xml", compress_to_fp16=False)
    whole = ov.Core().read_model(tmp_path / "model.xml")
    bare = without_head(whole)
    assert [output.get_any_name() for output in bare.outputs] == ["features"]
    assert digest(bare) == digest(backbone)
    found = _run(bare, picture)["features"]
    np.testing.assert_array_equal(found, _run(backbone, picture)["features"])
    # And on again.
    again = _run(attach(bare, head, columns), picture)["probabilities"]
    np.testing.assert_array_equal(again, _run(whole, picture)["probabilities"])


def test_the_graphs_that_are_given_stay_as_they_are(picture: Array) -> None:
    network, features = _network(), _features()
    whole = attach(features, _head(7, 3, temperature=1.0), np.arange(7))
    before = [(digest(graph), _run(graph, picture)) for graph in (network, features, whole)]
    pool(network, ["a"])
    average_views(features, "flip")
    average_views(features, "dihedral")
    attach(features, _head(2, 3, temperature=1.0), np.arange(2))
    without_head(whole)
    for graph, (known, outputs) in zip((network, features, whole), before, strict=True):
        assert digest(graph) == known
        after = _run(graph, picture)
        assert list(after) == list(outputs)
        for name, value in outputs.items():
            np.testing.assert_array_equal(after[name], value)


# --- digest -----------------------------------------------------------------------------------------------


def test_two_builds_have_one_digest_whatever_their_nodes_are_called() -> None:
    known = digest(_features())
    assert len(known) == 64
    assert digest(_features()) == known
    assert digest(_features(names="_other")) == known
    assert digest(average_views(_features(), "flip")) == digest(average_views(_features(), "flip"))


CHANGES: dict[str, Callable[[], ov.Model]] = {
    "a constant": lambda: _features(nudge=1e-6),
    "an attribute": lambda: _features(stride=1),
    "the input's size": lambda: _features(height=SIDE + 1, width=SIDE + 1),
    "the wiring": lambda: _features(crossed=True),
    "an output less": lambda: pool(_network(), ["a"]),
    "the outputs' order": lambda: pool(_network(), ["b", "a"]),
    "flipped views": lambda: average_views(_features(), "flip"),
    "turned views": lambda: average_views(_features(), "dihedral"),
    "a head": lambda: attach(_features(), _head(7, 3, temperature=1.0), np.arange(7)),
    "a head's temperature": lambda: attach(_features(), _head(7, 3, temperature=2.0), np.arange(7)),
    "a head's columns": lambda: attach(_features(), _head(7, 3, temperature=1.0), np.arange(7)[::-1]),
}


def test_all_that_changes_what_is_computed_changes_the_digest() -> None:
    found = {name: digest(make()) for name, make in CHANGES.items()} | {"nothing": digest(_features())}
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("key", ["same", ""], ids=["one name", "own names"])
def test_nodes_of_one_name_are_still_told_apart(key: str) -> None:
    def subtract(*, crossed: bool) -> ov.Model:
        x = op.parameter([2], ov.Type.f32)
        first, second = op.relu(x), op.sigmoid(x)
        if key:
            first.set_friendly_name(key)
            second.set_friendly_name(key)
        # The sum comes first, so that the order of the nodes is the same in both.
        total = op.add(first, second)
        difference = op.subtract(second, first) if crossed else op.subtract(first, second)
        return ov.Model([op.concat([total, difference], 0)], [x])

    assert digest(subtract(crossed=False)) != digest(subtract(crossed=True))
    assert digest(subtract(crossed=False)) == digest(subtract(crossed=False))


def test_constants_of_the_same_bytes_and_another_type_are_told_apart() -> None:
    def scaled(kind: type[np.generic]) -> ov.Model:
        x = op.parameter([2], ov.Type.f32)
        constant = op.constant(np.array([255, 254], np.uint8).view(kind))
        return ov.Model([op.multiply(x, op.convert(constant, ov.Type.f32))], [x])

    assert digest(scaled(np.uint8)) != digest(scaled(np.int8))
