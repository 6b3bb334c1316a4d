"""Small networks for the tests, and what timm and Transformers make of them: `tests/…/data/convolutional.npz`.

    .venv-networks/bin/python -m benchmarks.parity.networks.cases_convolutional

Of each network the file has the builder's name and its configuration, the names and shapes of the tensors, which both
sides draw at random by name, the features of a random picture, and the means of the activations that are its stages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.parity.networks import torchvision_stub  # noqa: F401  (timm imports torchvision)

# isort: split
import numpy as np
import torch
import transformers
from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.regnet import RegNet, RegNetCfg
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from benchmarks.parity.networks.facts_convolutional import FAMILIES, facts
from benchmarks.parity.networks.oracle_convolutional import features
from benchmarks.parity.networks.random_tensors import random_pixels, random_tensor

DATA = Path(__file__).parents[3] / "tests/backbones/weights/data/convolutional.npz"
SIZE_PX = 64
ODD_PX = 45
DEEP = {"stem_type": "deep_tiered", "stem_width": 8, "avg_down": True}
REGNET = RegNetCfg(depth=8, w0=8, wa=8, wm=2, group_size=4, stem_width=8)
INVERTED = [
    ["ds_r1_k3_s1_e1_c8_se0.25"],
    ["ir_r2_k3_s2_e3_c16_se0.25"],
    ["ir_r1_k5_s2_e3_c24"],
    ["cn_r2_k1_s1_c32"],
]
V2 = [["cn_r2_k3_s1_c8_skip"], ["er_r2_k3_s2_e4_c16"], ["ir_r2_k3_s2_e4_c24_se0.25"]]
MIXED = [["ir_r1_k3.5_a1.1_p1.1_s2_e4_c16_nre"], ["ir_r2_k3.5.7_p1.1_s2_e3_c24_se0.25_nsw"]]
V3 = [
    ["ds_r1_k3_s1_e1_c8_se0.25_nre"],
    ["ir_r2_k3_s2_e3_c16_nre"],
    ["ir_r1_k5_s2_e4_c24_se0.25"],
    ["cn_r1_k1_s1_c32"],
]
V4 = [
    ["cn_r1_k3_s2_e1_c8"],
    [
        "uir_r1_a3_k5_s2_e4_c16",
        "mqa_r1_k3_h2_s1_v2_d8_c16",
        "uir_r1_a3_k0_s1_e2_c16",
        "uir_r1_a0_k0_s1_e2_c16",
    ],
    ["uir_r1_a5_k0_s2_e3_c24", "mqa_r1_k3_h2_s1_d8_c24", "uir_r1_a0_k3_p3_s1_e2_c24"],
    ["cn_r1_k1_s1_c32"],
]
V1 = [["dsa_r1_k3_s1_c8"], ["dsa_r2_k3_s2_c16"]]


def resnet(block: type[nn.Module] = Bottleneck, **more: Any) -> ResNet:
    return ResNet(block, (1, 2, 1, 1), channels=(8, 8, 16, 16), num_classes=3, **more)


def convnext(**more: Any) -> ConvNeXt:
    return ConvNeXt(depths=(1, 2, 1, 1), dims=(8, 16, 16, 24), num_classes=3, ls_init_value=0.1, **more)


def efficient(kind: type[nn.Module], blocks: list[list[str]], **more: Any) -> nn.Module:
    return kind(decode_arch_def(blocks), num_classes=3, num_features=32, stem_size=8, **more)


def timm_networks() -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    yield "convnext", convnext
    yield "convnext_v2", partial(convnext, use_grn=True, conv_mlp=True, head_norm_first=True, norm_eps=1e-3)
    yield "convnext_tiered_mlp", partial(convnext, stem_type="overlap_tiered", head_hidden_size=16)
    yield "convnext_rms", partial(convnext, norm_layer="rmsnorm2d", conv_mlp=True, kernel_sizes=(7, 5, 5, 3))
    simple = {"norm_layer": "simplenorm", "stem_type": "overlap_act", "act_layer": "silu", "conv_bias": False}
    yield "convnext_simple", partial(convnext, conv_mlp=True, **simple)
    yield "resnet_basic", partial(resnet, BasicBlock)
    yield "resnet_deep_se", partial(resnet, block_args={"attn_layer": "se"}, **DEEP)
    yield (
        "resnext_eca",
        partial(resnet, cardinality=4, base_width=16, block_args={"attn_layer": "eca"}, **DEEP),
    )
    yield "resnet_blurred", partial(resnet, aa_layer=timm_layer("BlurPool2d"))
    yield "resnet_averaged", partial(resnet, BasicBlock, aa_layer=nn.AvgPool2d)
    yield "resnet_rs", partial(resnet, replace_stem_pool=True, down_kernel_size=3, act_layer=nn.SiLU)
    yield "resnet_group_norm", partial(resnet, norm_layer=partial(timm_layer("GroupNorm"), num_groups=4))
    yield "regnet_y", partial(RegNet, REGNET, num_classes=3, se_ratio=0.25)
    yield "regnet_v", partial(RegNet, REGNET, num_classes=3, preact=True, downsample="avg", act_layer="silu")
    z = {"bottle_ratio": 2.0, "linear_out": True, "downsample": None, "num_features": 40, "act_layer": "silu"}
    yield "regnet_z", partial(RegNet, REGNET, num_classes=3, **z)
    yield "efficientnet", partial(efficient, EfficientNet, INVERTED, act_layer=nn.SiLU)
    tf = {"pad_type": "same", "act_layer": nn.ReLU6, "norm_layer": partial(nn.BatchNorm2d, eps=1e-3)}
    yield "efficientnet_tf", partial(efficient, EfficientNet, INVERTED, **tf)
    yield "efficientnet_v2", partial(efficient, EfficientNet, V2, act_layer=nn.SiLU)
    yield "efficientnet_blurred", partial(efficient, EfficientNet, V2, act_layer=nn.SiLU, aa_layer="blurpc")
    yield (
        "efficientnet_layer_norm",
        partial(
            efficient, EfficientNet, INVERTED, act_layer=nn.SiLU, norm_layer=timm_layer("LayerNormAct2d")
        ),
    )
    yield "mixnet", partial(efficient, EfficientNet, MIXED)
    yield "mobilenet_v1", partial(efficient, EfficientNet, V1, act_layer=nn.ReLU6)
    gate = partial(SqueezeExcite, gate_layer="hard_sigmoid", force_act_layer=nn.ReLU)
    yield "mobilenet_v3", partial(efficient, MobileNetV3, V3, act_layer=nn.Hardswish, se_layer=gate)
    hybrid = {"head_norm": True, "layer_scale_init_value": 0.1}
    yield "mobilenet_v4", partial(efficient, MobileNetV3, V4, act_layer=nn.ReLU, **hybrid)
    yield "mobilenet_v4_averaged", partial(efficient, MobileNetV3, V4, aa_layer="avg", **hybrid)


SMALL = {"depths": [1, 2], "hidden_sizes": [8, 16], "embedding_size": 8}
EFFICIENTNET = {
    "width_coefficient": 0.25, "depth_coefficient": 0.5, "hidden_dim": 320, "strides": [1, 2, 2, 1, 1, 1, 1],
    "num_block_repeats": [1, 2, 4, 1, 1, 1, 1], "kernel_sizes": [3, 3, 5, 3, 3, 3, 3], "depthwise_padding": [1],
}  # fmt: skip
TRANSFORMERS: list[tuple[str, str, dict[str, Any]]] = [
    ("build_convnext", "ConvNext", {"depths": [1, 2], "hidden_sizes": [8, 16], "num_stages": 2}),
    ("build_convnext", "ConvNextV2", {"depths": [1, 2], "hidden_sizes": [8, 16], "num_stages": 2}),
    ("build_dinov3_convnext", "DINOv3ConvNext", {"depths": [1, 2], "hidden_sizes": [8, 16]}),
    ("build_resnet", "ResNet", SMALL | {"layer_type": "basic", "hidden_act": "silu"}),
    ("build_resnet", "ResNet", SMALL | {"downsample_in_bottleneck": True, "downsample_in_first_stage": True}),
    ("build_regnet", "RegNet", SMALL | {"groups_width": 4, "hidden_act": "silu"}),
    ("build_regnet", "RegNet", SMALL | {"groups_width": 4, "layer_type": "x"}),
    ("build_efficientnet", "EfficientNet", EFFICIENTNET),
    ("build_mobilenet_v1", "MobileNetV1", {"depth_multiplier": 0.125, "min_depth": 4}),
    ("build_mobilenet_v2", "MobileNetV2", {"depth_multiplier": 0.125, "first_layer_is_expansion": False}),
]


def timm_layer(name: str) -> Any:
    import timm.layers

    return getattr(timm.layers, name)


def after_depthwise(model: nn.Module) -> list[nn.Module]:
    """The modules whose outputs are the stages, in order, of the architectures with depthwise convolutions."""
    names = {
        "ConvNeXtBlock": "mlp.act", "DepthwiseSeparableConv": "bn1", "InvertedResidual": "bn2",
        "UniversalInvertedResidual": "dw_mid.bn",
    }  # fmt: skip
    found = []
    for block in model.modules():
        name = names.get(type(block).__name__)
        if name and not (name == "dw_mid.bn" and isinstance(block.dw_mid, nn.Identity)):
            found.append(block.get_submodule(name))
    return found


def case(model: nn.Module, library: str, size_px: int, config: dict[str, Any]) -> dict[str, Any]:
    model = model.eval()
    shapes = {name: list(t.shape) for name, t in model.state_dict().items()}
    model.load_state_dict(
        {name: torch.from_numpy(random_tensor(name, tuple(s))) for name, s in shapes.items()}
    )
    stages: list[list[float]] = []

    def keep(module: nn.Module, given: Any, made: torch.Tensor) -> None:
        channels_last = isinstance(model, ConvNeXt) and not model.stages[0].blocks[0].use_conv_mlp
        means = made.relu().mean((1, 2) if channels_last else (2, 3))
        stages.append(np.float32(means.numpy()[0]).tolist())

    for module in after_depthwise(model):
        module.register_forward_hook(keep)
    with torch.inference_mode():
        last = features(model, library, torch.from_numpy(random_pixels(size_px)))
    return {
        "config": config,
        "size_px": size_px,
        "shapes": shapes,
        "last": last[0].tolist(),
        "stages": stages,
    }


def main() -> None:
    cases: dict[str, dict[str, Any]] = {}
    for i, (name, make) in enumerate(timm_networks()):
        model = make()
        family = FAMILIES[type(model).__name__].__name__
        size_px = ODD_PX if i % 2 and "averaged" not in name else SIZE_PX
        told = case(model, "timm", size_px, facts(model))
        cases[name] = {"build": f"build_timm_{family}"} | told
    for i, (build, name, config) in enumerate(TRANSFORMERS):
        model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**config))
        told = case(model, "transformers", (SIZE_PX, ODD_PX)[i % 2], config)
        cases[f"transformers_{name}_{i}"] = {"build": build} | told
    arrays: dict[str, Any] = {}
    for name, told in cases.items():
        arrays[f"{name}/last"] = np.float32(told.pop("last"))
        for i, stage in enumerate(told.pop("stages"), 1):
            arrays[f"{name}/stage{i}"] = np.float32(stage)
    DATA.parent.mkdir(parents=True, exist_ok=True)
    text = np.frombuffer(json.dumps(cases).encode(), np.uint8)
    np.savez_compressed(DATA, cases=text, **arrays)
    print(f"{len(cases)} networks, {DATA.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
