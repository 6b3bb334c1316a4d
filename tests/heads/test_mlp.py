"""The MLP head: slopes, Adam, logging, and that it learns."""

from __future__ import annotations

import doctest
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer

import topwork.heads.mlp as mlp
from topwork.errors import InputError
from topwork.heads.mlp import EpochLog, MlpSettings, StepLog, fit_mlp

SMALL = MlpSettings(hidden=16, epochs=3, log_every=4)


def _data(
    count: int = 100, width: int = 12, classes: int = 3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, count)
    x = rng.normal(size=(count, width)) + 2 * rng.normal(size=(classes, width))[targets]
    return x.astype(np.float32), targets


def _network(width: int, hidden: int, classes: int) -> mlp._Network:
    """In float64, with biases that are not 0."""
    rng = np.random.default_rng(1)
    flat = rng.normal(size=width * hidden + hidden + hidden * classes + classes) / 3
    return mlp._Network(flat, width, hidden, classes)


def test_the_examples_run() -> None:
    assert doctest.testmod(mlp).failed == 0


def test_slopes_agree_with_numerical_differences() -> None:
    network = _network(5, 7, 3)
    rng = np.random.default_rng(2)
    x, targets, weights = rng.normal(size=(9, 5)), rng.integers(0, 3, 9), rng.uniform(0.2, 2, 9)
    network.backward(x, targets, weights)
    found, wanted = network.slope.copy(), np.zeros_like(network.slope)
    for index in range(len(wanted)):
        for sign in (1, -1):
            network.flat[index] += sign * 1e-6
            loss = network.backward(x, targets, weights)[0] / len(x)
            network.flat[index] -= sign * 1e-6
            wanted[index] += sign * loss / 2e-6
    np.testing.assert_allclose(found, wanted, atol=1e-8)
    assert np.abs(wanted).min() < np.abs(wanted).max()  # it is no comparison of zeros


def test_loss_agrees_with_scikit_learn() -> None:
    network = _network(5, 7, 3)
    rng = np.random.default_rng(3)
    x, targets, weights = rng.normal(size=(3000, 5)), rng.integers(0, 3, 3000), rng.uniform(0.2, 2, 3000)
    logits = network.forward(x)[1]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss, accuracy = network.measure(x, targets, weights)
    assert loss == pytest.approx(log_loss(targets, p, sample_weight=weights))
    assert accuracy == np.mean(p.argmax(axis=1) == targets)


def test_adam_first_step_worked_by_hand() -> None:
    # m/(1 - b1) = g and v/(1 - b2) = g² after one step: each parameter moves by the rate against its sign.
    flat = np.array([1.0, 1.0, 1.0])
    mlp._Adam(flat, 0.01).step(np.array([4.0, -0.5, 0.0]))
    np.testing.assert_allclose(flat, [0.99, 1.01, 1.0], atol=1e-7)


def test_adam_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    flat = rng.normal(size=50)
    theirs = [flat.copy()]
    oracle = AdamOptimizer(theirs, 0.003, beta_1=0.9, beta_2=0.999, epsilon=1e-7)
    ours = mlp._Adam(flat, 0.003)
    for scale in (1, 1e-6, 3, 1, 1e-3) * 20:  # slopes near epsilon show where it stands
        slope = rng.normal(size=50) * scale
        oracle.update_params(theirs, [slope.copy()])
        ours.step(slope.copy())
        np.testing.assert_allclose(flat, theirs[0], rtol=1e-12, atol=1e-12)


def test_kernels_start_glorot_uniform_and_biases_at_zero() -> None:
    network = mlp._Network.start(300, 200, 4, np.random.default_rng(0))
    for (weight, bias), limit in zip(
        network.layers(network.flat), ((6 / 500) ** 0.5, (6 / 204) ** 0.5), strict=True
    ):
        assert not bias.any()
        assert np.abs(weight).max() == pytest.approx(limit, rel=0.01)
        assert weight.std() == pytest.approx(limit / 3**0.5, rel=0.05)  # of a uniform distribution


def test_it_learns_digits() -> None:
    x, targets = load_digits(return_X_y=True)
    x /= 16
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:1300], order[1300:]
    settings = MlpSettings(hidden=128)
    fit = fit_mlp(x[train], targets[train], class_count=10, settings=settings)
    assert fit.head.kind == "mlp"
    assert np.mean(fit.head.logits(x[test]).argmax(axis=1) == targets[test]) >= 0.95


