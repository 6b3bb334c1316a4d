"""Networks with random weights, as their libraries write them, and what the libraries make of four pictures.

    .venv-networks/bin/python -m benchmarks.parity.networks.stand_ins FOLDER [NAME[@legacy|@dynamo] …]

Each gets a folder with `config.json`, `model.safetensors` and what states its preprocessing, and `expected.npz`: the
pictures as the library preprocesses them, and its features. All parameters are random, norms and layer scales too, so
that a term which is left out shows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as T  # noqa: N812
from torch import nn

from benchmarks.parity.networks.pictures import PICTURES, as_timm, open_picture
from benchmarks.parity.networks.torchvision_stub import timm

SMALL = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 160}


def random_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter and running statistic drawn, of such sizes that activations neither vanish nor explode."""
    draw = torch.Generator().manual_seed(seed)
    norms = {id(p) for m in model.modules() if "norm" in type(m).__name__.lower() for p in m.parameters()}
    with torch.no_grad():
        for name, value in model.state_dict(keep_vars=True).items():  # what isn't saved isn't changed
            if not value.is_floating_point():
                continue
            noise = torch.randn(value.shape, generator=draw)
            last = name.rpartition(".")[2]
            if last == "running_var":
                new = 1 + noise.abs() / 2
            elif "bias_table" in name or "position" in name or "pos_embed" in name or "token" in name:
                new = noise / 2
            elif (id(value) in norms and last == "weight") or "gamma" in name or "lambda" in name:
                new = 1 + noise / 5
            elif value.ndim > 1:
                new = noise * (2 / max(1, value[0].numel())) ** 0.5
            elif last in ("running_mean", "bias") or value.ndim <= 1:
                new = noise / 10
            else:
                continue
            if "attn_mask" not in name and "relative_position_index" not in name:
                value.copy_(new)
    return model.eval()


def settled(model: nn.Module, pixels: torch.Tensor) -> nn.Module:
    """Batch norms with the statistics of pictures: else a deep network answers all pictures alike."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None
        module.train()
    with torch.no_grad():
        if norms:
            model(pixels)
    return model.eval()


def export(model: nn.Module, pixels: torch.Tensor, folder: Path, names: list[str], *, dynamo: bool) -> None:
    """`onnx/model.onnx`, as the hub's converters write it: all four axes free, and every output."""
    place = folder / "onnx" / "model.onnx"
    place.parent.mkdir(exist_ok=True)
    axes = dict(enumerate(("batch_size", "num_channels", "height", "width")))
    told: dict[str, Any] = {"dynamo": dynamo, "input_names": ["pixel_values"], "output_names": names}
    if not dynamo:
        told["dynamic_axes"] = {"pixel_values": axes} | {name: {0: "batch_size"} for name in names}
        told["opset_version"] = 17
    torch.onnx.export(model, (pixels[:1],), place, **told)


class Both(nn.Module):
    """A model of Transformers with two outputs, as the hub's ONNX files have them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.model(pixels)
        return out.last_hidden_state, out.pooler_output


Writer = Callable[..., dict[str, np.ndarray]]


def _hf(model: Any, processor: Any, **more: Any) -> Writer:
    def write(folder: Path, onnx: str = "") -> dict[str, np.ndarray]:
        made = random_weights(model())
        prepare = processor()
        prepare.save_pretrained(folder)
        pixels = torch.cat([prepare(open_picture(p), return_tensors="pt")["pixel_values"] for p in PICTURES])
        settled(made, pixels)
        if onnx:
            base = getattr(made, made.base_model_prefix) if "ForImage" in type(made).__name__ else made
            export(
                Both(base), pixels, folder, ["last_hidden_state", "pooler_output"], dynamo=onnx == "dynamo"
            )
            made.config.save_pretrained(folder)
        else:
            made.save_pretrained(folder)
        base = getattr(made, made.base_model_prefix) if "ForImage" in type(made).__name__ else made
        with torch.no_grad():
            out = base(pixels, **more)
        told = {name: out[name].numpy() for name in ("last_hidden_state", "pooler_output") if name in out}
        return {"pixels": pixels.numpy()} | told

    return write


def _timm(name: str, **more: Any) -> Writer:
    def write(folder: Path, onnx: str = "") -> dict[str, np.ndarray]:
        made = random_weights(timm.create_model(name, **more))
        pixels = torch.from_numpy(np.stack([as_timm(open_picture(p), made.pretrained_cfg) for p in PICTURES]))
        timm.models._hub.save_for_hf(settled(made, pixels), folder, safe_serialization=True)
        if onnx:
            (folder / "model.safetensors").unlink()
            export(made, pixels, folder, ["logits"], dynamo=onnx == "dynamo")
        with torch.no_grad():
            tokens = made.forward_features(pixels)
            last = made.forward_head(tokens, pre_logits=True)
        return {"pixels": pixels.numpy(), "last": last.numpy(), "tokens": tokens.numpy()}

    return write


class DinoV3Processor:
    """Transformers' own needs torchvision: the same settings by Pillow, saved under the name that the hub has."""

    def __init__(self) -> None:
        imagenet = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
        self._made = T.ViTImageProcessor(size={"height": 224, "width": 224}, resample=2, **imagenet)

    def __call__(self, image: Any, **told: Any) -> Any:
        return self._made(image, **told)

    def save_pretrained(self, folder: Path) -> None:
        self._made.save_pretrained(folder)
        place = folder / "preprocessor_config.json"
        told = json.loads(place.read_text()) | {"image_processor_type": "DINOv3ViTImageProcessorFast"}
        place.write_text(json.dumps(told))


