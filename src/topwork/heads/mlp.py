"""The textbook head on stored features: Dense 512, ReLU, Dense K, trained by Adam in mini-batches.

Equivalent to `tf.keras.Sequential([frozen, Dense(512, "relu"), Dense(K)])` with `Adam()` and sparse cross-entropy
from logits, except that the frozen part is computed only once instead of in each epoch.
Features are not standardised: a backbone's pooled ReLU6 outputs are already of order one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topwork.errors import InputError
from topwork.heads.head import Head, Layer, check_samples

# Adam's constants as Kingma & Ba 2015 (https://arxiv.org/abs/1412.6980) recommend them; epsilon as Keras.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7


@dataclass(frozen=True, slots=True)
class MlpSettings:
    """The training settings; the defaults are the textbook's."""

    hidden: int = 512
    learning_rate: float = 1e-3
    batch: int = 32
    epochs: int = 10
    seed: int = 0
    log_every: int = 10


@dataclass(frozen=True, slots=True)
class StepLog:
    """Training loss and accuracy since the start of the epoch, after `step` steps in all (from 1).

    Both are means over the images seen, as in Keras: the loss weighted, the accuracy unweighted.
    """

    step: int
    epoch: int
    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class EpochLog:
    """Validation loss (weighted mean) and accuracy (unweighted) after epoch `epoch` (from 1)."""

    step: int
    epoch: int
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True, slots=True)
class History:
    """The training log, in order; `epochs` is empty without a validation set."""

    steps: tuple[StepLog, ...]
    epochs: tuple[EpochLog, ...]


@dataclass(frozen=True, slots=True)
class MlpFit:
    """A fitted head and its training log."""

    head: Head
    history: History


Validation = tuple[ArrayLike, ArrayLike, ArrayLike | None]


def fit_mlp(
    x: ArrayLike,
    targets: ArrayLike,
    *,
    class_count: int,
    weights: ArrayLike | None = None,
    validation: Validation | None = None,
    settings: MlpSettings | None = None,
    on_step: Callable[[StepLog], None] | None = None,
    on_epoch: Callable[[EpochLog], None] | None = None,
) -> MlpFit:
    """Fit Dense + ReLU + Dense on features `x` float (N, D) and `targets` int (N,) in 0..class_count-1.

    `weights` (N,), at least 0, are sample or class weights; they are scaled to a mean of 1, so that they
    don't change the learning rate. `validation` is (x, targets, weights or None), evaluated after each
    epoch. Kernels start Glorot-uniform, biases at 0; every epoch is reshuffled and its last, partial batch
    is used. `settings.seed` determines all randomness.
    `on_step` is called every `settings.log_every` steps, `on_epoch` after each epoch's validation.

    Raises:
        InputError: inputs that do not fit together, a setting that is not positive, or a loss that is
            no longer finite.

    >>> x = np.float32([[0, 1], [1, 0]] * 32)
    >>> fit = fit_mlp(x, [0, 1] * 32, class_count=2, settings=MlpSettings(learning_rate=0.05))
    >>> fit.head.logits(x[:2]).argmax(axis=1).tolist()
    [0, 1]
    """
    settings = settings or MlpSettings()
    for name in ("hidden", "learning_rate", "batch", "epochs", "log_every"):
        value = getattr(settings, name)
        if not (value > 0 and math.isfinite(value)):
            raise InputError(f"`{name}` must be a positive number; got {value}")
    rows = np.ascontiguousarray(x, dtype=np.float32)
    truth, sample = check_samples(rows, targets, weights, class_count=class_count)
    sample = (sample / sample.mean()).astype(np.float32)
    held = None
    if validation is not None:
        held_rows = np.ascontiguousarray(validation[0], dtype=np.float32)
        if held_rows.shape[1:] != rows.shape[1:]:
            raise InputError(
                f"validation `x` must have {rows.shape[1]} features, as `x` has; got {held_rows.shape}"
            )
        held = (held_rows, *check_samples(held_rows, *validation[1:], class_count=class_count))

    random = np.random.default_rng(settings.seed)
    network = _Network.start(rows.shape[1], settings.hidden, class_count, random)
    adam = _Adam(network.flat, settings.learning_rate)
    steps: list[StepLog] = []
    epochs: list[EpochLog] = []
    step = 0
    for epoch in range(1, settings.epochs + 1):
        loss = correct = 0.0
        seen = 0
        for chosen in _batches(random.permutation(len(rows)), settings.batch):
            batch_loss, batch_correct = network.backward(rows[chosen], truth[chosen], sample[chosen])
            adam.step(network.slope)
            step += 1
            loss, correct, seen = loss + batch_loss, correct + batch_correct, seen + len(chosen)
            if step % settings.log_every == 0:
                steps.append(StepLog(step, epoch, loss / seen, correct / seen))
                if on_step:
                    on_step(steps[-1])
        if not math.isfinite(loss):
            raise InputError(
                f"the loss is no longer finite in epoch {epoch}: lower `learning_rate` "
                f"({settings.learning_rate}), or standardise the features"
            )
        if held is not None:
            epochs.append(EpochLog(step, epoch, *network.measure(*held)))
            if on_epoch:
                on_epoch(epochs[-1])
    layers = tuple(Layer(weight.copy(), bias.copy()) for weight, bias in network.layers(network.flat))
    return MlpFit(Head("mlp", layers), History(tuple(steps), tuple(epochs)))


