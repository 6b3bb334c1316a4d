"""Every stand-in network, as it lies: is it read, are its pixels and features the library's, tuned, exported?

    .venv-networks/bin/python -m benchmarks.parity.networks.stand_ins FOLDER
    python -m benchmarks.parity.networks.table FOLDER [--only NAME …] [--tune] [--exports onnx litert …] [--out ROWS]

`stand_ins` (torch==2.13.0, timm and transformers without their torchvision, safetensors, onnx, onnxscript) writes
repositories with random weights and what their library makes of four pictures: the picture after preprocessing, and
the features. Pixels may differ by 1e-5 of their range, features by 1e-4 of the largest, in f32.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import openvino as ov
from PIL import Image

import topwork
from benchmarks.parity.networks.pictures import PICTURES, picture_bytes
from topwork.backbones.backbone import LAST, Backbone, load_backbone
from topwork.backbones.module import Module, load_module
from topwork.graphs import cuts
from topwork.graphs import features as graphs
from topwork.images.decode import decode
from topwork.recipe import BackboneRecipe, HeadRecipe, Recipe, SplitRecipe

PIXELS, FEATURES = 1e-5, 1e-4
FORMATS = ("openvino", "onnx", "savedmodel", "litert", "keras")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", help="those with these names")
    parser.add_argument("--exports", nargs="*", default=[], choices=FORMATS)
    parser.add_argument("--tune", action="store_true", help="compare the Keras layer, too")
    parser.add_argument("--out", type=Path, help="where the rows are kept, as JSON lines")
    told = parser.parse_args()
    for folder in sorted(told.folder.iterdir()):
        if (not told.only or folder.name in told.only) and (folder / "expected.npz").exists():
            row = {"name": folder.name} | measure(folder, told.tune, tuple(told.exports))
            print(json.dumps(row), flush=True)
            if told.out:
                with told.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def measure(folder: Path, tune: bool, exports: tuple[str, ...]) -> dict[str, object]:
    expected = np.load(folder / "expected.npz")
    handle = str(folder / "onnx" / "model.onnx" if (folder / "onnx").exists() else folder)
    began = time.perf_counter()
    try:
        module = load_module(handle)
        backbone = load_backbone(handle, precision="f32")
    except Exception as error:
        return {"read": f"{type(error).__name__}: {str(error)[:200]}"}
    row: dict[str, object] = {"read": "", "s": round(time.perf_counter() - began, 1)}
    row["format"] = "ONNX" if handle.endswith(".onnx") else "safetensors"
    row["pixels"] = _pixels(module, backbone, expected["pixels"])
    row["features"], row["notes"] = _features(backbone, expected), list(module.notes)
    row["stages"] = len(module.stages)
    if tune:
        row["tune"] = _tuned(backbone)
    if exports:
        row |= _exported(handle, exports)
    return row


def _sized(backbone: Backbone) -> list[np.ndarray]:
    facts = backbone.facts
    return [decode(picture_bytes(p), facts.size_px, fit=facts.fit) for p in PICTURES]


def _pixels(module: Module, backbone: Backbone, expected: np.ndarray) -> float | str:
    """The largest difference of the pixels, over their range."""
    made = []
    for picture in _sized(backbone):
        x = picture.astype(np.float32) * np.array(module.pixels.scale, np.float32)
        x = x + np.array(module.pixels.offset, np.float32)
        made.append((x[..., ::-1] if module.pixels.bgr else x).transpose(2, 0, 1))
    if np.stack(made).shape != expected.shape:
        return f"{np.stack(made).shape[2]} px for {expected.shape[2]}"
    return float(np.abs(np.stack(made) - expected).max() / np.ptp(expected))


def _features(backbone: Backbone, expected: np.lib.npyio.NpzFile) -> float | str:
    block = next(b for b in backbone.facts.blocks if b.name == LAST)
    compiled = ov.Core().compile_model(backbone.graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    made = np.concatenate(
        [compiled({0: p[None]})["features"][:, block.start : block.stop] for p in _sized(backbone)]
    )
    wanted = [expected[n] for n in ("last", "pooler_output") if n in expected]
    if "last_hidden_state" in expected and expected["last_hidden_state"].ndim == 3:
        wanted.append(expected["last_hidden_state"][:, 0])
    apart = [
        float(np.abs(made - w.reshape(4, -1)).max() / np.abs(w).max())
        for w in wanted
        if w.reshape(4, -1).shape == made.shape
    ]
    return min(apart) if apart else f"{made.shape[1]} numbers"


def _tuned(backbone: Backbone) -> float | str:
    """How far the Keras layer of the graph is from it, and whether it can be cut."""
    from topwork.graphs.trainable.layer import GraphLayer

    graph = graphs.last_layer(graphs.single_view(backbone.graph))
    try:
        places = cuts.find_cuts(graphs.single_view(backbone.graph), backbone.facts.blocks)
        layer = GraphLayer(graph)
        pictures = np.stack(_sized(backbone)[:2])
        made = np.asarray(layer(pictures))
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    compiled = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    wanted = np.concatenate([compiled({0: p[None]})[0] for p in pictures])
    if not places:
        return "no cut"
    return float(np.abs(made - wanted).max() / np.abs(wanted).max())


def _exported(handle: str, exports: tuple[str, ...]) -> dict[str, str]:
    """ "" for each format that a run of this network goes to with parity, else the reason."""
    row: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as place:
        photos, run = Path(place) / "photos", Path(place) / "run"
        random = np.random.default_rng(0)
        for label in range(2):
            (photos / f"class{label}").mkdir(parents=True)
            for number in range(12):
                pixels = random.integers(0, 128, (48, 48, 3), np.uint8)
                pixels[..., label] += 100
                Image.fromarray(pixels).save(photos / f"class{label}" / f"{number}.png")
        recipe = Recipe(
            backbone=BackboneRecipe(handle=handle, precision="f32"),
            split=SplitRecipe(copies=False, folds=2),
            head=HeadRecipe(features="last", reject=0),
        )
        topwork.train(str(photos), run, recipe=recipe)
        for kind in exports:
            try:
                topwork.export(run, Path(place) / kind, format=kind)
                row[kind] = ""
            except Exception as error:
                row[kind] = f"{type(error).__name__}: {str(error)[:200]}"
    return row


if __name__ == "__main__":
    main()