STAND_INS: dict[str, Writer] = {
    "hf-vit": _hf(lambda: T.ViTModel(T.ViTConfig(**SMALL)), T.ViTImageProcessor),
    "hf-vit-384": _hf(
        lambda: T.ViTForImageClassification(T.ViTConfig(**SMALL, image_size=96, hidden_act="gelu_new")),
        lambda: T.ViTImageProcessor(size={"height": 96, "width": 96}, resample=3),
    ),
    "hf-deit": _hf(lambda: T.DeiTModel(T.DeiTConfig(**SMALL)), T.DeiTImageProcessor),
    "hf-dinov2": _hf(lambda: T.Dinov2Model(T.Dinov2Config(**SMALL, image_size=518)), T.BitImageProcessor),
    "hf-dinov2-giant": _hf(
        lambda: T.Dinov2Model(T.Dinov2Config(**SMALL, image_size=98, use_swiglu_ffn=True)), T.BitImageProcessor
    ),
    "hf-dinov2-registers": _hf(
        lambda: T.Dinov2WithRegistersModel(T.Dinov2WithRegistersConfig(**SMALL, image_size=518, patch_size=14)),
        T.BitImageProcessor,
    ),
    "hf-dinov3": _hf(
        lambda: T.DINOv3ViTModel(T.DINOv3ViTConfig(**SMALL, num_register_tokens=4)), DinoV3Processor
    ),
    "hf-dinov3-plus": _hf(
        lambda: T.DINOv3ViTModel(
            T.DINOv3ViTConfig(**SMALL, num_register_tokens=4, use_gated_mlp=True, hidden_act="silu")
        ),
        DinoV3Processor,
    ),
    "hf-siglip": _hf(lambda: T.SiglipVisionModel(T.SiglipVisionConfig(**SMALL)), T.SiglipImageProcessor),
    "hf-clip": _hf(lambda: T.CLIPVisionModel(T.CLIPVisionConfig(**SMALL, patch_size=16)), T.CLIPImageProcessor),
    "hf-swin": _hf(
        lambda: T.SwinModel(T.SwinConfig(embed_dim=24, depths=[2, 2, 2], num_heads=[2, 3, 6])), T.ViTImageProcessor
    ),
    "hf-convnext": _hf(
        lambda: T.ConvNextModel(T.ConvNextConfig(hidden_sizes=[16, 24, 32, 48], depths=[1, 2, 2, 1])),
        T.ConvNextImageProcessor,
    ),
    "hf-convnextv2": _hf(
        lambda: T.ConvNextV2Model(T.ConvNextV2Config(hidden_sizes=[16, 24, 32, 48], depths=[1, 2, 2, 1])),
        T.ConvNextImageProcessor,
    ),
    "hf-dinov3-convnext": _hf(
        lambda: T.DINOv3ConvNextModel(T.DINOv3ConvNextConfig(hidden_sizes=[16, 24, 32, 48], depths=[1, 2, 2, 1])),
        DinoV3Processor,
    ),
    "hf-resnet": _hf(
        lambda: T.ResNetModel(T.ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[1, 2])),
        T.ConvNextImageProcessor,
    ),
} | {
    f"timm-{name}": _timm(name)
    for name in (
        "vit_tiny_patch16_224", "vit_tiny_r_s16_p8_224", "vit_small_patch14_dinov2",
        "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3", "vit_base_patch16_siglip_224",
        "vit_base_patch32_clip_224", "deit3_small_patch16_224", "deit_tiny_distilled_patch16_224",
        "eva02_tiny_patch14_224", "eva02_tiny_patch14_336", "vit_wee_patch16_reg1_gap_256",
        "vit_betwixt_patch16_reg4_gap_256", "swin_tiny_patch4_window7_224", "swin_s3_tiny_224",
        "convnext_atto", "convnextv2_atto", "convnext_tiny", "resnet18", "resnet50", "resnext50_32x4d",
        "seresnet50", "resnet50d", "regnetx_002", "regnety_002", "efficientnet_b0", "efficientnetv2_rw_t",
        "tf_efficientnetv2_b0", "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100",
        "mobilenetv4_conv_small", "mobilenetv4_hybrid_medium", "efficientnet_lite0", "mnasnet_100",
        "lcnet_050",
    )
}  # fmt: skip


def main() -> None:
    place, *names = sys.argv[1:]
    for name in names or STAND_INS:
        folder = Path(place) / name
        if (folder / "expected.npz").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        try:
            base, _, how = name.partition("@")  # such as hf-vit@legacy: its ONNX by torch's older exporter
            expected = STAND_INS[base](folder, how)
        except Exception as error:  # the table says that this one could not be made
            print(f"{name}: {type(error).__name__}: {str(error)[:200]}", flush=True)
            continue
        np.savez(folder / "expected.npz", **expected)
        print(f"{name}: {', '.join(f'{k} {v.shape}' for k, v in expected.items())}", flush=True)


if __name__ == "__main__":
    main()
