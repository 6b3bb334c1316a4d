"""A classifier from `topwork export RUN --format keras --out flowers.keras`; needs keras, tensorflow, pillow."""

import sys
import zipfile

import keras
import numpy as np
from PIL import Image

classes = zipfile.ZipFile(sys.argv[1]).read("labels.txt").decode().splitlines()
model = keras.saving.load_model(sys.argv[1])
_, height, width, _ = model.input_shape
picture = Image.open(sys.argv[2]).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
probabilities = np.asarray(model(np.asarray(picture)[None])["probabilities"])
print(classes[probabilities.argmax()], probabilities.max())
