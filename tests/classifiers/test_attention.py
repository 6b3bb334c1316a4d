"""Maps of where the network looked: their arithmetic against the head itself, and planted objects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from exact import in_f32
from photos import SHAPES, shape, write_shapes
from topwork.backbones.backbone import LAST, LAST_ROOTED, Backbone, BackboneFacts, load_backbone
from topwork.backbones.engine import Engine
from topwork.backbones.module import load_module
from topwork.classifiers.attention import AttentionMapper, head_slope, overlay
from topwork.classifiers.classifier import Classifier
from topwork.errors import InputError, TopworkError
from topwork.graphs import features as graphs
from topwork.graphs.features import Block
from topwork.heads.head import Head, Layer
from topwork.images.framing import Framing
from topwork.jobs.train import Run, train
from topwork.recipe import BackboneRecipe, Recipe, Views

PX = 96  # the last layer is then 3 x 3 places
Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture(scope="module")
def network() -> Backbone:
    return load_backbone("efficientnet-lite0", size_px=PX, precision="f32")


def picture(number: int, label: str = "circle", size_px: int = PX) -> Array:
    return np.asarray(shape(label, number).resize((size_px, size_px)))


def layer(random: np.random.Generator, wide: int, out: int, size: float = 1.0) -> Layer:
    weight = random.normal(0, size / np.sqrt(wide), (wide, out)).astype(np.float32)
    return Layer(weight, random.normal(0, 0.1, out).astype(np.float32))


def head_of(kind: str, width: int, seed: int = 0) -> Head:
    """A head of any kind with 4 classes, its weights drawn."""
    random = np.random.default_rng(seed)
    if kind in ("linear", "centroid"):
        return Head(kind, (layer(random, width, 4),))
    if kind == "mlp":
        return Head(kind, (layer(random, width, 24), layer(random, 24, 16), layer(random, 16, 4)))
    landmarks = random.normal(0, 0.5, (30, 6)).astype(np.float32)
    return Head(kind, (layer(random, width, 6, 0.5), layer(random, 30, 4, 5)), landmarks=landmarks)


def said(head: Head, x: Array, number: int) -> float:
    """A class's logit less the mean one, in float64, as `Head` defines them."""
    y = np.asarray(x, np.float64)
    for i, each in enumerate(head.layers):
        if i and head.landmarks is not None:
            y = np.array([np.exp(-np.sum((y - mark) ** 2)) for mark in head.landmarks.astype(np.float64)])
        elif i:
            y = np.where(y > 0, y, 0)
        y = y @ each.weight.astype(np.float64) + each.bias
    return float(y[number] - y.mean())


@pytest.mark.parametrize("kind", ["linear", "centroid", "mlp", "kernel"])
def test_the_slope_is_that_of_central_differences(kind: str) -> None:
    head, x = head_of(kind, 20), np.random.default_rng(1).normal(0, 1, 20)
    # The oracle's own formula is the head's: to the roundings of float32.
    logits = head.logits(np.float32(x)[None])[0]
    assert said(head, x, 2) == pytest.approx(logits[2] - logits.mean(), abs=1e-5)
    for number in range(4):
        slope, step = head_slope(head, x, number), 1e-5
        for i, unit in enumerate(np.eye(20)):
            rise = said(head, x + step * unit, number) - said(head, x - step * unit, number)
            assert slope[i] == pytest.approx(rise / (2 * step), rel=1e-5, abs=1e-8)


def activation(pixels: Array) -> Array:
    """The last layer's places by the network as it was published, float64 (C, h, w)."""
    graph = load_module("efficientnet-lite0", size_px=PX).graph
    return np.asarray(in_f32(graph)(pixels[None])[LAST][0], np.float64)


def test_a_linear_head_says_of_a_place_what_it_would_say_of_it_alone(network: Backbone) -> None:
    """On the plain last layer: the logit of features that are one place's, less the logit of the picture's own."""
    facts, pixels = network.facts, picture(3)
    head = head_of("linear", facts.columns((LAST,)).size)
    mapper = AttentionMapper(Classifier(tuple("abcd"), network, (LAST,), head))
    places = activation(pixels)
    features = Engine(network, workers=1)(pixels)[facts.columns((LAST,))]
    np.testing.assert_allclose(features, places.mean(axis=(1, 2)), rtol=1 / 2048, atol=1e-5)  # rounded
    features = places.mean(axis=(1, 2))
    for number in range(4):
        slopes = mapper.logit_slopes(pixels, number)
        assert slopes.shape == (3, 3)
        whole = said(head, features, number)
        alone = [[said(head, places[:, y, x], number) - whole for x in range(3)] for y in range(3)]
        np.testing.assert_allclose(slopes, alone, atol=1e-4)


