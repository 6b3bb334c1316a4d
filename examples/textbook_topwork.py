"""The job of textbook.py, by Topwork: the same data set, the same module, the same halves and quarters.

python examples/textbook_topwork.py [DATASET] [MODULE] [RUN]
"""

import sys

import topwork

DATA, MODULE = "tfds:tf_flowers", "https://tfhub.dev/google/imagenet/inception_v3/feature_vector/5"
data, module, out = sys.argv[1:] or (DATA, MODULE, "runs/flowers")

images = topwork.load(data).with_split(None)
half, quarter = len(images) // 2, len(images) // 4
train, held = images.take(half).with_split("train"), images.skip(half)
parts = train.concatenate(held.take(quarter).with_split("validation")).concatenate(
    held.skip(quarter).with_split("test")
)
test = topwork.train(parts, out, recipe=topwork.Recipe(topwork.BackboneRecipe(module))).test
low, high = test.interval
print(
    f"test loss {test.log_loss:.4f} accuracy {test.accuracy:.4f} on {test.n} images (95 %: {low:.4f} to {high:.4f})"
)
