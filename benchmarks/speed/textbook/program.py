"""Transfer learning as the textbooks do it, and as people run it: what Topwork is measured against.

    python benchmarks/speed/textbook/program.py MANIFEST MODULE --logs FOLDER [--epochs 10] [--seed 0]

JPEG files through tf.data, a frozen TensorFlow Hub module, two dense layers on top, a custom training loop under
tf.function. Runs in the classic environment (environment.py). Nothing in it is made slow or fast on purpose.
The last line that it prints is one JSON object.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before the imports: a user waits for them too

import argparse  # noqa: E402
import csv  # noqa: E402
import json  # noqa: E402
from importlib.metadata import version  # noqa: E402
from pathlib import Path  # noqa: E402

import tensorflow as tf  # noqa: E402
import tensorflow_hub as hub  # noqa: E402
import tf_keras  # noqa: E402

IMPORTED = time.perf_counter()
SIZE_PX, FEATURES, HIDDEN, BATCH, RATE, PRINT_EVERY = 224, 1280, 512, 32, 1e-3, 10


def load_images(manifest: Path, split: str) -> tf.data.Dataset:
    """(images float32 (B, 224, 224, 3) in [0, 1], classes int32 (B,)), in the manifest's order: a seeded shuffle."""
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = sorted({row["label"] for row in rows})
    rows = [row for row in rows if row["split"] == split]
    paths = [str(manifest.parent / row["path"]) for row in rows]
    labels = [classes.index(row["label"]) for row in rows]
    return tf.data.Dataset.from_tensor_slices((paths, labels)).map(read_image).batch(BATCH).prefetch(1)


def read_image(path: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
    image = tf.image.convert_image_dtype(image, tf.float32)
    return tf.image.resize(image, (SIZE_PX, SIZE_PX)), label


def build_model(module: Path, classes: int) -> tf_keras.Model:
    return tf_keras.Sequential(
        [
            hub.KerasLayer(
                str(module), input_shape=(SIZE_PX, SIZE_PX, 3), output_shape=[FEATURES], trainable=False
            ),
            tf_keras.layers.Dense(HIDDEN, activation="relu"),
            tf_keras.layers.Dense(classes),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the classic way on a manifest (path,label,split).")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("module", type=Path)
    parser.add_argument("--logs", type=Path, required=True, help="where TensorBoard's files go")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tf_keras.utils.set_random_seed(options.seed)

    train, validation, test = (load_images(options.manifest, s) for s in ("train", "validation", "test"))
    model = build_model(options.module, classes=2)
    loss_function = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = tf_keras.optimizers.Adam(RATE)
    losses, accuracy = tf_keras.metrics.Mean(), tf_keras.metrics.SparseCategoricalAccuracy()
    train_writer = tf.summary.create_file_writer(str(options.logs / "train"))
    validation_writer = tf.summary.create_file_writer(str(options.logs / "validation"))

    @tf.function
    def train_step(images: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = loss_function(labels, logits)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        losses.update_state(loss)
        accuracy.update_state(labels, logits)

    @tf.function
    def test_step(images: tf.Tensor, labels: tf.Tensor) -> None:
        logits = model(images, training=False)
        losses.update_state(loss_function(labels, logits))
        accuracy.update_state(labels, logits)

    def report(writer: tf.summary.SummaryWriter, name: str, step: int) -> float:
        """Write and print what the metrics have gathered, and begin them anew; the accuracy."""
        loss, share = float(losses.result()), float(accuracy.result())
        with writer.as_default():
            tf.summary.scalar("loss", loss, step=step)
            tf.summary.scalar("accuracy", share, step=step)
        print(f"step {step}: {name} loss {loss:.4f}, accuracy {share:.4f}", flush=True)
        losses.reset_state()
        accuracy.reset_state()
        return share

    step = 0
    for _ in range(options.epochs):
        for images, labels in train:
            train_step(images, labels)
            step += 1
            if step % PRINT_EVERY == 0:
                report(train_writer, "train", step)
        losses.reset_state()
        accuracy.reset_state()
        for images, labels in validation:
            test_step(images, labels)
        report(validation_writer, "validation", step)
    trained = time.perf_counter()

    count = 0
    for images, labels in test:
        test_step(images, labels)
        count += len(labels)
    loss, share = float(losses.result()), float(accuracy.result())
    print(f"test loss {loss:.4f}, accuracy {share:.4f}")

    ended = time.perf_counter()
    seconds = {
        "import": IMPORTED - STARTED,
        "train": trained - IMPORTED,  # reading the module, and each epoch's validation, are part of it
        "evaluate": ended - trained,
        "total": ended - STARTED,
    }
    versions = {name: version(name) for name in ("tensorflow", "tf_keras", "tensorflow_hub")}
    print(json.dumps({"test": {"n": count, "accuracy": share}, "seconds": seconds, "versions": versions}))


if __name__ == "__main__":
    main()
