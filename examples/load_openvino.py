"""A classifier from `topwork export RUN --format openvino --input any --out flowers`; needs openvino, pillow."""

import json
import sys

import numpy as np
import openvino as ov
from PIL import Image

model = ov.Core().read_model(f"{sys.argv[1]}/model.xml")
facts = json.loads(model.get_rt_info(["topwork"]).astype(str))
answer = ov.compile_model(model, "CPU")(np.asarray(Image.open(sys.argv[2]).convert("RGB"))[None])
print(facts["classes"][answer["probabilities"].argmax()], answer["probabilities"].max())
