"""A classifier from `topwork export RUN --format litert --out flowers.tflite`; needs ai-edge-litert, pillow."""

import sys
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

classes = zipfile.ZipFile(sys.argv[1]).read("labels.txt").decode().splitlines()
model = Interpreter(sys.argv[1]).get_signature_runner()
_, height, width, _ = model.get_input_details()["image"]["shape"]
picture = Image.open(sys.argv[2]).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
probabilities = model(image=np.asarray(picture)[None])["probabilities"]
print(classes[probabilities.argmax()], probabilities.max())
