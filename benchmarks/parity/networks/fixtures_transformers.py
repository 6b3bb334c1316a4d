"""Small transformers for the tests, and what their libraries make of them: `tests/…/data/transformers.npz`.

    .venv-networks/bin/python -m benchmarks.parity.networks.fixtures_transformers

Of each network the file has its `config.json`, the names and shapes of the tensors, which both sides draw at random
by name, the last tokens at the size that it was trained at, and its features there and at other sizes.
"""

# ruff: noqa: I001

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.parity.networks import torchvision_stub  # noqa: F401  (timm imports torchvision)

import numpy as np
import timm
import torch
import transformers as T  # noqa: N812
from safetensors.numpy import load_file, save_file
from timm.models._hub import save_config_for_hf

from benchmarks.parity.networks.random_tensors import random_pixels, random_tensor

DATA = Path(__file__).parents[3] / "tests/backbones/weights/data/transformers.npz"
SIZE_PX, OTHERS_PX = 48, (32, 64)
Features = Callable[[Any, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]  # of pixels: tokens, features
Resize = Callable[[Any, int], None]

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": SIZE_PX,
    "patch_size": 8,
}
DINO = SMALL | {"mlp_ratio": 2, "layerscale_value": 0.5}
WORDS = {
    "vocab_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}


def class_token(model: Any, pixels: torch.Tensor, **more: Any) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = model(pixels, **more).last_hidden_state
    return tokens, tokens[:, 0]


def mean_token(model: Any, pixels: torch.Tensor, **more: Any) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = model(pixels, **more).last_hidden_state
    return tokens, tokens.mean(1)


def pooler(model: Any, pixels: torch.Tensor, **more: Any) -> tuple[torch.Tensor, torch.Tensor]:
    out = model(pixels, **more)
    return out.last_hidden_state, out.pooler_output


def clip(model: Any, pixels: torch.Tensor, **more: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """CLIP normalises the class token alone; here all tokens."""
    out = model(pixels, **more)
    return model.post_layernorm(out.last_hidden_state), out.pooler_output


def siglip2(model: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """It takes patches, their pixels with the channels last."""
    side = pixels.shape[2] // 8
    patches = pixels.reshape(1, 3, side, 8, side, 8).permute(0, 2, 4, 3, 5, 1).reshape(1, side * side, -1)
    mask, shapes = torch.ones(1, side * side, dtype=torch.int64), torch.tensor([[side, side]])
    out = model(patches, pixel_attention_mask=mask, spatial_shapes=shapes)
    return out.last_hidden_state, out.pooler_output


def transformers_networks() -> Iterator[tuple[str, Callable[[], Any], Features, tuple[int, ...]]]:
    """Each one's name, what makes it, how it gives features, and the other sizes."""
    freely = partial(class_token, interpolate_pos_encoding=True)
    yield "vit", lambda: T.ViTModel(T.ViTConfig(**SMALL)), freely, OTHERS_PX
    yield (
        "vit_classifier",
        lambda: T.ViTForImageClassification(T.ViTConfig(**SMALL, hidden_act="gelu_new", qkv_bias=False)),
        freely,
        (),
    )
    yield "vit_msn", lambda: T.ViTMSNModel(T.ViTMSNConfig(**SMALL)), freely, OTHERS_PX
    yield (
        "ijepa",
        lambda: T.IJepaModel(T.IJepaConfig(**SMALL)),
        partial(mean_token, interpolate_pos_encoding=True),
        OTHERS_PX,
    )
    yield "deit", lambda: T.DeiTModel(T.DeiTConfig(**SMALL)), freely, OTHERS_PX
    yield "dinov2", lambda: T.Dinov2Model(T.Dinov2Config(**DINO)), class_token, OTHERS_PX
    yield (
        "dinov2_swiglu",
        lambda: T.Dinov2Model(T.Dinov2Config(**DINO, use_swiglu_ffn=True)),
        class_token,
        (),
    )
    yield (
        "dinov2_registers",
        lambda: T.Dinov2WithRegistersModel(T.Dinov2WithRegistersConfig(**DINO, num_register_tokens=4)),
        class_token,
        OTHERS_PX,
    )
    dino3 = SMALL | {"num_register_tokens": 4}
    yield "dinov3", lambda: T.DINOv3ViTModel(T.DINOv3ViTConfig(**dino3)), class_token, OTHERS_PX
    gated = {"use_gated_mlp": True, "hidden_act": "silu"}
    yield "dinov3_gated", lambda: T.DINOv3ViTModel(T.DINOv3ViTConfig(**dino3, **gated)), class_token, ()
    free = partial(pooler, interpolate_pos_encoding=True)
    yield "siglip", lambda: T.SiglipVisionModel(T.SiglipVisionConfig(**SMALL)), free, OTHERS_PX
    both = {"vision_config": SMALL, "text_config": WORDS}
    yield "siglip_with_words", lambda: T.SiglipModel(T.SiglipConfig(**both)), free, ()
    pixels = {key: value for key, value in SMALL.items() if key != "image_size"} | {"num_patches": 36}
    yield "siglip2", lambda: T.Siglip2VisionModel(T.Siglip2VisionConfig(**pixels)), siglip2, OTHERS_PX
    free = partial(clip, interpolate_pos_encoding=True)
    yield "clip", lambda: T.CLIPVisionModel(T.CLIPVisionConfig(**SMALL)), free, OTHERS_PX
    words = WORDS | {"eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 2}
    both = {"vision_config": SMALL | {"hidden_act": "gelu"}, "text_config": words, "projection_dim": 8}
    yield "clip_with_words", lambda: T.CLIPModel(T.CLIPConfig(**both)), free, ()
    swin = {"image_size": 64, "embed_dim": 8, "depths": [2, 2, 2], "num_heads": [2, 1, 4], "window_size": 4}
    yield "swin", lambda: T.SwinModel(T.SwinConfig(**swin, mlp_ratio=2)), pooler, (128,)


def timm_networks() -> Iterator[tuple[str, dict[str, Any], tuple[int, ...]]]:
    """The name of each architecture, what makes it small, and the other sizes. Heads are as in the architecture."""
    for name, width in (
        ("vit_tiny_patch16_224", 24),
        ("vit_betwixt_patch16_reg4_gap_256", 40),
        ("vit_small_patch14_reg4_dinov2", 24),
        ("vit_base_patch16_siglip_224", 48),
        ("vit_base_patch16_clip_quickgelu_224", 24),
        ("deit_tiny_distilled_patch16_224", 24),
        ("deit3_small_patch16_224", 24),
        ("vit_small_patch16_dinov3", 48),
        ("vit_small_plus_patch16_dinov3", 48),
        ("eva02_tiny_patch14_224", 24),
        ("eva02_base_patch16_clip_224", 48),
    ):
        yield name, {"embed_dim": width, "depth": 2, "patch_size": 8, "img_size": SIZE_PX}, OTHERS_PX
    small = {"embed_dim": 64, "depth": 2, "num_kv_heads": (16, 8), "patch_size": 8, "img_size": SIZE_PX}
    yield "vit_large_patch16_sapiens2", small, ()
    small = {"embed_dim": 24, "depth": 2, "patch_size": 8, "img_size": SIZE_PX}
    yield "beit3_base_patch16_224", small, ()
    yield "test_vit3", small, ()
    small = {"embed_dim": 12, "depths": (2, 2, 1), "num_heads": (3, 6, 12), "window_size": 4, "img_size": 64}
    yield "swin_tiny_patch4_window7_224", small, (128,)


def told(
    model: Any, features: Features, sizes: Sequence[int], resize: Resize | None = None
) -> dict[str, Any]:
    """The last tokens at the first size, and the features at each.

    Each size has a copy of its own: Swin's windows and timm's positions stay as an earlier size left them.
    """
    found: dict[str, Any] = {"sizes": list(sizes)}
    with torch.inference_mode():
        for size_px in sizes:
            copied = deepcopy(model)
            if resize is not None and size_px != sizes[0]:
                resize(copied, size_px)
            tokens, last = features(copied, torch.from_numpy(random_pixels(size_px)))
            if size_px == sizes[0]:
                found["tokens"] = tokens[0].flatten(0, -2).numpy().copy()
            found[f"last{size_px}"] = last[0].numpy().copy()
    return found


def drawn(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    return {name: np.asarray(random_tensor(name, tuple(shape))) for name, shape in shapes.items()}


def transformers_case(make: Callable[[], Any], features: Features, others: tuple[int, ...]) -> dict[str, Any]:
    """By the names that tensors have in files, which are not always those that they have in the library."""
    model = make().eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads((Path(folder) / "config.json").read_text())
        weights = Path(folder) / "model.safetensors"
        shapes = {name: list(value.shape) for name, value in load_file(weights).items()}
        save_file(drawn(shapes), weights, {"format": "pt"})
        model, loaded = type(model).from_pretrained(folder, output_loading_info=True)
    assert not any(loaded.values()), loaded
    base = model.eval()
    if hasattr(model, "vision_model"):
        base = model.vision_model
    elif "ForImage" in type(model).__name__:
        base = getattr(model, model.base_model_prefix)
    size_px = getattr(base.config, "image_size", SIZE_PX)
    return {"config": config, "shapes": shapes} | told(base, features, (size_px, *others))


def timm_case(name: str, small: dict[str, Any], others: tuple[int, ...]) -> dict[str, Any]:
    model = timm.create_model(name, num_classes=3, **small).eval()
    with tempfile.TemporaryDirectory() as folder:
        save_config_for_hf(model, Path(folder) / "config.json")
        config = json.loads((Path(folder) / "config.json").read_text())
    config["pretrained_cfg"]["input_size"] = [3, small["img_size"], small["img_size"]]

    def features(model: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = model.forward_features(pixels)
        return tokens, model.forward_head(tokens, pre_logits=True)

    def resize(model: Any, size_px: int) -> None:
        more = {"window_size": small["window_size"]} if "window_size" in small else {}
        model.set_input_size(img_size=size_px, **more)

    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict({name: torch.from_numpy(value) for name, value in drawn(shapes).items()})
    sizes = (small["img_size"], *others)
    return {"config": config, "shapes": shapes} | told(model, features, sizes, resize)


def main() -> None:
    cases = {name: transformers_case(*how) for name, *how in transformers_networks()}
    cases |= {f"timm_{name}": timm_case(name, *how) for name, *how in timm_networks()}
    arrays: dict[str, Any] = {}
    for name, case in cases.items():
        for key in [key for key, value in case.items() if isinstance(value, np.ndarray)]:
            arrays[f"{name}/{key}"] = np.float32(case.pop(key))
        print(name, case["sizes"], flush=True)
    DATA.parent.mkdir(parents=True, exist_ok=True)
    text = np.frombuffer(json.dumps(cases).encode(), np.uint8)
    np.savez_compressed(DATA, cases=text, **arrays)
    print(f"{len(cases)} networks, {DATA.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
