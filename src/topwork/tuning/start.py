"""The initial head of a tuning, solved on the features of the untuned tail."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.data.dataset import Dataset
from topwork.data.split import Splits
from topwork.evaluation.significance import gains_of_groups
from topwork.features.extract import Features
from topwork.graphs.compile import compile_model
from topwork.heads.design import moments
from topwork.heads.fit import fit_head
from topwork.heads.head import Layer, fit_temperature
from topwork.heads.linear import fit_linear, fold_affine
from topwork.parallel import core_count, stream
from topwork.progress import Silent
from topwork.recipe import Recipe
from topwork.tuning.data import TuningData
from topwork.tuning.learner import Start
from topwork.tuning.loop import log_losses, score

if TYPE_CHECKING:
    import openvino as ov

Array = np.ndarray[Any, Any]
BOTH = 5000  # most images for which the head sees each both unchanged and augmented


def solve_start(graph: ov.Model, data: TuningData, *, seed: int) -> Start:
    """Solve a linear head on the features of augmented pictures, as the network will see them.

    A head fitted on unchanged pictures only would be far off when training starts on rotated ones.
    """
    random = np.random.default_rng([seed, 0x5747])
    changed = _features(graph, data, random)
    parts = [changed]
    if len(data.learn) <= BOTH:
        parts = [_features(graph, data, None), changed]
    x = np.concatenate(parts)
    count = len(parts)
    targets = np.tile(data.targets[data.learn], count)
    weights = np.tile(data.weights[data.learn], count).astype(np.float64)
    folds = np.tile(np.unique(data.folds[data.learn], return_inverse=True)[1], count)
    mean, deviation = moments(x, weights)
    fit = fit_linear(x, targets, class_count=data.class_count, weights=weights, folds=folds)
    layer = fit.head.layers[0]
    known = np.isfinite(deviation)
    scale = np.where(known, deviation, 1.0).astype(np.float32)
    # The loss should see calibrated logits, so the temperature is folded into the head.
    weight = layer.weight * scale[:, None] / fit.head.temperature
    bias = (layer.bias + mean @ layer.weight) / fit.head.temperature
    return Start(mean.astype(np.float32), scale, weight.astype(np.float32), bias.astype(np.float32))


def temperature_of(logits: Array, targets: Array, weights: Array) -> float:
    """The temperature of the validation logits (M, K), smoothed by Laplace's rule: a few images that are all
    classified correctly don't prove certainty."""
    return fit_temperature(logits, targets, weights, smoothing=1 / (len(targets) + 2))


@dataclass(frozen=True, slots=True)
class HeldScore:
    """Weighted validation log-loss, at the best temperature, and accuracy."""

    loss: float
    accuracy: float

    @classmethod
    def of(cls, logits: Array, targets: Array, weights: Array) -> HeldScore:
        return cls(*score(logits / temperature_of(logits, targets, weights), targets, weights))

    def __str__(self) -> str:
        return f"loss {self.loss:.4f}, accuracy {100 * self.accuracy:.1f} %"


@dataclass(frozen=True, slots=True)
class LossReduction:
    """Reduction of the mean validation log-loss, with its standard error.

    The standard error is clustered by group, since pictures of one object tend to be right or wrong together (the
    sandwich estimate: Liang and Zeger 1986, "Longitudinal data analysis using generalized linear models"). It is
    infinite for a single group.
    """

    loss: float
    error: float

    @property
    def clear(self) -> bool:
        """Whether it exceeds its standard error, as a more complex or selected model should.

        The "one-standard-error rule" of Breiman et al. 1984, "Classification and regression trees", section 3.4.
        """
        return self.loss > self.error

    def __str__(self) -> str:
        word = "lower" if self.loss > 0 else "higher"
        return f"loss {abs(self.loss):.4f} {word} (standard error {self.error:.4f})"

    @classmethod
    def of(
        cls, before: Array, after: Array, targets: Array, weights: Array, groups: Array | None = None
    ) -> LossReduction:
        """From two classifiers' logits (M, K), each at its best temperature; `weights` are the images'.

        `groups`: int (M,), the number of each image's group; None if every image is its own group.
        """
        each = log_losses(before, targets) - log_losses(after, targets)
        shares = weights / weights.sum()
        mean = float(shares @ each)
        deviations, shares = gains_of_groups(each - mean, shares, groups)
        count = 1 / float(shares @ shares)  # effective sample size: Kish 1965
        spread = float(deviations @ deviations)
        return cls(mean, math.sqrt(spread * count / (count - 1)) if count > 1 + 1e-9 else math.inf)


def frozen_logits(
    features: Features,
    learn: Dataset,
    held: Dataset,
    recipe: Recipe,
    *,
    targets: Array,
    weights: Array,
    tensorboard: Path,
) -> Array:
    """Validation logits, float (M, K), of a head fitted on the frozen features of the training images only.

    They are divided by their best temperature.

    Args:
        features: of all these images.
        learn: the training images.
        held: the validation images; `targets` int64 and `weights` are theirs.
        recipe: `head` has the settings.
        tensorboard: where to write the curves of a head trained by gradient descent.
    """
    none = held.select([])
    fitted = fit_head(features, Splits(learn, none, none), recipe, tensorboard=tensorboard, watch=Silent())
    logits = fitted.head.logits(features.part(held).matrix(fitted.blocks))
    return np.asarray(logits / temperature_of(logits, targets, weights))


def head_layer(start: Start, kernel: Array, bias: Array) -> Layer:
    """A tuned head as one affine layer on raw features."""
    return fold_affine(kernel, bias, start.mean, start.deviation)


def _features(graph: ov.Model, data: TuningData, random: np.random.Generator | None) -> Array:
    """Features of the training images by the engine, float32 (N, D)."""
    threads = core_count()
    compiled = compile_model(graph, "f32", threads=threads)
    local = threading.local()
    kind = graph.inputs[0].get_element_type().to_dtype()

    def run(batch: Array) -> Array:
        request = getattr(local, "request", None)
        if request is None:
            request = local.request = compiled.create_infer_request()
        return np.array(request.infer([batch.astype(kind)])[0][0], np.float32)

    def each() -> Iterator[Array]:
        for row in data.learn:
            one = np.array([row])
            yield data.source.plain(one) if random is None else data.source.changed(one, 0, random)

    with closing(stream(run, each(), workers=threads)) as results:
        return np.stack(list(results))
