"""A DINOv2-S/14 with random weights, as its repository, and as OpenVINO's own conversion of it in PyTorch.

    .venv-networks/bin/python -m benchmarks.parity.networks.converted FOLDER     (with openvino installed there)

`python -m benchmarks.speed.transformer FOLDER` then times the two beside each other.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import openvino as ov
import torch
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from benchmarks.parity.networks.stand_ins import random_weights

SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "image_size": 518}


class Pooled(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Any) -> Any:
        return self.model(pixels).pooler_output


def main() -> None:
    folder = Path(sys.argv[1])
    model = random_weights(Dinov2Model(Dinov2Config(**SMALL, attn_implementation="sdpa")))
    model.save_pretrained(folder)
    shape = (1, 3, 224, 224)
    with torch.no_grad():
        converted = ov.convert_model(Pooled(model), example_input=torch.zeros(shape), input=[list(shape)])
    ov.save_model(converted, folder / "converted.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main()
