"""The kernel head: against scikit-learn's kernels and its own definition, on problems no plane can part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op
from sklearn.metrics.pairwise import rbf_kernel

from exact import in_f32
from topwork.classifiers.graph import attach
from topwork.errors import InputError
from topwork.heads import kernel
from topwork.heads.file import load_head, save_head
from topwork.heads.head import Head, Layer, likeness
from topwork.heads.kernel import fit_kernel
from topwork.heads.linear import fit_linear

Array = np.ndarray[Any, Any]


def _rings(n: int, *, seed: int = 0) -> tuple[Array, Array]:
    """Three rings about one centre, in a plane of a space of ten dimensions."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    angle = rng.uniform(0, 2 * np.pi, n)
    radius = 1 + 2 * y + 0.2 * rng.normal(size=n)
    x = 0.1 * rng.normal(size=(n, 10))
    x[:, 0] += radius * np.cos(angle)
    x[:, 1] += radius * np.sin(angle)
    turn = np.linalg.qr(np.random.default_rng(99).normal(size=(10, 10)))[0]
    return (x @ turn + 5).astype(np.float32), y


def test_likeness_is_scikit_learns_gaussian() -> None:
    rng = np.random.default_rng(0)
    y, landmarks = rng.normal(size=(40, 7)).astype(np.float32), rng.normal(size=(9, 7)).astype(np.float32)
    np.testing.assert_allclose(likeness(y, landmarks), rbf_kernel(y, landmarks, gamma=1), atol=1e-6)
    assert likeness(landmarks, landmarks).max() <= 1


def test_rings_that_no_plane_can_part() -> None:
    x, y = _rings(400)
    fresh_x, fresh_y = _rings(300, seed=1)
    folds = np.arange(400) % 5
    curved = fit_kernel(x, y, class_count=3, folds=folds).head
    flat = fit_linear(x, y, class_count=3, folds=folds).head
    assert (curved.logits(fresh_x).argmax(1) == fresh_y).mean() > 0.97
    assert (flat.logits(fresh_x).argmax(1) == fresh_y).mean() < 0.6


def test_a_mean_squared_distance_of_one() -> None:
    x, y = _rings(200)
    head = fit_kernel(x, y, class_count=3, folds=np.arange(200) % 4).head
    coordinates = x @ head.layers[0].weight + head.layers[0].bias
    gaps = coordinates[:, None] - coordinates[None]
    assert (gaps**2).sum(2).mean() == pytest.approx(1, rel=1e-3)


def test_held_out_logits_are_those_of_heads_that_never_saw_the_image() -> None:
    """The coordinates are all training images'; the weights are fitted without the fold: refitted here alone."""
    x, y = _rings(150)
    folds = np.arange(150) % 3
    fit = fit_kernel(x, y, class_count=3, folds=folds, strengths=(1e-3,))
    coordinates = x @ fit.head.layers[0].weight + fit.head.layers[0].bias
    assert fit.head.landmarks is not None
    among = rbf_kernel(coordinates, fit.head.landmarks, gamma=1)
    for fold in range(3):
        rest = folds != fold
        # In these coordinates the penalty is on the function's norm: Wᵀ K W. Newton's method on the plain definition.
        expected = _refit(among[rest], among[~rest], among, y[rest], 3, 1e-3)
        np.testing.assert_allclose(fit.held_out_logits[~rest], expected, atol=0.05)


def _refit(k_in: Array, k_out: Array, among: Array, y: Array, classes: int, strength: float) -> Array:
    """The logits of the held-out rows at the optimum of mean loss + λ/2·‖f‖², by scikit-learn on features with those
    inner products."""
    from sklearn.linear_model import LogisticRegression

    values, vectors = np.linalg.eigh(among)
    kept = values > 1e-6 * values[-1]
    whiten = vectors[:, kept] / np.sqrt(values[kept])
    model = LogisticRegression(C=1 / (strength * len(y)), tol=1e-9, max_iter=10_000).fit(k_in @ whiten, y)
    assert model.coef_.shape[0] == classes
    logits = k_out @ whiten @ model.coef_.T + model.intercept_
    return logits - logits.mean(1, keepdims=True)


