"""Where the network looked: which parts of a picture spoke for the class that it was given.

Class activation maps (Zhou et al. 2016, "Learning deep features for discriminative localization",
https://arxiv.org/abs/1512.04150) from the classifier's own graph, without gradients: the last layer's features are
averages over the picture, so each place has features of its own. How much a class's score would rise, beside the mean
of all classes, if the average leaned towards that place, is what the place says. That is the map of Grad-CAM
(Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391) for any head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from topwork import graph as graphs
from topwork.backbone import LAST, LAST_ROOTED
from topwork.classifier import Classifier
from topwork.engine import compile_model

if TYPE_CHECKING:
    import openvino as ov

LEAN = 0.02  # how far the average leans towards a place
HOTTEST = 0.65  # of the overlay's colour, at the place that says most

Array = np.ndarray[Any, np.dtype[Any]]


class Looker:
    """A classifier's maps; `possible` is False where its last layer has no places, as after a pooling of its own."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._blocks = [b for b in (LAST_ROOTED, LAST) if b in classifier.blocks]
        found = _with_places(graphs.single_view(classifier.backbone.graph))
        self.possible = found is not None and bool(self._blocks)
        if found is not None and self.possible:
            self._compiled = compile_model(found, classifier.backbone.facts.precision, threads=1)

    def logit_slopes(self, pixels: Array, class_number: int) -> Array:
        """Each place's say: the slope of the class's logit over the mean logit, float64 (h, w); any sign.

        `pixels`: uint8 (S, S, 3). The mean over the places is 0: the average can't lean towards itself.
        """
        out = self._compiled(pixels[None])
        features, activation = out["features"][0].astype(np.float64), out["activation"][0].astype(np.float64)
        channels, height, width = activation.shape
        places = activation.reshape(channels, -1).T  # (h · w, C)
        mean = places.mean(axis=0)
        leant = mean + LEAN * (places - mean)
        rows = np.repeat(features[None], len(places) + 1, axis=0)
        facts = self._classifier.backbone.facts
        for block in self._blocks:
            values = np.concatenate([leant, mean[None]])
            rows[:, facts.columns((block,))] = (
                np.maximum(values, 0) ** graphs.ROOT if block == LAST_ROOTED else values
            )
        columns = facts.columns(self._classifier.blocks)
        logits = self._classifier.head.logits(rows[:, columns].astype(np.float32)).astype(np.float64)
        said = logits[:, class_number] - logits.mean(axis=1)
        return np.asarray(((said[:-1] - said[-1]) / LEAN).reshape(height, width))

    def map(self, pixels: Array, class_number: int) -> Array:
        """What spoke for the class, float32 (h, w) in 0..1: 1 at the place that says most; all 0 if none does."""
        slopes = np.maximum(self.logit_slopes(pixels, class_number), 0)
        return np.asarray(slopes / max(slopes.max(), 1e-12), np.float32)


def overlay(pixels: Array, heat: Array) -> Array:
    """A picture with its map laid over it, uint8 (H, W, 3): the more a place says, the more orange it is.

    The picture is greyed, so that orange is the one colour: told from grey with every kind of colour vision.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    large = np.asarray(
        Image.fromarray(np.float32(heat)).resize((width, height), Image.Resampling.BICUBIC)
    ).clip(0, 1)
    grey = pixels.mean(axis=2, keepdims=True)
    orange = np.array([255, 120, 0], np.float64)
    share = HOTTEST * large[:, :, None]
    return np.asarray(np.rint((1 - share) * grey + share * orange), np.uint8)


def _with_places(graph: ov.Model) -> ov.Model | None:
    """The graph with one more output, `activation` (1, C, h, w): what its last average was taken of."""
    import openvino as ov

    graph = graph.clone()
    features = graph.output("features").get_node().input_value(0)
    source = features
    while source.get_node().get_type_name() == "Concat":
        source = source.get_node().input_values()[-1]
    while source.get_node().get_type_name() in ("Reshape", "Squeeze"):
        source = source.get_node().input_value(0)
    if source.get_node().get_type_name() not in ("ReduceMean", "AvgPool"):
        return None
    activation = source.get_node().input_value(0)
    shape = list(activation.shape)
    if len(shape) != 4 or shape[2] * shape[3] < 2 or shape[1] != source.shape[1]:
        return None
    model = ov.Model([features, activation], graph.get_parameters())
    model.output(0).set_names({"features"})
    model.output(1).set_names({"activation"})
    return model
