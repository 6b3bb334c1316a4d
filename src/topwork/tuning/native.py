"""Tuning a SavedModel in its own training mode: batch statistics are updated and dropout is active."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from topwork.backbones.backbone import LAST, Backbone, BackboneFacts, backbone_of
from topwork.backbones.hub.handle import parse
from topwork.backbones.hub.resolve import resolve
from topwork.backbones.module import load_module
from topwork.errors import InputError, TopworkError
from topwork.graphs.pixels import pixels_from
from topwork.tuning.learner import Body

Array = np.ndarray[Any, Any]


def native_body(facts: BackboneFacts) -> Body:
    """A backbone's module, run by its own framework: pictures in [0, 255] to features.

    Raises:
        InputError: the module is not a SavedModel, or can't be trained.
    """
    path = _saved_model(facts)
    from topwork.tfhub.frameworks import keras
    from topwork.tfhub.layer import KerasLayer  # checks that Keras is on TensorFlow

    layer = KerasLayer(str(path), trainable=True)
    if not layer.trainable_variables:
        raise InputError(
            f"{facts.handle}: expected a SavedModel with trainable weights; it has none: tune its graph "
            "(omit --native)"
        )
    entry = keras.Input((facts.size_px, facts.size_px, 3), name="picture")
    scaling = pixels_from(facts.pixels, "chosen")
    scaled = entry * np.array(scaling.scale, np.float32) + np.array(scaling.offset, np.float32)
    features = layer(scaled[..., ::-1] if scaling.bgr else scaled)
    if isinstance(features, dict) or len(features.shape) not in (2, 4):
        raise InputError(
            f"{facts.handle}: expected the SavedModel to return features (N, D) or (N, H, W, D); it returns "
            f"{features if isinstance(features, dict) else tuple(features.shape)}: omit --native"
        )
    if len(features.shape) == 4:
        features = keras.ops.mean(features, axis=(1, 2))
    model = keras.Model(entry, features, name="native")
    weights = tuple(v for v in layer.weights if keras.backend.is_float_dtype(v.dtype))
    return Body(model, (facts.size_px, facts.size_px, 3), weights, (1.0,) * len(weights))


def native_backbone(body: Body, facts: BackboneFacts, folder: Path) -> Backbone:
    """A tuned native body as a backbone: written to `folder` as a SavedModel and converted.

    Raises:
        TopworkError: the converted graph's features differ from the body's.
    """
    body.layer.export(folder, verbose=False)
    module = load_module(str(folder), size_px=facts.size_px, range="0..255")
    backbone = backbone_of(module, fit=facts.fit, views=facts.views, precision=facts.precision)
    own = {name: getattr(facts, name) for name in ("handle", "pixels", "license", "source")}
    backbone = Backbone(dataclasses.replace(backbone.facts, **own, tuned="whole, natively"), backbone.graph)
    _check(body, backbone)
    return backbone


def _check(body: Body, backbone: Backbone) -> None:
    """Check that the graph's features equal the body's."""
    from topwork.backbones.engine import Engine
    from topwork.graphs import features as graphs

    facts = dataclasses.replace(backbone.facts, views="one", precision="f32")
    size = facts.size_px
    picture = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)
    found = Engine(Backbone(facts, graphs.single_view(backbone.graph)))(picture)[facts.columns((LAST,))]
    wanted = np.asarray(body.layer.predict_on_batch(picture[None].astype(np.float32)))[0]
    if found.shape != wanted.shape or np.abs(found - wanted).max() > 1e-3 * max(np.abs(wanted).max(), 1e-6):
        raise TopworkError(
            f"{facts.handle}: the tuned model can't be converted to a graph: its features would differ. Tune its "
            "graph instead (omit --native)"
        )


def _saved_model(facts: BackboneFacts) -> Path:
    handle = parse(facts.source if Path(facts.source).exists() else facts.handle)
    path = None
    if handle.kind in ("path", "url", "kaggle", "hf"):
        found = resolve(handle)
        path = next((file.parent for file in found.rglob("saved_model.pb")), None)
    if path is None:
        raise InputError(
            f"{facts.handle}: expected a SavedModel to tune natively; this is not one: omit --native to tune its "
            "graph"
        )
    return path