def test_more_images_than_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "LANDMARKS", 60)
    x, y = _rings(400)
    options = {"class_count": 3, "folds": np.arange(400) % 5}
    fit = fit_kernel(x, y, **options)
    assert fit.head.landmarks is not None
    assert fit.head.landmarks.shape[0] == 60
    fresh_x, fresh_y = _rings(300, seed=1)
    assert (fit.head.logits(fresh_x).argmax(1) == fresh_y).mean() > 0.9
    again = fit_kernel(x, y, **options)
    assert again.head.logits(x).tobytes() == fit.head.logits(x).tobytes()
    other = fit_kernel(x, y, **options, seed=1)
    assert other.head.logits(x).tobytes() != fit.head.logits(x).tobytes()


def test_more_directions_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "DIRECTIONS", 4)
    x, y = _rings(300)
    head = fit_kernel(x, y, class_count=3, folds=np.arange(300) % 5).head
    assert head.layers[0].weight.shape == (10, 4)


def test_validation_in_place_of_folds() -> None:
    x, y = _rings(300)
    held_x, held_y = _rings(100, seed=2)
    fit = fit_kernel(x, y, class_count=3, validation=(held_x, held_y, np.ones(100)))
    np.testing.assert_allclose(fit.held_out_logits, fit.head.logits(held_x), atol=2e-2)


@pytest.mark.parametrize("constant", [True, False])
def test_images_that_are_all_alike(constant: bool) -> None:
    x = np.full((12, 5), 3, np.float32)
    if not constant:
        x[:, 1] = np.arange(12)
    y = np.arange(12) % 2
    head = fit_kernel(x, y, class_count=2, folds=np.arange(12) % 3).head
    assert np.isfinite(head.probabilities(x)).all()


def test_saved_and_loaded(tmp_path: Path) -> None:
    x, y = _rings(100)
    head = fit_kernel(x, y, class_count=3, folds=np.arange(100) % 5).head
    save_head(head, tmp_path / "head.npz")
    again = load_head(tmp_path / "head.npz")
    assert again.kind == "kernel"
    assert again.probabilities(x).tobytes() == head.probabilities(x).tobytes()


def test_a_row_by_itself_is_the_same() -> None:
    x, y = _rings(100)
    head = fit_kernel(x, y, class_count=3, folds=np.arange(100) % 5).head
    together = head.logits(x)
    for i in (0, 7, 99):
        assert head.logits(x[i : i + 1]).tobytes() == together[i].tobytes()


@pytest.mark.parametrize("change", ["kind", "width", "missing"])
def test_a_file_whose_landmarks_do_not_fit(tmp_path: Path, change: str) -> None:
    x, y = _rings(100)
    head = fit_kernel(x, y, class_count=3, folds=np.arange(100) % 5).head
    assert head.landmarks is not None
    broken = {
        "kind": Head("mlp", head.layers, head.temperature, head.landmarks),
        "width": Head("kernel", head.layers, head.temperature, head.landmarks[:, 1:]),
        "missing": Head("kernel", head.layers, head.temperature),
    }[change]
    save_head(broken, tmp_path / "head.npz")
    with pytest.raises(InputError, match=r"landmarks|arrays|weight_1"):
        load_head(tmp_path / "head.npz")


def test_in_a_graph_it_gives_the_same() -> None:
    x, y = _rings(120)
    head = fit_kernel(x, y, class_count=3, folds=np.arange(120) % 5).head
    given = op.parameter([1, 10], ov.Type.f32, name="image")
    passed = op.add(given, op.constant(np.zeros((1, 10), np.float32)))
    passed.output(0).set_names({"features"})
    whole = attach(ov.Model([passed.output(0)], [given]), head, np.arange(10))
    compiled = in_f32(whole)
    found = np.concatenate([compiled([row[None]])["probabilities"].copy() for row in x])
    np.testing.assert_allclose(found, head.probabilities(x), atol=1e-4)


def test_two_layers_with_landmarks_worked_by_hand() -> None:
    first = Layer(np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    last = Layer(np.float32([[1, 0], [0, 1]]), np.float32([0, 1]))
    head = Head("kernel", (first, last), 1.0, np.float32([[0, 0], [1, 1]]))
    np.testing.assert_allclose(head.logits([[0, 0]]), [[1, 1 + np.exp(-2)]], rtol=1e-6)
