"""EfficientNet-Lite0 as a TensorFlow Hub module. Runs in the classic environment; see module.py.

    python benchmarks/speed/textbook/savedmodel.py build WEIGHTS.npz FOLDER
    python benchmarks/speed/textbook/savedmodel.py compare EXPECTED.npz FOLDER

The module follows Hub's common signature for image feature vectors: a reusable SavedModel with float32 RGB
(B, 224, 224, 3) in [0, 1] in and (B, 1280) out, batch norms kept as such, variables trainable as published.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_hub as hub
import tf_keras
from tf_keras import layers

Weights = dict[str, Any]


def build(weights: Weights) -> tf_keras.Model:
    """Inverted-residual blocks by the table `stages`, a row each: blocks, kernel, stride, expand."""
    size_px, scale = int(weights["size_px"]), float(weights["pixel_scale"])
    image = tf_keras.Input((size_px, size_px, 3), name="image")
    x = layers.Rescaling(255 / scale, offset=-float(weights["pixel_mean"]) / scale)(image)
    x = layers.ReLU(6.0)(convolve(x, weights, "_conv_stem", "_bn0", stride=2))
    number = 0
    for blocks, _, stride, _ in weights["stages"].tolist():
        for i in range(blocks):
            x = block(x, weights, f"_blocks.{number}.", stride=stride if i == 0 else 1, skip=i > 0)
            number += 1
    x = layers.ReLU(6.0)(convolve(x, weights, "_conv_head", "_bn1"))
    return tf_keras.Model(image, layers.GlobalAveragePooling2D()(x), name="efficientnet_lite0")


def block(x: Any, weights: Weights, name: str, *, stride: int, skip: bool) -> Any:
    entry = x
    if name + "_expand_conv.weight" in weights:
        x = layers.ReLU(6.0)(convolve(x, weights, name + "_expand_conv", name + "_bn0"))
    x = layers.ReLU(6.0)(convolve(x, weights, name + "_depthwise_conv", name + "_bn1", stride=stride))
    x = convolve(x, weights, name + "_project_conv", name + "_bn2")
    return layers.Add()([x, entry]) if skip else x


def convolve(x: Any, weights: Weights, name: str, norm: str, *, stride: int = 1) -> Any:
    """A convolution without bias, and its batch norm."""
    kernel = weights[f"{name}.weight"]  # (out, in / groups, k, k)
    out, per_group, size, _ = kernel.shape
    options = {"kernel_size": size, "strides": stride, "padding": "same", "use_bias": False}
    if per_group == 1:
        layer, order = layers.DepthwiseConv2D(**options), (2, 3, 0, 1)
    else:
        layer, order = layers.Conv2D(out, **options), (2, 3, 1, 0)
    x = layer(x)
    layer.set_weights([kernel.transpose(order)])
    normalise = layers.BatchNormalization(epsilon=float(weights["epsilon"]))
    x = normalise(x)
    parts = ("weight", "bias", "running_mean", "running_var")
    normalise.set_weights([weights[f"{norm}.{part}"] for part in parts])
    return x


def compare(expected: Weights, folder: Path) -> dict[str, float]:
    """Of the module, used as the classic program does: the largest and the relative difference."""
    layer = hub.KerasLayer(str(folder), trainable=False)
    features = layer(tf.constant(expected["pixels"], tf.float32) / 255.0).numpy()
    away = features - expected["features"]
    return {
        "images": len(away),
        "largest_difference": float(np.abs(away).max()),
        "relative_difference": float(np.linalg.norm(away) / np.linalg.norm(expected["features"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Make the classic program's module, or compare its features."
    )
    parser.add_argument("step", choices=("build", "compare"))
    parser.add_argument("arrays", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    with np.load(options.arrays, allow_pickle=False) as file:
        arrays = dict(file)
    if options.step == "compare":
        print(json.dumps(compare(arrays, options.folder)))
        return
    partial = options.folder.with_name(options.folder.name + ".partial")  # renamed when whole
    build(arrays).save(partial, save_format="tf", include_optimizer=False)
    partial.rename(options.folder)


if __name__ == "__main__":
    main()
