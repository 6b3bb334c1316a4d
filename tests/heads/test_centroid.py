"""The nearest class mean: its algebra, its scale, and a handful of images."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import scipy.optimize
import scipy.spatial.distance
import scipy.special
from sklearn.datasets import load_digits

import topwork.heads.centroid as centroid
from topwork.errors import InputError
from topwork.heads.centroid import fit_centroid


def _data(each: int, classes: int = 4, width: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.arange(classes).repeat(each)
    means = np.random.default_rng(99).normal(size=(classes, width))
    return (5 + means[targets] + rng.normal(size=(len(targets), width))).astype(np.float32), targets


def test_the_examples_run() -> None:
    assert doctest.testmod(centroid).failed == 0


def test_one_layer_is_the_scaled_distance_up_to_what_all_classes_share() -> None:
    x, targets = _data(6)
    head = fit_centroid(x, targets, class_count=4)
    assert (head.kind, len(head.layers), head.temperature) == ("centroid", 1, 1.0)
    means = np.stack([x[targets == k].mean(axis=0) for k in range(4)]).astype(float)
    residuals = x - means[targets]
    own = (residuals**2).sum(axis=0) / (24 - 4)
    variance = (20 * own + 10 * own.mean()) / 30
    distances = ((x[:, None, :] - means) ** 2 / variance).sum(axis=2)
    logits = head.logits(x).astype(float)
    # Differences between classes are proportional, with one factor for all images and pairs.
    theirs = (distances[:, :1] - distances[:, 1:]).ravel()
    ours = (logits[:, 1:] - logits[:, :1]).ravel()
    factor = ours @ theirs / (theirs @ theirs)
    np.testing.assert_allclose(ours, factor * theirs, atol=1e-4 * np.abs(ours).max())
    assert factor > 0


def test_the_scale_is_where_left_out_images_are_fitted_best() -> None:
    x, targets = _data(5)
    n = len(x)
    sample = np.random.default_rng(6).uniform(0.5, 2, n)
    head = fit_centroid(x, targets, class_count=4, weights=sample)
    means = np.stack([np.average(x[targets == k], axis=0, weights=sample[targets == k]) for k in range(4)])
    own = (sample / sample.mean()) @ (x - means[targets]) ** 2 / (n - 4)
    variance = (16 * own + 10 * own.mean()) / 26
    left_out = np.zeros((n, 4))  # the slow way: each image's own mean made anew without it
    for i in range(n):
        without = means.copy()
        k = targets[i]
        rest = (targets == k) & (np.arange(n) != i)
        without[k] = np.average(x[rest], axis=0, weights=sample[rest])
        left_out[i] = ((x[i] - without) ** 2 / variance).sum(axis=1)

    def loss(log_scale: float) -> float:
        p = scipy.special.log_softmax(-np.exp(log_scale) * left_out, axis=1)
        e = 1 / (n + 2)
        return -(sample * ((1 - e) * p[np.arange(n), targets] + e * p.mean(axis=1))).sum()

    best = scipy.optimize.minimize_scalar(loss, bounds=(-6, 2), method="bounded", options={"xatol": 1e-8})
    direction = 2 * (means[1] - means[0]) / variance
    found = head.layers[0].weight[:, 1] - head.layers[0].weight[:, 0]
    assert found @ direction / (direction @ direction) == pytest.approx(np.exp(best.x), rel=1e-3)


def test_one_image_a_class_is_the_nearest_neighbour() -> None:
    x, targets = load_digits(return_X_y=True)
    first = np.array([np.flatnonzero(targets == k)[0] for k in range(10)])
    ours = fit_centroid(x[first], targets[first], class_count=10).logits(x).argmax(axis=1)
    distances = scipy.spatial.distance.cdist(x, x[first])
    # Pixels are whole numbers, so some distances tie: any of the nearest will do.
    assert (distances[np.arange(len(x)), ours] == distances.min(axis=1)).all()


def test_a_handful_of_digits() -> None:
    x, targets = load_digits(return_X_y=True)
    right, sure = [], []
    for seed in range(8):  # how good five images are is much up to chance
        rng = np.random.default_rng(seed)
        chosen = np.concatenate(
            [rng.choice(np.flatnonzero(targets == k), 5, replace=False) for k in range(10)]
        )
        rest = np.setdiff1d(np.arange(len(x)), chosen)
        p = fit_centroid(x[chosen], targets[chosen], class_count=10).probabilities(x[rest])
        right.append(np.mean(p.argmax(axis=1) == targets[rest]))
        sure.append(p.max(axis=1).mean())
    assert np.mean(right) > 0.82
    assert np.mean(sure) == pytest.approx(np.mean(right), abs=0.1)


@pytest.mark.parametrize("each", [2, 3, 30])
def test_it_is_about_as_sure_as_it_is_right(each: int) -> None:
    x, targets = _data(each)
    fresh, truth = _data(500, seed=1)
    p = fit_centroid(x, targets, class_count=4).probabilities(fresh)
    accuracy = np.mean(p.argmax(axis=1) == truth)
    assert accuracy > 0.8
    assert abs(p.max(axis=1).mean() - accuracy) < 0.15


def test_one_image_a_class() -> None:
    # Three means at the same distance of each other: 0.9 at each, the rest shared.
    p = fit_centroid(10 * np.eye(3), [0, 1, 2], class_count=3).probabilities(10 * np.eye(3))
    np.testing.assert_allclose(p, np.full((3, 3), 0.05) + 0.85 * np.eye(3), atol=1e-5)


def test_one_class_with_one_image_among_others() -> None:
    x, targets = _data(6)
    keep = np.r_[0, 6:24]
    head = fit_centroid(x[keep], targets[keep], class_count=4)
    means = np.stack([x[:1].mean(axis=0), *(x[targets == k].mean(axis=0) for k in (1, 2, 3))]).astype(float)
    own = ((x[keep] - means[targets[keep]]) ** 2).sum(axis=0) / (19 - 4)
    variance = (15 * own + 10 * own.mean()) / 25
    nearest = ((x[:, None, :] - means) ** 2 / variance).sum(axis=2).argmin(axis=1)
    assert (head.logits(x).argmax(axis=1) == nearest).all()


@pytest.mark.parametrize("x", [np.zeros((4, 3)), np.float32([[0, 1], [0, 1], [1, 0], [1, 0]])])
def test_copies_of_one_image_do_not_divide_by_zero(x: np.ndarray) -> None:
    with np.errstate(all="raise"):
        p = fit_centroid(x, [0, 0, 1, 1], class_count=2).probabilities(x)
    assert np.isfinite(p).all()
    assert (p[[0, 1], 0] >= 0.5).all()


def test_a_single_class() -> None:
    assert fit_centroid([[1.0], [2.0]], [0, 0], class_count=1).probabilities([[3.0]]).tolist() == [[1.0]]


def test_a_feature_that_never_varies_has_no_say() -> None:
    x, targets = _data(40)
    x[:, 3] = 7
    head = fit_centroid(x, targets, class_count=4)
    np.testing.assert_allclose(head.layers[0].weight[3], 0, atol=1e-6)


def test_moving_all_features_changes_nothing() -> None:
    x, targets = _data(5)
    near, far = (fit_centroid(x + move, targets, class_count=4).probabilities(x + move) for move in (0, 64))
    np.testing.assert_allclose(near, far, atol=1e-3)


def test_weights_are_relative_and_a_weight_of_zero_is_no_image() -> None:
    x, targets = _data(5)
    sample = np.random.default_rng(7).uniform(0.5, 2, len(x))
    one = fit_centroid(x, targets, class_count=4, weights=sample).probabilities(x)
    np.testing.assert_allclose(
        one, fit_centroid(x, targets, class_count=4, weights=7 * sample).probabilities(x), atol=1e-5
    )
    dropped = np.where(np.arange(len(x)) % 5 == 0, 0, sample)
    kept = dropped > 0
    np.testing.assert_allclose(
        fit_centroid(x, targets, class_count=4, weights=dropped).probabilities(x),
        fit_centroid(x[kept], targets[kept], class_count=4, weights=sample[kept]).probabilities(x),
        atol=1e-5,
    )


def test_a_class_without_an_image_is_named() -> None:
    message = (
        r"expected at least one image of every class; no image has index 1, 3 \(of 0\.\.3\): add images or"
    )
    with pytest.raises(InputError, match=message):
        fit_centroid(np.eye(3), [0, 2, 2], class_count=4)
    with pytest.raises(InputError, match=r"no image has index 1 \(of 0\.\.1\)"):
        fit_centroid(np.eye(2), [0, 1], class_count=2, weights=[1, 0])