@pytest.mark.parametrize("kind", ["linear", "mlp", "kernel"])
@pytest.mark.parametrize("blocks", [(LAST_ROOTED,), (LAST, LAST_ROOTED), ("block7", LAST_ROOTED)])
def test_a_place_says_how_the_score_rises_as_the_average_leans_to_it(
    network: Backbone, kind: str, blocks: tuple[str, ...]
) -> None:
    facts, pixels = network.facts, picture(5)
    head = head_of(kind, facts.columns(blocks).size)
    slopes = AttentionMapper(Classifier(tuple("abcd"), network, blocks, head)).logit_slopes(pixels, 1)
    places, features = activation(pixels), Engine(network, workers=1)(pixels).astype(np.float64)
    mean = places.mean(axis=(1, 2))

    def leant(y: int, x: int, by: float) -> float:
        average = np.maximum(mean + by * (places[:, y, x] - mean), 0)
        row = features.copy()
        row[facts.columns((LAST,))] = average
        row[facts.columns((LAST_ROOTED,))] = average**graphs.ROOT
        return said(head, row[facts.columns(blocks)], 1)

    rises = [[(leant(y, x, 1e-5) - leant(y, x, -1e-5)) / 2e-5 for x in range(3)] for y in range(3)]
    np.testing.assert_allclose(slopes, rises, atol=1e-3 * np.abs(slopes).max())
    assert abs(slopes.sum()) < 1e-6 * np.abs(slopes).max()


@pytest.mark.parametrize("views", ["flip", "dihedral"])
def test_of_averaged_views_the_picture_as_it_stands_is_looked_at(network: Backbone, views: Views) -> None:
    turned = load_backbone("efficientnet-lite0", size_px=PX, precision="f32", views=views)
    head = head_of("linear", network.facts.columns((LAST,)).size)
    one, several = (AttentionMapper(Classifier(tuple("abcd"), b, (LAST,), head)) for b in (network, turned))
    slopes = one.logit_slopes(picture(2), 0)
    np.testing.assert_allclose(several.logit_slopes(picture(2), 0), slopes, atol=1e-4)
    assert np.ptp(slopes) > 0.01  # else anything would agree


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("attention")
    recipe = Recipe(backbone=BackboneRecipe(size_px=128, precision="f32"))
    return train(write_shapes(root / "shapes", 20), root / "run", recipe=recipe)


def planted(label: str, number: int) -> tuple[Array, int]:
    """A small shape in one of four corners of a plain noisy ground, and which corner."""
    random = np.random.default_rng([7, number])
    corner = int(random.integers(4))
    ground = np.full((128, 128, 3), random.integers(30, 90), np.uint8)
    ground += random.integers(0, 12, ground.shape, np.uint8)
    top, left = 64 * (corner // 2), 64 * (corner % 2)
    ground[top + 8 : top + 56, left + 8 : left + 56] = np.asarray(shape(label, 500 + number))
    return ground, corner


def test_the_map_lies_where_the_object_does(trained: Run) -> None:
    """The object's quarter holds more of the map than any other in most of 40 pictures: by chance, in 10 of them."""
    mapper, classifier = AttentionMapper(trained.classifier), trained.classifier
    hits, share = 0, []
    for number in range(40):
        label = SHAPES[number % 2]  # stripes have no place
        pixels, corner = planted(label, number)
        heat = mapper.map(pixels, classifier.classes.index(label))
        assert heat.dtype == np.float32
        assert (heat.min(), heat.max()) == (0, 1)
        quarters = heat.reshape(2, 2, 2, 2).sum(axis=(1, 3)).ravel()
        hits += int(quarters.argmax() == corner)
        share.append(quarters[corner] / quarters.sum())
    assert hits >= 20  # 20 or more of 40 by chance: 0.06 %
    assert np.mean(share) > 0.35


def test_a_saved_classifier_looks_alike(trained: Run) -> None:
    pixels = picture(1, size_px=128)
    loaded = AttentionMapper(Classifier.load(trained.path)).logit_slopes(pixels, 0)
    np.testing.assert_allclose(loaded, AttentionMapper(trained.classifier).logit_slopes(pixels, 0), atol=1e-4)


def test_many_threads_at_once_give_the_same_maps(network: Backbone) -> None:
    head = head_of("linear", network.facts.columns((LAST,)).size)
    mapper = AttentionMapper(Classifier(tuple("abcd"), network, (LAST,), head))
    pictures = [picture(number) for number in range(12)] * 8
    alone = [mapper.logit_slopes(pixels, 0) for pixels in pictures[:12]] * 8
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda pixels: mapper.logit_slopes(pixels, 0), pictures))
    assert all(np.array_equal(*pair) for pair in zip(alone, together, strict=True))


