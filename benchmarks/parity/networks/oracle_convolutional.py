"""What timm and Transformers make of random weights: asked by `compare_convolutional`, one line of JSON each way.

→ {"library": "timm", "name": "resnet18", "sizes": [64], "config": {}}
← {"shapes": {…}, "outputs": {"64": [[…]]}, "input_px": 224}
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.parity.networks import torchvision_stub  # noqa: F401  (timm imports torchvision)

# isort: split
import timm
import torch
import transformers

from benchmarks.parity.networks.random_tensors import random_pixels, random_tensor

MOST_PX = 288


def network(asked: dict[str, Any]) -> torch.nn.Module:
    if asked["library"] == "timm":
        return timm.create_model(asked["name"], **asked["config"])
    config = getattr(transformers, f"{asked['name']}Config")(**asked["config"])
    return getattr(transformers, f"{asked['name']}Model")(config)


def features(model: Any, library: str, pixels: torch.Tensor) -> torch.Tensor:
    if library == "timm":
        return model.forward_head(model.forward_features(pixels), pre_logits=True)
    return model(pixels).pooler_output.flatten(1)


def main() -> None:
    torch.set_num_threads(2)
    for line in sys.stdin:
        asked = json.loads(line)
        with torch.device("meta"):
            model = network(asked).eval()
        shapes = {name: list(t.shape) for name, t in model.state_dict().items()}
        answer: dict[str, Any] = {"shapes": shapes, "outputs": {}}
        answer["parameters"] = sum(p.numel() for p in model.parameters())
        if asked["library"] == "timm":
            answer["input_px"] = min(model.pretrained_cfg["input_size"][1], MOST_PX)
        if answer["parameters"] <= asked.get("most_parameters", 10**12):
            model = network(asked).eval()  # again, as buffers that no file has are not made without data
            state = {name: torch.from_numpy(random_tensor(name, tuple(s))) for name, s in shapes.items()}
            model.load_state_dict(state)
            for size_px in asked["sizes"] or [answer["input_px"]]:
                with torch.inference_mode():
                    made = features(model, asked["library"], torch.from_numpy(random_pixels(size_px)))
                answer["outputs"][str(size_px)] = made.tolist()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
