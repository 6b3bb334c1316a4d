"""The textbook's transfer learning, on today's stack: a published module under a new dense head.

    python examples/textbook.py
    python examples/textbook.py --trainable
    python examples/textbook.py --dataset cells --data-dir data --module modules/lite0 --size 128 --features 1280

It is written as for `tensorflow_hub`; the only line that differs from such a program is the import of `hub`.
With the defaults it fetches tf_flowers and Inception-v3. `pip install "topwork[tfds]"`
"""

import argparse
import math
import time

import tensorflow as tf
import tensorflow_datasets as tfds

import topwork.tfhub as hub

parser = argparse.ArgumentParser(description="Train a dense head on a published module, frozen or trainable.")
parser.add_argument("--dataset", default="tf_flowers", help="a data set of images and labels, by its name")
parser.add_argument("--data-dir", help="where data sets are kept")
parser.add_argument(
    "--module",
    default="https://tfhub.dev/google/imagenet/inception_v3/feature_vector/5",
    help="a handle or folder",
)
parser.add_argument("--size", type=int, default=299, help="the side of the module's input, in pixels")
parser.add_argument("--features", type=int, default=2048, help="how many features the module gives")
parser.add_argument("--trainable", action="store_true", help="fine-tune the module too")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--learning-rate", type=float, default=1e-3)
parser.add_argument("--logs", default="logs", help="where TensorBoard's files go")
options = parser.parse_args()
tf.keras.utils.set_random_seed(0)

# The data: half to train, a quarter to validate, a quarter to test, by their order.
images, info = tfds.load(
    options.dataset, split="train", as_supervised=True, with_info=True, data_dir=options.data_dir
)
print(info)
count = info.splits["train"].num_examples
class_count = info.features["label"].num_classes
half, quarter = count // 2, count // 4


def prepare(image, label):
    """uint8 (H, W, 3) in [0, 255] to float32 (S, S, 3) in [0, 1], as the module wants it."""
    image = tf.image.convert_image_dtype(image, tf.float32)
    return tf.image.resize(image, (options.size, options.size)), label


def batches(part):
    return part.map(prepare, num_parallel_calls=tf.data.AUTOTUNE).batch(32).prefetch(1)


train = batches(images.take(half).shuffle(half, seed=0))
validation = batches(images.skip(half).take(quarter))
test = batches(images.skip(half + quarter))

# The network: the module, and a new head.
model = tf.keras.Sequential(
    [
        hub.KerasLayer(options.module, output_shape=[options.features], trainable=options.trainable),
        tf.keras.layers.Dense(512, activation="relu"),
        tf.keras.layers.Dense(class_count),
    ]
)
model.build((None, options.size, options.size, 3))
model.summary()

loss_of = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
optimizer = tf.keras.optimizers.Adam(options.learning_rate)
mean_loss = tf.keras.metrics.Mean()
accuracy = tf.keras.metrics.SparseCategoricalAccuracy()
step = tf.Variable(0, dtype=tf.int64)
writers = {name: tf.summary.create_file_writer(f"{options.logs}/{name}") for name in ("train", "validation")}


@tf.function
def train_step(images, labels):
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = loss_of(labels, logits) + sum(model.losses)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    step.assign_add(1)
    mean_loss.update_state(loss)
    accuracy.update_state(labels, logits)


@tf.function
def evaluate_step(images, labels):
    logits = model(images, training=False)
    mean_loss.update_state(loss_of(labels, logits), sample_weight=tf.shape(labels)[0])
    accuracy.update_state(labels, logits)


def take_results():
    """The mean loss and the accuracy since the last call."""
    results = float(mean_loss.result()), float(accuracy.result())
    for metric in (mean_loss, accuracy):
        metric.reset_state()
    return results


def write(name, loss, correct):
    with writers[name].as_default():
        tf.summary.scalar("loss", loss, step=step)
        tf.summary.scalar("accuracy", correct, step=step)
        writers[name].flush()


def evaluate(part):
    for images, labels in part:
        evaluate_step(images, labels)
    return take_results()


began = time.perf_counter()
steps = math.ceil(half / 32)
for epoch in range(1, options.epochs + 1):
    for images, labels in train:
        train_step(images, labels)
        if int(step) % 10 == 0:
            loss, correct = take_results()
            place = f"epoch {epoch}/{options.epochs} step {int(step)} ({steps} an epoch)"
            print(f"{place}: loss {loss:.4f} accuracy {correct:.4f}")
            write("train", loss, correct)
    take_results()
    loss, correct = evaluate(validation)
    print(f"epoch {epoch}/{options.epochs}: validation loss {loss:.4f} accuracy {correct:.4f}")
    write("validation", loss, correct)
loss, correct = evaluate(test)
seconds = time.perf_counter() - began
print(f"test loss {loss:.4f} accuracy {correct:.4f} on {count - half - quarter} images; {seconds:.0f} s")
