"""The coordinates that heads are solved in: exact ones, sampled ones, and that no thread's timing moves a bit."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from linear_problems import problem
from topwork.errors import TopworkError
from topwork.heads import choose, design, logistic
from topwork.heads.choose import STRENGTHS, Affine
from topwork.heads.design import gram, images_of, moments, placed, standardise
from topwork.heads.kernel import fit_kernel
from topwork.heads.linear import fit_linear, probe_linear

Array = np.ndarray[Any, Any]


class Stored:
    """Rows that are read in parts; counts them."""

    def __init__(self, x: Array) -> None:
        self._x = x
        self.read = 0

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, rows: slice | Array) -> Array:
        found = self._x[rows].copy()
        self.read += len(found)
        return found


@pytest.fixture(params=["in memory", "in a file"])
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with many images: 20 directions of a sample of 100, read 32 at a time."""
    monkeypatch.setattr(design, "EXACT", 100)
    monkeypatch.setattr(design, "NARROW", 10)
    monkeypatch.setattr(design, "SAMPLE", 100)
    monkeypatch.setattr(design, "DIRECTIONS", 20)
    monkeypatch.setattr(design, "ROWS_AT_ONCE", 32)
    if request.param == "in a file":
        monkeypatch.setattr(design, "HELD_BYTES", 0)


@pytest.mark.parametrize(("n", "d"), [(120, 20), (40, 100)], ids=["N>D", "N<D"])
def test_coordinates_keep_all_products_of_images(n: int, d: int) -> None:
    x, _, w = problem(n, d, 3, weighted=True)
    found = images_of(x, w)
    z = standardise(x, *moments(x, w)).astype(np.float64)
    np.testing.assert_allclose(found.coordinates @ found.coordinates.T, z @ z.T, atol=2e-3 * d)
    np.testing.assert_allclose(found.directions.coordinates(x), found.coordinates, atol=2e-3)
    share = w / w.sum()
    covariance = (found.coordinates * share[:, None]).T @ found.coordinates
    np.testing.assert_allclose(
        covariance, np.diag(found.spectrum.variances), atol=1e-3 * found.spectrum.variances.max()
    )
    u = np.random.default_rng(0).normal(size=(3, len(found.spectrum.variances)))
    lifted = z @ found.directions.lift(u).T
    np.testing.assert_allclose(lifted, found.coordinates @ u.T, atol=1e-2)


@pytest.mark.usefixtures("many")
def test_with_many_images_rows_are_read_once_and_a_sample_gives_the_directions() -> None:
    x, _, w = problem(400, 30, 3, weighted=True)
    rows = Stored(x)
    found = images_of(rows, w)
    assert rows.read <= 400 + 1 + 32  # one image for the width, and a block for the scale
    assert found.coordinates.shape == (400, 20)
    np.testing.assert_allclose(found.directions.coordinates(x), found.coordinates, atol=0.02)
    assert found.features is not None
    assert found.features_spectrum is not None
    z = standardise(x, *moments(x, w))
    np.testing.assert_allclose(found.features[:], z, atol=0.02)
    np.testing.assert_allclose(found.features[np.array([3, 399])], z[[3, 399]], atol=0.02)
    vectors = found.features_spectrum.vectors
    assert vectors is not None
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(20), atol=1e-3)
    np.testing.assert_allclose(found.spectrum.variances, (w / w.sum()) @ found.coordinates**2, rtol=1e-3)
    everything = np.linalg.eigvalsh((z * (w / w.sum())[:, None]).T @ z)
    rest = everything[:10].mean()
    assert found.features_spectrum.rest == pytest.approx(rest, rel=0.4)  # the sample's directions are others


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("fit", [fit_linear, fit_kernel])
def test_a_head_on_rows_read_in_parts_is_the_one_on_an_array(fit: Any) -> None:
    x, y, w = problem(400, 30, 3, weighted=True)
    held = (x[300:], y[300:], w[300:])
    parts = (Stored(x[300:]), y[300:], w[300:])
    known = fit(x[:300], y[:300], class_count=3, weights=w[:300], validation=held)
    found = fit(Stored(x[:300]), y[:300], class_count=3, weights=w[:300], validation=parts)
    np.testing.assert_array_equal(found.head.logits(x), known.head.logits(x))
    np.testing.assert_array_equal(found.held_out_logits, known.held_out_logits)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("how", ["folds", "validation"])
