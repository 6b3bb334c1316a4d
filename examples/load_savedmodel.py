"""A classifier from `topwork export RUN --format savedmodel --input any --out flowers`; needs tensorflow, pillow."""

import sys

import numpy as np
import tensorflow as tf
from PIL import Image

model = tf.saved_model.load(sys.argv[1])
classes = model.signatures["describe"]()["classes"].numpy()
picture = tf.constant(np.asarray(Image.open(sys.argv[2]).convert("RGB"))[None])
probabilities = model.signatures["serving_default"](image=picture)["probabilities"].numpy()
print(classes[probabilities.argmax()].decode(), probabilities.max())
