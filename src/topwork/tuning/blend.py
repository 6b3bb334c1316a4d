"""An ensemble of the tuned and the frozen network: one classifier whose logits are a weighted sum of both.

Fine-tuned and frozen networks err on different pictures, so their ensemble beats either: each is calibrated by its
own best temperature, then both are added (Kumar et al. 2022, "Calibrated ensembles can mitigate accuracy tradeoffs
under distribution shift", https://arxiv.org/abs/2207.08977). They share one trunk up to the cut. A sum of linear
heads is a linear head on the concatenated features, so no other code has to treat it specially.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.backbones.backbone import LAST, TUNED, retuned
from topwork.classifiers.classifier import Classifier
from topwork.graphs import features as graphs
from topwork.graphs.cuts import Cut, join
from topwork.heads.head import Head, Layer
from topwork.tuning.start import HeldScore, temperature_of

if TYPE_CHECKING:
    import openvino as ov

Array = np.ndarray[Any, Any]
SHARES = (0.25, 0.5, 0.75)  # of the tuned network; 1 is tried as well
WORTHWHILE = 0.005  # relative reduction of the loss below which running the frozen network doesn't pay


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """A weighted sum of the tuned and the frozen network's logits."""

    share: float  # of the tuned network, above 0 to 1; 1: the frozen one is left out
    temperature: float  # the best one for `logits`
    tuned_temperature: float  # the tuned network's own, by which its logits were divided before summing
    logits: Array  # of the validation images, float (M, K)
    score: HeldScore


def best_blend(frozen: Array | None, tuned: Array, targets: Array, weights: Array) -> Blend:
    """The blend with the lowest validation log-loss, each at its own best temperature.

    Args:
        frozen: logits of a frozen head that never saw these images, float (M, K), at its best temperature; None
            where the two can't be added.
        tuned: logits of the tuned network, float (M, K), at any temperature.
        targets: int64 (M,).
        weights: float (M,).
    """

    def blended(share: float) -> Blend:
        logits = calm if share == 1 or frozen is None else (1 - share) * frozen + share * calm
        temperature = temperature_of(logits, targets, weights)
        return Blend(share, temperature, own, logits, HeldScore.of(logits, targets, weights))

    own = temperature_of(tuned, targets, weights)
    calm = tuned / own
    alone = blended(1.0)
    if frozen is None:
        return alone
    best = min((blended(share) for share in SHARES), key=lambda blend: blend.score.loss)
    return best if best.score.loss < (1 - WORTHWHILE) * alone.score.loss else alone


def can_blend(head: Head) -> bool:
    """Whether a frozen head is a single affine layer, which can be added to another."""
    return len(head.layers) == 1


def head_alone(tuned: Layer, blend: Blend) -> Head:
    """The tuned network's own head."""
    return Head("linear", (tuned,), blend.tuned_temperature)


def blended_head(frozen: Head, tuned: Layer, blend: Blend) -> Head:
    """One linear head on the frozen features followed by the tuned network's; `tuned` is the latter's own head."""
    shares = ((1 - blend.share) / frozen.temperature, blend.share / blend.tuned_temperature)
    pairs = list(zip(shares, (frozen.layers[0], tuned), strict=True))
    weight = np.concatenate([share * layer.weight for share, layer in pairs])
    bias = np.sum([share * layer.bias for share, layer in pairs], axis=0)
    layer = Layer(weight.astype(np.float32), bias.astype(np.float32))
    return Head("linear", (layer,), blend.temperature)


def assembled(
    frozen: Classifier,
    single: ov.Model,
    prefix: ov.Model | None,
    tail: ov.Model,
    cut: Cut | None,
    tuned: Layer,
    blend: Blend,
) -> Classifier:
    """The classifier with a tuned tail (or whole network, without a cut), alone or blended with the frozen one.

    Args:
        frozen: the classifier that was tuned.
        single: its single-view graph.
        prefix: the graph before the cut.
        tail: the tuned graph after the cut.
        cut: one of `find_cuts(single, …)`.
        tuned: the head on the tail's features.
        blend: from `best_blend`.
    """
    views, what = frozen.backbone.facts.views, f"after {cut.name}" if cut else "whole"
    if blend.share < 1:
        graph = graphs.average_views(beside(single, tail, cut), views)
        backbone = retuned(frozen.backbone, graph, what, beside=True)
        return Classifier(
            frozen.classes, backbone, (*frozen.blocks, TUNED), blended_head(frozen.head, tuned, blend)
        )
    whole = tail if prefix is None else join(prefix, tail)
    whole.output(0).set_names({"features"})
    backbone = retuned(frozen.backbone, graphs.average_views(whole, views), what)
    return Classifier(frozen.classes, backbone, (LAST,), head_alone(tuned, blend))


def beside(single: ov.Model, tail: ov.Model, cut: Cut | None) -> ov.Model:
    """A graph from `image` to the features of `single` followed by those of `tail`: (1, D + L).

    Args:
        single: a backbone's single-view graph.
        tail: its tuned part, from `cut` on; from the picture on if `cut` is None.
        cut: one of `find_cuts(single, …)`.
    """
    import openvino as ov
    from openvino import opset13 as op

    graph, tail = single.clone(), tail.clone()
    source = (graph.get_ordered_ops()[cut.node] if cut else graph.get_parameters()[0]).output(0)
    for node in tail.get_ordered_ops():
        node.set_friendly_name(f"tuned/{node.get_friendly_name()}")  # names must be unique
    for target in tail.get_parameters()[0].output(0).get_target_inputs():
        target.replace_source_output(source)
    own = graph.output("features").get_node().input_value(0)
    late = tail.outputs[0].get_node().input_value(0)
    whole = ov.Model([op.concat([own, late], 1)], graph.get_parameters())
    whole.output(0).set_names({"features"})
    return whole
