"""A classifier from `topwork export RUN --format onnx --input any --out flowers.onnx`; needs onnxruntime, pillow."""

import sys

import numpy as np
import onnxruntime
from PIL import Image

model = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
classes = model.get_modelmeta().custom_metadata_map["classes"].splitlines()
picture = np.asarray(Image.open(sys.argv[2]).convert("RGB"))[None]
(probabilities,) = model.run(["probabilities"], {"image": picture})
print(classes[probabilities.argmax()], probabilities.max())
