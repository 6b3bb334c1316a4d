"""A program written for the original tensorflow_hub: it loads a module, trains on top of it, then fine-tunes it.

Run in its own environment (requirements-tfhub.txt) with a folder and a .npy of pictures, float32 (N, S, S, 3) in
[0, 1]. The last line that it prints is one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf
import tensorflow_hub as hub
import tf_keras


def train(folder: str, pictures: np.ndarray[Any, Any], *, trainable: bool) -> dict[str, Any]:
    """Fit a linear head for a while: what the module gave before, what moved, the loss before and after."""
    tf.keras.utils.set_random_seed(1)
    module = hub.KerasLayer(folder, trainable=trainable)
    labels = np.arange(len(pictures)) % 2
    model = tf_keras.Sequential([module, tf_keras.layers.Dense(2, name="head")])
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(1e-2), loss)
    features = module(pictures).numpy()
    model.build(pictures.shape)
    before = [variable.numpy() for variable in module.resolved_object.variables]
    first = model.evaluate(pictures, labels, verbose=0)
    model.fit(pictures, labels, epochs=20, batch_size=4, verbose=0)
    moved = [
        not np.array_equal(old, new.numpy())
        for old, new in zip(before, module.resolved_object.variables, strict=True)
    ]
    return {
        "features": features.tolist(),
        "in_training": module.resolved_object(pictures, training=True).shape.as_list(),
        "variables": len(moved),
        "moved": sum(moved),
        "trainable": len(module.trainable_weights),
        "regularization": len(module.losses),
        "losses": [first, model.evaluate(pictures, labels, verbose=0)],
    }


if __name__ == "__main__":
    pictures = np.load(sys.argv[2])
    results = {name: train(sys.argv[1], pictures, trainable=name == "tuned") for name in ("frozen", "tuned")}
    print(json.dumps({"version": hub.__version__, **results}))
