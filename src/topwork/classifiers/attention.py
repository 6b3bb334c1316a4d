"""Attention maps: which parts of a picture support a class.

Class activation maps (Zhou et al. 2016, "Learning deep features for discriminative localization",
https://arxiv.org/abs/1512.04150) from the classifier's own graph, without a framework: the last layer's features are
averages over the picture, so each place has features of its own. A place's value is how much the class's score would
rise, relative to the mean of all classes, if the average moved towards that place. This is the map of Grad-CAM
(Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391) minus its mean, for any head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.backbones.backbone import LAST, LAST_ROOTED, TUNED
from topwork.classifiers.classifier import Classifier
from topwork.errors import InputError, TopworkError
from topwork.graphs import features as graphs
from topwork.graphs.compile import compile_model
from topwork.heads.head import Head

if TYPE_CHECKING:
    import openvino as ov

FAINT = 1e-3  # logits: maps weaker than this are scaled down, not stretched to 1
HOTTEST = 0.65  # share of the overlay's colour at the strongest place
Array = np.ndarray[Any, np.dtype[Any]]


class AttentionMapper:
    """Computes a classifier's maps; thread-safe.

    `possible` is False if the last layer has no spatial map: the network pools it itself, it is one pixel wide, or
    the head doesn't use it. With averaged views, the map is of the unchanged picture; with a frozen and a tuned
    network side by side, of the tuned one.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        last_blocks = (TUNED,) if TUNED in classifier.blocks else (LAST_ROOTED, LAST)
        self._blocks = [b for b in last_blocks if b in classifier.blocks]
        found = _with_places(graphs.single_view(classifier.backbone.graph))
        self.possible = found is not None and bool(self._blocks)
        if found is not None and self.possible:
            self._compiled = compile_model(found, classifier.backbone.facts.precision, threads=1)

    def logit_slopes(self, pixels: Array, class_number: int) -> Array:
        """Each place's slope of the class's logit minus the mean logit, float64 (h, w); any sign.

        `pixels`: uint8 (S, S, 3). The mean over all places is 0.

        Raises:
            TopworkError: the last layer has no spatial map.
            InputError: pixels of another shape or type, or no class with that number.
        """
        facts, head = self._classifier.backbone.facts, self._classifier.head
        if not self.possible:
            raise TopworkError(f"{facts}: its last layer has no spatial map; check `possible` first")
        shape = (facts.size_px, facts.size_px, 3)
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise InputError(f"`pixels` must be uint8 {shape}; got {pixels.dtype} {pixels.shape}")
        if not 0 <= class_number < head.class_count:
            raise InputError(f"`class_number` must lie in 0..{head.class_count - 1}; got {class_number}")
        # A new request: calls of the compiled model itself share their output memory.
        out = self._compiled.create_infer_request().infer([pixels[None]])
        features, activation = out["features"][0], out["activation"][0].astype(np.float64)
        channels, height, width = activation.shape
        places = activation.reshape(channels, -1)  # (C, h · w)
        mean = places.mean(axis=1)
        columns = facts.columns(self._classifier.blocks)
        slope = np.zeros(facts.width)
        slope[columns] = head_slope(head, features[columns], class_number)
        weight = np.zeros(channels)
        for block in self._blocks:
            # A channel with mean 0 is 0 at every place and has no effect, whatever the root's slope.
            positive = np.where(mean > 0, mean, 1)
            inner = graphs.ROOT * positive ** (graphs.ROOT - 1) if block == LAST_ROOTED else 1.0
            weight += slope[facts.columns((block,))] * inner
        return np.asarray((weight @ (places - mean[:, None])).reshape(height, width))

    def map(self, pixels: Array, class_number: int) -> Array:
        """The support for the class, float32 (h, w) in 0..1: 1 at the strongest place; all 0 if there is none.

        Raises:
            TopworkError, InputError: as `logit_slopes`.
        """
        slopes = np.maximum(self.logit_slopes(pixels, class_number), 0)
        return np.asarray(slopes / max(slopes.max(), FAINT), np.float32)


def head_slope(head: Head, x: Array, class_number: int) -> Array:
    """The gradient of a class's logit minus the mean logit at features `x`, float (D,): float64 (D,)."""
    seen = [np.asarray(x, np.float64)]  # each layer's output, before the ReLU or kernel that follows it
    y = seen[0]
    for i, layer in enumerate(head.layers):
        if i and head.landmarks is not None:
            y = np.exp(-((y - head.landmarks) ** 2).sum(axis=1))  # (M,)
        elif i:
            y = np.maximum(y, 0)
        y = y @ layer.weight + layer.bias
        seen.append(y)
    last = head.layers[-1].weight.astype(np.float64)
    slope = last[:, class_number] - last.mean(axis=1)
    for i in range(len(head.layers) - 1, 0, -1):
        y = seen[i]
        if head.landmarks is not None:
            apart = y - head.landmarks  # (M, R)
            slope = -2 * (slope * np.exp(-(apart**2).sum(axis=1))) @ apart
        else:
            slope = slope * (y > 0)
        slope = head.layers[i - 1].weight @ slope
    return np.asarray(slope, np.float64)


def overlay(pixels: Array, heat: Array) -> Array:
    """A picture overlaid with its map, uint8 (H, W, 3): the stronger a place, the more orange it is.

    The picture is greyed, so that orange is the only colour; it differs from grey for every kind of colour vision.
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
    """The graph with an added output `activation` (1, C, h, w), the input of its last averaging."""
    import openvino as ov

    graph = graph.clone()
    features = graph.output("features").get_node().input_value(0)
    source = features
    while source.get_node().get_type_name() == "Concat":
        source = source.get_node().input_values()[-1]
    channels = source.shape[1]
    while source.get_node().get_type_name() in ("Reshape", "Squeeze"):
        source = source.get_node().input_value(0)
    average = source.get_node()
    if average.get_type_name() not in ("ReduceMean", "AvgPool"):
        return None
    activation = average.input_value(0)
    shape = list(activation.shape)
    # It must average the whole picture to one number per channel, not windows or other axes.
    if len(shape) != 4 or shape[2] * shape[3] < 2 or shape[1] != channels:
        return None
    if list(source.shape) not in ([1, channels], [1, channels, 1, 1]) or not _over_the_picture(average):
        return None
    model = ov.Model([features, activation], graph.get_parameters())
    model.output(0).set_names({"features"})
    model.output(1).set_names({"activation"})
    return model


def _over_the_picture(average: Any) -> bool:
    if average.get_type_name() == "AvgPool":
        return True
    axes = average.input_value(1).get_node()
    return axes.get_type_name() == "Constant" and sorted(int(a) % 4 for a in axes.data.ravel()) == [2, 3]