def test_what_is_logged_and_when() -> None:
    x, targets = _data(100)  # 4 steps an epoch: 32, 32, 32, 4
    steps: list[StepLog] = []
    epochs: list[EpochLog] = []
    fit = fit_mlp(
        x,
        targets,
        class_count=3,
        validation=(x[:20], targets[:20], None),
        settings=replace(SMALL, log_every=3),
        on_step=steps.append,
        on_epoch=epochs.append,
    )
    assert [(log.step, log.epoch) for log in steps] == [(3, 1), (6, 2), (9, 3), (12, 3)]
    assert [(log.step, log.epoch) for log in epochs] == [(4, 1), (8, 2), (12, 3)]
    assert fit.history == mlp.History(tuple(steps), tuple(epochs))
    assert fit.history.steps[-1].loss < fit.history.steps[0].loss
    logits = fit.head.logits(x[:20]).astype(float)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert epochs[-1].validation_loss == pytest.approx(log_loss(targets[:20], p, labels=[0, 1, 2]), rel=1e-5)
    assert epochs[-1].validation_accuracy == np.mean(p.argmax(axis=1) == targets[:20])


def test_without_validation_no_epoch_is_logged() -> None:
    x, targets = _data()
    assert fit_mlp(x, targets, class_count=3, settings=SMALL).history.epochs == ()


def test_training_means_are_over_the_epoch_so_far_with_the_partial_batch() -> None:
    x, targets = _data(70)  # batches of 32, 32, 6
    # Nothing moves at such a rate, so every mean can be checked against the network as it started.
    settings = replace(SMALL, learning_rate=1e-30, log_every=1, epochs=2)
    fit = fit_mlp(x, targets, class_count=3, settings=settings)
    logits = fit.head.logits(x).astype(float)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for last in (fit.history.steps[2], fit.history.steps[5]):
        assert last.loss == pytest.approx(log_loss(targets, p), rel=1e-5)
        assert last.accuracy == pytest.approx(np.mean(p.argmax(axis=1) == targets))
    assert fit.history.steps[0].loss != fit.history.steps[3].loss  # the second epoch is shuffled anew


def test_the_seed_decides_everything() -> None:
    x, targets = _data()

    def weights(seed: int) -> bytes:
        settings = replace(SMALL, seed=seed)
        return fit_mlp(x, targets, class_count=3, settings=settings).head.layers[0].weight.tobytes()

    assert weights(1) == weights(1) != weights(2)


def test_weights_are_relative() -> None:
    x, targets = _data()
    sample = np.random.default_rng(5).uniform(0.5, 2, len(x))
    one, ten = (
        fit_mlp(x, targets, class_count=3, weights=scale * sample, settings=SMALL).head for scale in (1, 8)
    )
    np.testing.assert_allclose(one.logits(x), ten.logits(x), rtol=1e-4, atol=1e-5)


def test_a_weight_of_zero_is_no_image() -> None:
    network = _network(12, 7, 3)
    x, targets = _data(30)
    keep = np.arange(30) % 3 > 0
    network.backward(x, targets, keep.astype(float))
    slope = network.slope * 30
    network.backward(x[keep], targets[keep], np.ones(20))
    np.testing.assert_allclose(slope, network.slope * 20, atol=1e-6)


@pytest.mark.parametrize("name", ["hidden", "learning_rate", "batch", "epochs", "log_every"])
def test_settings_must_be_positive(name: str) -> None:
    x, targets = _data()
    with pytest.raises(InputError, match=f"`{name}` must be a positive number; got 0"):
        fit_mlp(x, targets, class_count=3, settings=replace(SMALL, **{name: 0}))


def test_inputs_are_checked() -> None:
    x, targets = _data()
    with pytest.raises(InputError, match=r"`targets` must be in 0\.\.1; got 2"):
        fit_mlp(x, targets, class_count=2)
    with pytest.raises(InputError, match=r"validation `x` must have 12 features.* got \(100, 11\)"):
        fit_mlp(x, targets, class_count=3, validation=(x[:, 1:], targets, None))


def test_a_loss_that_grows_without_end_is_named() -> None:
    x, targets = _data()
    message = r"no longer finite in epoch \d+: lower `learning_rate` \(1e\+30\), or standardise"
    with np.errstate(all="ignore"), pytest.raises(InputError, match=message):
        fit_mlp(x, targets, class_count=3, settings=replace(SMALL, learning_rate=1e30))
