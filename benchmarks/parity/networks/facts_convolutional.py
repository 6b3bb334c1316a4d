"""What a timm architecture's name says and its tensors don't: written to `timm_convolutional.tsv`.

    .venv-networks/bin/python -m benchmarks.parity.networks.facts_convolutional

Every convolutional network of the families below is made without weights and looked at. One that has a part that the
builders don't know is left out, and told with the part.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.parity.networks import torchvision_stub  # noqa: F401  (timm imports torchvision)

# isort: split
import timm
import torch
from torch import nn

TABLE = Path(__file__).parents[3] / "src/topwork/backbones/weights/timm_convolutional.tsv"
ACTIVATIONS = {
    "GELU": "gelu", "GELUTanh": "gelu_tanh", "SiLU": "silu", "ReLU": "relu", "ReLU6": "relu6",
    "Hardswish": "hard_swish",
}  # fmt: skip
GATES = {"Sigmoid": "sigmoid", "Hardsigmoid": "hard_sigmoid"}
DEFAULTS = {name: {"epsilon": 1e-5, "activation": "relu"} for name in ("ResNet", "RegNet")}
DEFAULTS["ConvNeXt"] = {"epsilon": 1e-6, "activation": "gelu"}
# What the builders read off the tensors alone, or which changes nothing; other modules are unknown.
KNOWN = {
    "Sequential", "Identity", "Dropout", "Flatten", "Linear", "Conv1d", "Conv2d", "Conv2dSame", "MixedConv2d",
    "ConvNormAct", "ConvMlp", "Mlp", "MaxPool2d", "AvgPool2d", "BlurPool2d", "SelectAdaptivePool2d",
    "AdaptiveAvgPool2d", "ClassifierHead", "NormMlpClassifierHead", "BatchNorm2d", "BatchNormAct2d",
    "GroupNorm", "GroupNormAct", "LayerNorm", "LayerNorm2d", "LayerNormAct2d", "SimpleNorm2d", "RmsNorm2d",
    "ConvNeXt", "ConvNeXtStage", "ConvNeXtBlock", "GlobalResponseNormMlp", "GlobalResponseNorm", "ResNet",
    "BasicBlock", "Bottleneck", "SEModule", "EcaModule", "RegNet", "RegStage", "PreBottleneck",
    "EfficientNet", "MobileNetV3", "InvertedResidual", "DepthwiseSeparableConv", "EdgeResidual", "ConvBnAct",
    "SqueezeExcite", "GlobalContext", "UniversalInvertedResidual", "MobileAttention", "MultiQueryAttention2d",
    "LayerScale2d", *ACTIVATIONS, *GATES,
}  # fmt: skip


class UnknownPart(Exception):
    pass


def one(found: set[Any], what: str) -> Any:
    """The only one there is."""
    if len(found) != 1:
        raise UnknownPart(f"{what} that differ: {sorted(map(str, found))}")
    return next(iter(found))


def activation(module: nn.Module) -> str:
    kind = type(module).__name__
    if kind == "GELU" and getattr(module, "approximate", "none") == "tanh":
        return "gelu_tanh"
    if kind not in ACTIVATIONS:
        raise UnknownPart(kind)
    return ACTIVATIONS[kind]


def activations(module: nn.Module) -> set[str]:
    return {ACTIVATIONS[type(m).__name__] for m in module.modules() if type(m).__name__ in ACTIVATIONS}


def norm(model: nn.Module, kinds: dict[str, str]) -> dict[str, Any]:
    """Kind and epsilon of all norms but those of gates, and but GRN."""
    apart = [m for m in model.modules() if type(m).__name__ in ("GlobalContext", "GlobalResponseNorm")]
    inside = {id(n) for m in apart for n in m.modules()}
    if {m.eps for m in apart if type(m).__name__ == "GlobalResponseNorm"} - {1e-6}:
        raise UnknownPart("an epsilon")
    found = [
        m for m in model.modules() if "Norm" in type(m).__name__ and hasattr(m, "eps") and id(m) not in inside
    ]
    told = {"norm": one({kinds.get(type(m).__name__, type(m).__name__) for m in found}, "norms")}
    if told["norm"] not in kinds.values():
        raise UnknownPart(told["norm"])
    told["epsilon"] = one({m.eps for m in found}, "epsilons")
    if told["norm"] == "group":
        counts, widths = {m.num_groups for m in found}, {m.num_channels // m.num_groups for m in found}
        told |= {"groups": counts.pop()} if len(counts) == 1 else {"group_width": one(widths, "groups")}
    if told["norm"] == next(iter(kinds.values())):
        del told["norm"]
    return told


BATCH = {"BatchNorm2d": "batch", "BatchNormAct2d": "batch", "GroupNorm": "group", "GroupNormAct": "group"}
BATCH |= {"LayerNormAct2d": "layer"}
PLACES = {"LayerNorm": "layer", "LayerNorm2d": "layer", "SimpleNorm2d": "simple", "RmsNorm2d": "rms"}


def convnext(model: Any) -> dict[str, Any]:
    told = {"depths": [len(stage.blocks) for stage in model.stages], **norm(model, PLACES)}
    blocks = [block for stage in model.stages for block in stage.blocks]
    if not all(isinstance(block.shortcut, nn.Identity) for block in blocks):
        raise UnknownPart("a shortcut")
    if getattr(model.head, "hidden_size", None):
        if activations(model.head.pre_logits) != {"gelu"}:
            raise UnknownPart("a head with another activation")
        told["hidden"] = True
    told["activation"] = one({activation(b.mlp.act) for b in blocks} | activations(model.stem), "activations")
    return told


def thin(model: nn.Module) -> dict[str, str]:
    """What makes less of a map in blocks that have a stride, if not the stride."""
    found = set()
    for name, m in model.named_modules():
        if type(m).__name__ == "BlurPool2d":
            if m.filt_size != 3 or m.stride != 2 or m.pad_mode not in ("reflect", "constant"):
                raise UnknownPart("a blur")
            found.add("blur" if m.pad_mode == "reflect" else "blur_zero")
        if type(m).__name__ == "AvgPool2d" and "downsample" not in name:
            sizes = [n if isinstance(n, int) else n[0] for n in (m.kernel_size, m.stride)]
            if sizes != [2, 2] or m.ceil_mode:
                raise UnknownPart("a pool")
            found.add("avg")
    return {"thin": one(found, "pools")} if found else {}


def resnet(model: Any) -> dict[str, Any]:
    stages = [model.layer1, model.layer2, model.layer3, model.layer4]
    for number, stage in enumerate(stages):
        for i, block in enumerate(stage):
            if block.stride != (2 if i == 0 and number else 1) or block.dilation != 1:
                raise UnknownPart("a stride")
            if block.se is not None and activations(block.se) - {"relu"}:
                raise UnknownPart("a gate")
    if isinstance(model.maxpool, nn.Sequential) and isinstance(model.maxpool[0], nn.Conv2d) and thin(model):
        raise UnknownPart("a stem that blurs")
    told = {"depths": [len(stage) for stage in stages], **norm(model, BATCH), **thin(model)}
    outside = [
        m for name, m in model.named_modules() if ".se." not in name and type(m).__name__ in ACTIVATIONS
    ]
    return told | {"activation": one({activation(m) for m in outside}, "activations")}


def regnet(model: Any) -> dict[str, Any]:
    stages = [model.s1, model.s2, model.s3, model.s4]
    blocks = [list(stage.children()) for stage in stages]
    for stage in blocks:
        for i, block in enumerate(stage):
            conv = getattr(block.conv2, "conv", block.conv2)
            if conv.stride[0] != (1 if i else 2) or conv.dilation[0] != 1:
                raise UnknownPart("a stride")
            kept = isinstance(block.downsample, nn.Identity)
            if kept and (i == 0 and block.conv3.out_channels != stage[0].conv1.in_channels):
                raise UnknownPart("a shortcut")
    told = {"depths": [len(stage) for stage in blocks], **norm(model, BATCH)}
    told["activation"] = one(activations(model), "activations")
    if type(blocks[0][0]).__name__ == "Bottleneck":
        linear = one({isinstance(b.act3, nn.Identity) for stage in blocks for b in stage}, "ends of blocks")
        told |= {"linear": True} if linear else {}
    return told


OUTPUTS = {
    "ConvBnAct": "conv", "DepthwiseSeparableConv": "conv_pw", "InvertedResidual": "conv_pwl",
    "EdgeResidual": "conv_pwl", "UniversalInvertedResidual": "pw_proj", "MobileAttention": "attn.output.proj",
}  # fmt: skip


def channels(block: nn.Module) -> tuple[int, int]:
    """How many come into a block, and how many go out."""
    first = next(m for m in block.modules() if hasattr(m, "in_channels") or hasattr(m, "num_features"))
    came = first.num_features if hasattr(first, "num_features") else first.in_channels
    return came, block.get_submodule(OUTPUTS[type(block).__name__]).out_channels


def stride_of(block: nn.Module, thins: bool) -> int:
    if getattr(block, "conv_s2d", None) is not None:
        return 1
    if type(block).__name__ == "MobileAttention":
        return 1
    found = max(m.stride[0] for m in block.modules() if isinstance(m, nn.Conv2d))
    pools = any(type(m).__name__ in ("AvgPool2d", "BlurPool2d") for m in block.modules())
    return 2 if thins and pools else found


def efficientnet(model: Any) -> dict[str, Any]:
    told = {"depths": [len(stage) for stage in model.blocks], **norm(model, BATCH), **thin(model)}
    strides, kinds, apart, ends, gates = "", [], [], set(), set()
    reduces = set()  # within a gate, and around it
    for number, stage in enumerate(model.blocks):
        steps = [stride_of(block, "thin" in told) for block in stage]
        if max(steps[1:], default=1) != 1:
            raise UnknownPart("a stride")
        strides += str(steps[0])
        of_stage = set()
        for i, block in enumerate(stage):
            se = getattr(block, "se", None)
            outside = activations(block)
            if se is not None and not isinstance(se, nn.Identity):
                inside = [m for n, m in block.named_modules() if not n.startswith("se.")]
                outside = {activation(m) for m in inside if type(m).__name__ in ACTIVATIONS}
                reduces.add((one(activations(se), "activations of a gate"), *outside))
                gates |= {GATES[type(m).__name__] for m in se.modules() if type(m).__name__ in GATES}
            of_stage |= outside
            came, went = channels(block)
            s2d = getattr(block, "conv_s2d", None) is not None
            activated = getattr(block, "has_pw_act", False)
            if hasattr(block, "has_pw_act"):
                ends.add(activated)
            rule = steps[i] == 1 and came == went and not s2d and not activated
            if rule and not block.has_skip:
                apart.append([number, i])
            elif rule != block.has_skip:
                raise UnknownPart("a shortcut")
            if type(block).__name__ == "MobileAttention" and (
                block.conv_cpe_dw is not None or block.attn.has_query_strides or block.attn.kv_stride > 2
            ):
                raise UnknownPart("attention of another kind")
        kinds.append(one(of_stage, "activations in a stage") if of_stage else "")
    whole = one(activations(model.bn1), "activations of the stem")
    head = (
        activations(model.bn2)
        if hasattr(model, "bn2")
        else activations(model.act2) | activations(model.norm_head)
    )
    if head - {whole}:
        raise UnknownPart("a head with another activation")
    told |= {"strides": strides, "activation": whole}
    kinds = [kind or whole for kind in kinds]
    if set(kinds) != {whole}:
        told["activations"] = kinds
    if type(model.conv_stem).__name__ == "Conv2dSame":
        told["same"] = True
    elif any(type(m).__name__ == "Conv2dSame" and m.kernel_size[0] % 2 for m in model.modules()):
        raise UnknownPart("a padding")
    if apart:
        told["no_skip"] = apart
    if ends and one(ends, "ends of blocks"):
        told["pointwise_activation"] = True
    if any(within != around for within, around in reduces):
        told["reduce"] = one({within for within, _ in reduces}, "activations of gates")
    if gates and (gate := one(gates, "gates")) != "sigmoid":
        told["gate"] = gate
    return told


MODULES = ("convnext", "resnet", "regnet", "efficientnet", "mobilenetv3")
FAMILIES = {"ConvNeXt": convnext, "ResNet": resnet, "RegNet": regnet}
FAMILIES |= {"EfficientNet": efficientnet, "MobileNetV3": efficientnet}


def facts(model: nn.Module) -> dict[str, Any]:
    """The facts of one architecture.

    Raises:
        UnknownPart: it has one that the builders don't know.
    """
    unknown = {type(m).__name__ for m in model.modules()} - KNOWN
    if unknown:
        raise UnknownPart(" ".join(sorted(unknown)))
    for m in model.modules():
        if type(m).__name__ == "SelectAdaptivePool2d" and m.pool_type != "avg":
            raise UnknownPart(f"pool {m.pool_type!r}")
        if type(m).__name__ in ("SEModule", "GlobalContext") and getattr(m, "add_maxpool", False):
            raise UnknownPart("a gate")
        if isinstance(m, nn.Conv2d) and m.dilation != (1, 1):
            raise UnknownPart("dilation")
    told = FAMILIES[type(model).__name__](model)
    common = DEFAULTS.get(type(model).__name__, {"epsilon": 1e-5})
    return {key: value for key, value in told.items() if common.get(key) != value}


def main() -> None:
    lines, left_out, counts = [], [], Counter()
    for name in (name for module in MODULES for name in timm.list_models(module=module)):
        with torch.device("meta"):
            model = timm.create_model(name)
        family = FAMILIES[type(model).__name__]
        try:
            told = facts(model)
        except UnknownPart as part:
            left_out.append(f"{name}: {part}")
            continue
        counts[family.__name__] += 1
        lines.append(f"{name}\t{family.__name__}\t{json.dumps(told, separators=(',', ':'))}")
    head = f"# timm {timm.__version__} (Apache-2.0), by benchmarks/parity/networks/facts_convolutional.py"
    TABLE.write_text("\n".join([head, "architecture\tfamily\tfacts", *lines]) + "\n", encoding="utf-8")
    print(f"{len(lines)} architectures {dict(counts)}; left out:")
    print("\n".join(f"  {line}" for line in left_out))


if __name__ == "__main__":
    main()