def small(*, pooled: str) -> Backbone:
    """A network of one layer, 8 px in and 4 x 4 out, that averages in its own way."""
    image = op.parameter([1, 8, 8, 3], ov.Type.u8, name="image")
    image.output(0).set_names({"image"})
    x = op.transpose(op.convert(image, "f32"), op.constant(np.array([0, 3, 1, 2])))
    weight = np.random.default_rng(0).normal(0, 0.01, (4, 3, 2, 2)).astype(np.float32)
    x = op.relu(op.convolution(x, op.constant(weight), [2, 2], [0, 0], [0, 0], [1, 1]))  # (1, 4, 4, 4)
    if pooled == "mean":
        x = op.reduce_mean(x, op.constant(np.array([-2, -1])), False)
    elif pooled == "mean, flattened":
        x = op.reduce_mean(x, op.constant(np.array([2, 3])), True)
        x = op.reshape(x, op.constant(np.array([1, 4])), False)
    elif pooled == "window":
        x = op.avg_pool(x, [1, 1], [0, 0], [0, 0], [4, 4], True)
        x = op.squeeze(x, op.constant(np.array([2, 3])))
    elif pooled == "rows":  # as many rows as channels: the shape alone would not tell
        x = op.reduce_mean(x, op.constant(np.array([1, 3])), False)
    elif pooled == "windows":
        x = op.avg_pool(x, [2, 2], [0, 0], [0, 0], [2, 2], True)
        x = op.reshape(x, op.constant(np.array([1, 16])), False)
    else:
        x = op.matmul(
            op.reshape(x, op.constant(np.array([1, 64])), False),
            op.constant(np.ones((64, 4), np.float32)),
            False,
            False,
        )
    graph = ov.Model([op.concat([x], 1)], [image])
    graph.output(0).set_names({"features"})
    width = graph.output(0).shape[1]
    facts = BackboneFacts(
        "small", 8, Framing("stretch"), "one", "f32", "raw", (Block(LAST, 0, width),), "", "", ""
    )
    return Backbone(facts, graph)


@pytest.mark.parametrize(
    ("pooled", "possible"),
    [
        ("mean", True),
        ("mean, flattened", True),
        ("window", True),
        ("rows", False),
        ("windows", False),
        ("no", False),
    ],
)
def test_places_are_found_where_there_are_any(pooled: str, possible: bool) -> None:
    backbone = small(pooled=pooled)
    mapper = AttentionMapper(
        Classifier(tuple("abcd"), backbone, (LAST,), head_of("mlp", backbone.facts.width))
    )
    assert mapper.possible is possible
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    if possible:
        assert mapper.map(pixels, 0).shape == (4, 4)
    else:
        with pytest.raises(TopworkError, match=r"small at 8 px, f32: its last layer has no spatial map"):
            mapper.map(pixels, 0)


def test_a_head_that_does_not_see_the_last_layer(network: Backbone) -> None:
    head = head_of("linear", network.facts.columns(("block7",)).size)
    assert not AttentionMapper(Classifier(tuple("abcd"), network, ("block7",), head)).possible


def test_nothing_speaks_for_it(network: Backbone) -> None:
    width = network.facts.columns((LAST,)).size
    silent = Head("linear", (Layer(np.zeros((width, 4), np.float32), np.zeros(4, np.float32)),))
    assert not AttentionMapper(Classifier(tuple("abcd"), network, (LAST,), silent)).map(picture(0), 0).any()


def test_what_is_refused(network: Backbone) -> None:
    head = head_of("linear", network.facts.columns((LAST,)).size)
    mapper = AttentionMapper(Classifier(tuple("abcd"), network, (LAST,), head))
    with pytest.raises(InputError, match=r"must be uint8 \(96, 96, 3\); got uint8 \(8, 8, 3\)"):
        mapper.map(picture(0, size_px=8), 0)
    with pytest.raises(InputError, match=r"got float32 \(96, 96, 3\)"):
        mapper.map(picture(0).astype(np.float32), 0)
    for number in (-1, 4):
        with pytest.raises(InputError, match=rf"must lie in 0..3; got {number}"):
            mapper.map(picture(0), number)


def test_an_overlay_leaves_what_says_nothing_grey() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    cold = overlay(pixels, np.zeros((3, 4), np.float32))
    assert cold.shape == (30, 40, 3)
    np.testing.assert_array_equal(cold, np.rint(pixels.mean(axis=2, keepdims=True)).repeat(3, axis=2))
    hot = overlay(pixels, np.ones((3, 4), np.float32)).astype(int)
    assert hot[..., 0] - hot[..., 2] == pytest.approx(0.65 * 255, abs=1)
    assert np.ptp(hot[..., 1]) > 60  # the picture is still seen below