def test_few_directions_lose_nothing_in_the_end(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classes differ along directions that are not the strongest: all features are needed, and used."""
    random = np.random.default_rng(0)
    y = random.integers(0, 4, 700)
    turn = np.linalg.qr(random.normal(size=(80, 80)))[0]
    scale = np.r_[np.full(30, 3.0), np.full(50, 0.5)]
    hidden = random.normal(size=(700, 80)) * scale
    hidden[:, 40:44] += 0.9 * np.eye(4)[y]
    x = (hidden @ turn).astype(np.float32)
    w = np.ones(700)
    held: Any = (
        {"folds": np.arange(600) % 5} if how == "folds" else {"validation": (x[600:], y[600:], w[600:])}
    )
    few = fit_linear(x[:600], y[:600], class_count=4, **held)
    assert few.solved.images.features is not None
    monkeypatch.setattr(design, "EXACT", 600)
    every = fit_linear(x[:600], y[:600], class_count=4, **held)
    assert every.solved.images.features is None
    assert every.held_out_accuracy > 0.5
    assert few.held_out_loss < every.held_out_loss * 1.02
    assert abs(few.held_out_accuracy - every.held_out_accuracy) < 0.03
    assert few.strength <= every.strength * 3.2
    right = [(fit.head.logits(x[600:]).argmax(axis=1) == y[600:]).mean() for fit in (few, every)]
    assert abs(right[0] - right[1]) < 0.06


@pytest.mark.usefixtures("many")
def test_held_out_logits_are_those_of_heads_that_have_not_seen_the_image() -> None:
    """Labels by chance: a head that has seen an image knows its label, with more features than images."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(300, 400)).astype(np.float32), random.integers(0, 2, 300)
    fit = fit_linear(x, y, class_count=2, folds=np.arange(300) % 5, strengths=(1e-3,))
    assert (fit.head.logits(x).argmax(axis=1) == y).mean() > 0.95
    assert abs(fit.held_out_accuracy - 0.5) < 0.1


def test_more_images_than_the_coordinates_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design, "EXACT", 100)
    monkeypatch.setattr(design, "NARROW", 10)
    monkeypatch.setattr(design, "SAMPLE", 100)
    monkeypatch.setattr(design, "MOST_NUMBERS", 200 * 4)
    x = np.random.default_rng(0).normal(size=(200, 150)).astype(np.float32)
    assert len(images_of(x, np.ones(200)).spectrum.variances) == 4


