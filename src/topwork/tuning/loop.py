"""The training loop of a tuning: steps, validation, curves, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from topwork.errors import Stopped
from topwork.parallel import stream
from topwork.progress import Watch
from topwork.recipe import FinetuneRecipe
from topwork.storage.tensorboard import scalars
from topwork.tuning.checkpoint import Epoch, State, load_state, save_state
from topwork.tuning.data import TuningData
from topwork.tuning.inputs import Source
from topwork.tuning.learner import Learner

Array = np.ndarray[Any, Any]
PATIENCE = 5  # epochs without a lower validation loss before stopping
AT_ONCE = 64  # batch size for inference
LATE = 20  # last steps, whose mean loss the bar shows
TRIED_STEPS = 2  # timed steps, after one to warm up


def fit(
    learner: Learner,
    data: TuningData,
    recipe: FinetuneRecipe,
    *,
    epochs: int,
    seed: int,
    checkpoint: Path,
    digest: str,
    curves: Path,
    watch: Watch,
) -> State:
    """Train for `epochs`, or until the validation loss has not fallen for five epochs; Ctrl-C ends it early.

    If `checkpoint` holds a state with the same `digest`, training resumes from it with the same result as without
    the interruption: all randomness in an epoch follows from `seed` and the epoch's number.
    """
    state = load_state(checkpoint, digest=digest)
    if state is None:
        start = learner.weights()
        state = State(epochs, 0, start, start, learner.optimizer_values(), start, ())
    else:
        learner.restore(state)
        watch.say(f"resuming after {len(state.history)} of {state.epochs} epochs")
    steps = steps_an_epoch(len(data.learn), recipe.batch)
    with scalars(curves) as log, watch.bar("tuning", state.epochs * len(data.learn)) as advance:
        advance(len(state.history) * len(data.learn), _note([], state.history))
        try:
            while len(state.history) < state.epochs and not _stuck(state.history):
                number, began, losses, right = len(state.history), time.perf_counter(), [], 0.0
                random = np.random.default_rng([seed, number])
                with closing(_ahead(data, number, random, steps)) as batches:
                    for rows, inputs in batches:
                        weights = data.weights[rows].astype(np.float32)
                        loss = learner.learn(inputs, data.one_hot(rows), weights)
                        losses.append(loss)
                        log.train(learner.step, loss=loss, rate=learner.rate)
                        advance(len(rows), _note(losses, state.history))
                held_loss, right = held_out(learner, data, learner.average)
                seconds = time.perf_counter() - began
                epoch = Epoch(number, float(np.mean(losses)), held_loss, right, seconds)
                log.validation(learner.step, loss=held_loss, accuracy=right)
                watch.say(
                    f"epoch {number + 1} of {state.epochs}: loss {epoch.loss:.4f}, validation loss {held_loss:.4f}, "
                    f"accuracy {100 * right:.1f} %, {seconds:.0f} s"
                )
                better = not state.history or held_loss < min(e.held_loss for e in state.history)
                state = State(
                    epochs=state.epochs,
                    step=learner.step,
                    weights=learner.weights(),
                    average=[a.copy() for a in learner.average],
                    optimizer=learner.optimizer_values(),
                    best=[a.copy() for a in learner.average] if better else state.best,
                    history=(*state.history, epoch),
                )
                save_state(state, checkpoint, digest=digest)
        except (KeyboardInterrupt, Stopped):
            if not state.history:
                raise
            watch.say(
                f"stopped after {len(state.history)} of {state.epochs} epochs: using the best one so far"
            )
    return state


def logits_of(learner: Learner, source: Source, rows: Array) -> Array:
    """Logits of unchanged pictures, float32 (N, K)."""
    return np.concatenate(
        [learner.logits(source.plain(some)) for some in _batches(rows, -(-len(rows) // AT_ONCE))]
    )


def held_out(learner: Learner, data: TuningData, weights: Sequence[Array]) -> tuple[float, float]:
    """Weighted validation loss and accuracy, with `weights` in place of the learner's own."""
    own = learner.weights()
    learner.set_weights(weights)
    try:
        logits = logits_of(learner, data.source, data.held)
    finally:
        learner.set_weights(own)
    return score(logits, data.targets[data.held], data.weights[data.held])


def score(logits: Array, targets: Array, weights: Array) -> tuple[float, float]:
    """Weighted log-loss and accuracy."""
    right = logits.argmax(axis=1) == targets
    losses = log_losses(logits, targets)
    return float(np.average(losses, weights=weights)), float(np.average(right, weights=weights))


def log_losses(logits: Array, targets: Array) -> Array:
    """Log-loss of each image, float64 (M,)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(targets)), targets])


def step_seconds(learner: Learner, data: TuningData, recipe: FinetuneRecipe) -> float:
    """Measured time of a step. The learner's state is restored afterwards."""
    before = learner.weights(), learner.optimizer_values(), [a.copy() for a in learner.average]
    random = np.random.default_rng(0)
    rows = np.resize(data.learn, recipe.batch)
    began = 0.0
    for number in range(1 + TRIED_STEPS):
        if number == 1:
            began = time.perf_counter()
        inputs = data.source.changed(rows, 0, random)
        learner.learn(inputs, data.one_hot(rows), np.ones(len(rows), np.float32))
    seconds = (time.perf_counter() - began) / TRIED_STEPS
    learner.restore(State(0, 0, before[0], before[2], before[1], (), ()))
    return seconds


def steps_an_epoch(images: int, batch: int) -> int:
    """Number of batches that cover all images; their sizes differ by at most one."""
    return max(1, round(images / batch))


def _ahead(
    data: TuningData, epoch: int, random: np.random.Generator, steps: int
) -> Generator[tuple[Array, Array], None, None]:
    """The batches of an epoch, each prepared while the previous one is trained on.

    A single thread prepares them in order, so that the randomness is reproducible.
    """

    def ready(rows: Array) -> tuple[Array, Array]:
        return rows, data.source.changed(rows, epoch, random)

    return stream(ready, _batches(random.permutation(data.learn), steps), workers=1)


def _note(losses: Sequence[float], history: Sequence[Epoch]) -> str:
    """For the bar: the recent loss, and the validation accuracy after the last epoch."""
    parts = [f"loss {np.mean(losses[-LATE:]):.3f}"] if losses else []
    parts += [f"accuracy {100 * history[-1].held_accuracy:.1f} %"] if history else []
    return ", ".join(parts)


def _batches(rows: Array, count: int) -> Iterator[Array]:
    yield from np.array_split(rows, max(1, count))


def _stuck(history: Sequence[Epoch]) -> bool:
    losses = [epoch.held_loss for epoch in history]
    return len(losses) > PATIENCE and min(losses[-PATIENCE:]) > min(losses[:-PATIENCE])