def _batches(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    return (order[start : start + size] for start in range(0, len(order), size))


Floats = NDArray[np.floating]


class _Network:
    """Two layers with their parameters in one flat array and their gradients in another of the same order.

    With one flat array, Adam updates all parameters in a few passes. Any float type works: the numerical
    gradient check runs in float64.
    """

    def __init__(self, flat: Floats, width: int, hidden: int, class_count: int) -> None:
        self.flat = flat
        self.slope = np.zeros_like(flat)
        self._shapes = ((width, hidden), (hidden,), (hidden, class_count), (class_count,))

    @classmethod
    def start(cls, width: int, hidden: int, class_count: int, random: np.random.Generator) -> _Network:
        """Glorot-uniform kernels (Glorot & Bengio 2010) and zero biases, float32."""
        size = width * hidden + hidden + hidden * class_count + class_count
        network = cls(np.zeros(size, dtype=np.float32), width, hidden, class_count)
        for weight, _ in network.layers(network.flat):
            limit = math.sqrt(6 / sum(weight.shape))
            weight[:] = random.uniform(-limit, limit, weight.shape)
        return network

    def layers(self, flat: Floats) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Views of a flat array as ((weight, bias), (weight, bias))."""
        cuts = np.cumsum([math.prod(shape) for shape in self._shapes])[:-1]
        parts = [part.reshape(shape) for part, shape in zip(np.split(flat, cuts), self._shapes, strict=True)]
        return (parts[0], parts[1]), (parts[2], parts[3])

    def forward(self, x: Floats) -> tuple[Floats, Floats]:
        """The hidden layer (N, H) after ReLU, and the logits (N, K)."""
        (weight_0, bias_0), (weight_1, bias_1) = self.layers(self.flat)
        hidden = x @ weight_0
        hidden += bias_0
        np.maximum(hidden, 0, out=hidden)
        return hidden, hidden @ weight_1 + bias_1

    def backward(self, x: Floats, targets: NDArray[np.int64], weights: Floats) -> tuple[float, int]:
        """Fill `slope` with the gradient of the mean weighted loss; return the loss's sum and the number correct."""
        hidden, logits = self.forward(x)
        loss, error = _cross_entropy(logits, targets)  # (N,), (N, K): gradient with respect to the logits
        error *= (weights / len(x))[:, None]
        (_, _), (weight_1, _) = self.layers(self.flat)
        (slope_w0, slope_b0), (slope_w1, slope_b1) = self.layers(self.slope)
        np.matmul(hidden.T, error, out=slope_w1)
        np.sum(error, axis=0, out=slope_b1)
        back = error @ weight_1.T  # (N, H)
        back *= hidden > 0
        np.matmul(x.T, back, out=slope_w0)
        np.sum(back, axis=0, out=slope_b0)
        return float(loss @ weights), int((logits.argmax(axis=1) == targets).sum())

    def measure(self, x: Floats, targets: NDArray[np.int64], weights: Floats) -> tuple[float, float]:
        """The weighted mean loss and the unweighted accuracy."""
        loss = correct = 0.0
        for chosen in _batches(np.arange(len(x)), 1024):  # bounds the memory of the hidden layer
            logits = self.forward(x[chosen])[1]
            loss += float(_cross_entropy(logits, targets[chosen])[0] @ weights[chosen])
            correct += int((logits.argmax(axis=1) == targets[chosen]).sum())
        return loss / float(weights.sum()), correct / len(x)


def _cross_entropy(logits: Floats, targets: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Each row's loss -log p_target, (N,), and its gradient with respect to the logits: p - onehot, (N, K)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    error = np.exp(shifted)
    total = error.sum(axis=1, keepdims=True)
    error /= total
    rows = np.arange(len(targets))
    loss: Floats = np.log(total[:, 0]) - shifted[rows, targets]
    error[rows, targets] -= 1
    return loss, error


class _Adam:
    """Adam, in place. As in Keras and in the paper's section 2, epsilon is outside the bias correction."""

    def __init__(self, flat: Floats, learning_rate: float) -> None:
        self._flat = flat
        self._rate = learning_rate
        # The moments divided by (1 - beta_1) and (1 - beta_2) save two passes over the parameters, as
        # m = beta_1 m + (1 - beta_1) g becomes m' = beta_1 m' + g; the update includes the factors again.
        self._first = np.zeros_like(flat)
        self._second = np.zeros_like(flat)
        self._steps = 0

    def step(self, slope: Floats) -> None:
        """Move the parameters one step against `slope`, which is overwritten."""
        self._steps += 1
        root = math.sqrt(1 - BETA_2)
        # p -= rate c2/c1 m / (sqrt(v) + eps), with m = (1 - beta_1) m', sqrt(v) = root sqrt(v').
        correction = math.sqrt(1 - BETA_2**self._steps) / (1 - BETA_1**self._steps)
        rate = self._rate * correction * (1 - BETA_1) / root
        g, m, v = slope, self._first, self._second
        m *= BETA_1
        m += g
        g *= g
        v *= BETA_2
        v += g
        np.sqrt(v, out=g)
        g += EPSILON / root
        np.divide(m, g, out=g)
        g *= rate
        self._flat -= g