def test_what_is_placed_waits_in_a_file_where_it_is_too_much_to_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the features that a leak is measured on: all of them were held once, whatever their number."""
    x = np.random.default_rng(0).normal(3, 2, (150, 20)).astype(np.float32)
    monkeypatch.setattr(design, "ROWS_AT_ONCE", 32)
    known = placed(lambda rows: rows * 2 - 1, x)
    assert isinstance(known, np.ndarray)
    monkeypatch.setattr(design, "HELD_BYTES", 0)
    found = placed(lambda rows: rows * 2 - 1, x)
    assert not isinstance(found, np.ndarray)
    np.testing.assert_allclose(found[:], known, rtol=1e-3, atol=1e-3)
    affine = Affine(np.ones((2, 20)), np.array([0.0, 1.0]))
    np.testing.assert_allclose(affine.logits(found), affine.logits(known), atol=0.05)


def test_a_full_disk_is_an_error_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design, "EXACT", 100)
    monkeypatch.setattr(design, "NARROW", 10)
    monkeypatch.setattr(design, "HELD_BYTES", 0)
    full = lambda **options: open("/dev/full", "r+b", buffering=0)  # noqa: E731, PTH123, SIM115
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    x = np.random.default_rng(0).normal(size=(200, 150)).astype(np.float32)
    with pytest.raises(TopworkError, match=r"room for 0.0 GB .*No space left on device.*TOPWORK_CACHE"):
        images_of(x, np.ones(200))


def test_values_of_any_size_wait_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design, "EXACT", 100)
    monkeypatch.setattr(design, "NARROW", 10)
    monkeypatch.setattr(design, "SAMPLE", 100)
    monkeypatch.setattr(design, "HELD_BYTES", 0)
    x, y, w = problem(300, 30, 3)
    x /= x.std(axis=0)
    big = x.copy()
    big[:, 3] *= 5e4  # less than a million times as much: the others would count as constant
    big[:, 5] *= 0.1
    held = (x[200:], y[200:], w[200:])
    known = fit_linear(x[:200], y[:200], class_count=3, validation=held)
    found = fit_linear(big[:200], y[:200], class_count=3, validation=(big[200:], *held[1:]))
    np.testing.assert_allclose(found.held_out_logits, known.held_out_logits, atol=0.1)


@pytest.mark.parametrize("n", [90, 700])
def test_the_same_to_the_bit_whatever_the_number_of_threads(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design, "EXACT", 300)
    monkeypatch.setattr(design, "NARROW", 10)
    monkeypatch.setattr(design, "SAMPLE", 300)
    monkeypatch.setattr(design, "DIRECTIONS", 20)
    monkeypatch.setattr(design, "ROWS_AT_ONCE", 64)
    monkeypatch.setattr(logistic, "BLOCK", 32)
    x, y, w = problem(n, 60, 3, weighted=True)
    seen = []
    for cores in (1, 2, 5):
        for module in (design, logistic):
            monkeypatch.setattr(module, "core_count", lambda cores=cores: cores)
        fit = fit_linear(x, y, class_count=3, weights=w, folds=np.arange(n) % 5)
        seen.append((fit.head.layers[0].weight, fit.head.layers[0].bias, fit.held_out_logits))
    for other in seen[1:]:
        for found, known in zip(other, seen[0], strict=True):
            np.testing.assert_array_equal(found, known)


def test_the_products_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design, "ROWS_AT_ONCE", 7)
    rows = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32)
    for matrix in (rows, rows.T):
        found = gram(matrix)
        np.testing.assert_allclose(found, matrix @ matrix.T, rtol=1e-4, atol=1e-4)
        off = np.tril_indices(len(found), -7)
        np.testing.assert_array_equal(found[off], found.T[off])


@pytest.mark.parametrize("enough", [1, 90, 10**6])
def test_folds_that_the_path_was_not_computed_for_are_solved_at_its_end(
    enough: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic, "TOLERANCE", 1e-9)
    x, y, w = problem(300, 12, 3, weighted=True, noise=4.0)
    folds = np.random.default_rng(1).permutation(300) % 5
    known = fit_linear(x, y, class_count=3, weights=w, folds=folds)
    monkeypatch.setattr(choose, "ENOUGH_HELD_OUT", enough)
    found = fit_linear(x, y, class_count=3, weights=w, folds=folds, strengths=(known.strength,))
    np.testing.assert_allclose(found.held_out_logits, known.held_out_logits, atol=0.02)
    np.testing.assert_allclose(found.head.logits(x), known.head.logits(x), atol=0.02)
    assert found.held_out_loss == pytest.approx(known.held_out_loss, rel=1e-3)
    assert found.head.temperature == pytest.approx(known.head.temperature, rel=1e-2)


@pytest.mark.parametrize("exact", [True, False])
def test_other_images_can_be_learnt_from(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exact:
        monkeypatch.setattr(design, "EXACT", 100)
        monkeypatch.setattr(design, "NARROW", 10)
        monkeypatch.setattr(design, "SAMPLE", 100)
    x, y, w = problem(300, 25, 3, weighted=True, noise=1.5)
    fit = fit_linear(x[:200], y[:200], class_count=3, weights=w[:200], folds=np.arange(200) % 5)
    known = fit_linear(
        x[100:], y[100:], class_count=3, weights=w[100:], folds=np.arange(200) % 5, strengths=(fit.strength,)
    )
    again = fit.solved.again(x[100:], y[100:], w[100:])
    said = again.logits(fit.solved.place(x))
    assert (said.argmax(axis=1) == known.head.logits(x).argmax(axis=1)).mean() > 0.95
    rows = np.arange(0, 200, 2)
    half = fit.solved.along(rows).logits(fit.solved.images.coordinates)
    assert (half.argmax(axis=1) == y[:200]).mean() > 0.8


@pytest.mark.parametrize("validated", [False, True])
def test_a_probe_tells_roughly_what_a_fit_would(validated: bool) -> None:
    x, y, _ = problem(400, 30, 3, noise=4.0)
    folds = None if validated else np.arange(300) % 5
    held = (x[300:], y[300:], np.ones(100)) if validated else None
    known = fit_linear(x[:300], y[:300], class_count=3, folds=folds, validation=held)
    step = probe_linear(x[:300], y[:300], class_count=3, weights=np.ones(300), folds=folds, validation=held)
    assert step.held_out_loss == pytest.approx(known.held_out_loss, rel=0.03)
    assert abs(STRENGTHS.index(step.strength) - STRENGTHS.index(known.strength)) <= 1


def test_where_steps_are_costly_the_folds_that_choose_are_refined_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others keep what they have along the coordinates, brought to the temperature of the rest."""
    monkeypatch.setattr(design, "EXACT", 100)
    monkeypatch.setattr(design, "NARROW", 10)
    monkeypatch.setattr(design, "SAMPLE", 200)
    monkeypatch.setattr(design, "DIRECTIONS", 8)
    monkeypatch.setattr(choose, "ENOUGH_HELD_OUT", 60)
    monkeypatch.setattr(choose, "ENOUGH_TO_REFINE", 60)
    x, y, _ = problem(600, 40, 3, noise=4.0)
    folds = np.arange(600) % 5
    whole = fit_linear(x, y, class_count=3, folds=folds)
    monkeypatch.setattr(choose, "COSTLY", 0)
    found = fit_linear(x, y, class_count=3, folds=folds)
    some = folds == 0
    np.testing.assert_allclose(found.held_out_logits[some], whole.held_out_logits[some], atol=0.05)
    np.testing.assert_allclose(found.head.logits(x), whole.head.logits(x), atol=0.3)
    assert not np.allclose(found.held_out_logits[~some], whole.held_out_logits[~some], atol=0.05)
    assert found.held_out_loss == pytest.approx(
        choose.score(found.held_out_logits[some], y[some], np.ones(120))[0]
    )

    def loss(temperature: float) -> float:
        return choose.score(found.held_out_logits[~some] / temperature, y[~some], np.ones(480))[0]

    t = found.head.temperature
    assert loss(t) <= min(loss(0.8 * t), loss(1.25 * t))


def test_folds_that_start_from_others_learn_nothing_of_what_they_are_held_out_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Labels by chance, under a weak penalty: the start has seen each of them. scikit-learn starts from nothing."""
    monkeypatch.setattr(design, "EXACT", 100)
    monkeypatch.setattr(choose, "ENOUGH_HELD_OUT", 300)
    random = np.random.default_rng(0)
    x, y = random.standard_normal((2000, 150), np.float32), random.integers(0, 2, 2000)
    folds, strength = np.arange(2000) % 5, 1e-3
    fit = fit_linear(x, y, class_count=2, folds=folds, strengths=(strength,))
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    for fold in range(5):
        inside = folds != fold
        # Two classes' weights ±w have a penalty of λ w², scikit-learn's one weight 2 w: a quarter of it.
        known = LogisticRegression(C=2 / (strength * inside.sum()), max_iter=2000, tol=1e-8).fit(
            z[inside], y[inside]
        )
        own = fit.held_out_logits[~inside]
        np.testing.assert_allclose(own[:, 1] - own[:, 0], known.decision_function(z[~inside]), atol=0.02)
