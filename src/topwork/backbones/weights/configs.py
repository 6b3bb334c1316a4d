"""From a repository's `config.json` to a builder: by Transformers' settings, or the name of timm's architecture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from topwork.backbones.json_values import Reader
from topwork.backbones.weights.families.convnext import (
    build_convnext,
    build_dinov3_convnext,
    build_timm_convnext,
)
from topwork.backbones.weights.families.efficientnet import build_timm_efficientnet
from topwork.backbones.weights.families.mobilenet import (
    build_efficientnet,
    build_mobilenet_v1,
    build_mobilenet_v2,
)
from topwork.backbones.weights.families.positions import Rope
from topwork.backbones.weights.families.regnet import build_regnet, build_timm_regnet
from topwork.backbones.weights.families.resnet import build_resnet, build_timm_resnet
from topwork.backbones.weights.families.swin import Swin, build_swin
from topwork.backbones.weights.families.vit import Vit, build_vit
from topwork.backbones.weights.layers import Activation
from topwork.backbones.weights.network import Config, Network, Weights
from topwork.errors import InputError, one_of
from topwork.recipe import Pool

CONFIG = "config.json"
MOST_PX, MOST_HEADS = 2048, 1024
TABLES = ("timm_transformers.tsv", "timm_convolutional.tsv")
ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
# Where a model's own settings lie in a config of several, by its type.
NESTED = {
    "clip": "vision_config",
    "siglip": "vision_config",
    "siglip2": "vision_config",
    "metaclip_2": "vision_config",
}


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How a network is built. `names`: what may stand before its tensors' names; `size_px`: it was trained at."""

    family: str
    build: Callable[[Weights, int, Pool], Network]
    size_px: int | None
    names: tuple[str, ...] = ("",)


def plan_of(config: Config, *, shown: str) -> Plan:
    """The plan for a `config.json`.

    Raises:
        InputError: a network of a kind that isn't built here, or a setting that is missing.
    """
    if isinstance(config.get("architecture"), str) or "pretrained_cfg" in config:
        return _timm(config, shown)
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise InputError(
            f"{shown}: expected a model_type (Transformers) or an architecture (timm) in config.json"
        )
    if kind in NESTED and isinstance(config.get(NESTED[kind]), Mapping):
        config = {"model_type": kind} | dict(config[NESTED[kind]]) | {"model_type": kind}
    family = kind.removesuffix("_vision_model").removesuffix("_vision")
    if family not in FAMILIES:
        raise InputError(
            f"{shown}: {one_of(family, FAMILIES, what='kind of network')}; take its ONNX file instead"
        )
    try:
        return FAMILIES[family](config)
    except KeyError as missing:
        raise InputError(
            f"{shown}: expected {missing} in its config.json, as a {family} network has"
        ) from None


def _side(config: Config) -> int | None:
    size = config.get("image_size")
    if isinstance(size, (list, tuple)) and size:
        size = size[0]
    return int(Reader({"image_size": size}, CONFIG).number("image_size", 0, within=(1, MOST_PX))) or None


def _activation(config: Config, usual: str = "gelu") -> Activation:
    name = Reader(config, CONFIG).text("hidden_act", usual)
    if name not in ACTIVATIONS:
        raise InputError(one_of(name, ACTIVATIONS, what="hidden_act in config.json"))
    return ACTIVATIONS[name]


def _vit(
    pool: Pool,
    *names: str,
    epsilon: float = 1e-6,
    heads: int = 12,
    activation: str = "gelu",
    theta: float | None = None,
    **more: Any,
) -> Callable[[Config], Plan]:
    """The plan of a transformer; what `config.json` doesn't state is as usual in Transformers for its kind.

    Args:
        theta: of its rotary positions; None if it has none.
    """

    def plan(config: Config) -> Plan:
        read, rope = Reader(config, CONFIG), None
        count = int(read.number("num_attention_heads", heads, within=(1, MOST_HEADS)))
        if theta is not None:
            width = int(read.number("hidden_size", 64 * heads, within=(1, 1e6)))
            rope = Rope(width // count, read.number("rope_theta", theta, within=(1e-3, 1e9)))
        used = _activation(config, activation)
        vit = Vit(
            heads=count,
            epsilon=read.number("layer_norm_eps", epsilon, within=(0, 1)),
            activation=used,
            pool=pool,
            rope=rope,
            depth=int(read.number("num_hidden_layers", 0, within=(0, 1000))),
            gate=used if read.flag("use_gated_mlp", False) else "silu",
            **more,
        )
        return Plan(
            str(config["model_type"]),
            lambda weights, size, chosen: build_vit(vit, weights, size_px=size, pool=chosen),
            _side(config) or 224,
            ("", *names),
        )

    return plan


def _swin(config: Config) -> Plan:
    read, heads = Reader(config, CONFIG), config.get("num_heads", [3, 6, 12, 24])
    if not isinstance(heads, list) or not all(type(n) is int and 1 <= n <= MOST_HEADS for n in heads):
        raise read.wrong("num_heads", "how many heads each stage has", heads)
    swin = Swin(tuple(heads), read.number("layer_norm_eps", 1e-5, within=(0, 1)), _activation(config))
    return _plan(
        "swin", lambda weights, size: build_swin(swin, weights, size_px=size), _side(config), "swin."
    )


def _convolutional(build: Callable[..., Network], *names: str) -> Callable[[Config], Plan]:
    def plan(config: Config) -> Plan:
        kind = str(config["model_type"])
        return _plan(kind, lambda weights, size: build(config, weights, size_px=size), _side(config), *names)

    return plan


def _plan(family: str, build: Callable[[Weights, int], Network], size_px: int | None, *names: str) -> Plan:
    """The plan of a network without tokens: it can't be pooled in another way than its own."""

    def checked(weights: Weights, size: int, pool: Pool) -> Network:
        if pool not in ("auto", "mean"):
            raise InputError(
                f"{weights.shown}: a {family} network has no class token or pooler; leave --pool out"
            )
        return build(weights, size)

    return Plan(family, checked, size_px or 224, ("", *names))


FAMILIES: dict[str, Callable[[Config], Plan]] = {
    "vit": _vit("cls", "vit.", epsilon=1e-12),
    "vit_msn": _vit("cls", "vit.", epsilon=1e-6),
    "ijepa": _vit("mean", "ijepa.", epsilon=1e-12),
    "deit": _vit("cls", "deit.", epsilon=1e-12),
    "dinov2": _vit("cls", "dinov2."),
    "dinov2_with_registers": _vit("cls", "dinov2_with_registers.", resampling="bicubic_antialiased"),
    "dinov3_vit": _vit("cls", "dinov3_vit.", epsilon=1e-5, heads=6, theta=100.0),
    "siglip": _vit("pooler", "vision_model.", activation="gelu_pytorch_tanh"),
    "siglip2": _vit(
        "pooler", "vision_model.", activation="gelu_pytorch_tanh", resampling="bilinear_antialiased"
    ),
    "clip": _vit("cls", "vision_model.", epsilon=1e-5, activation="quick_gelu"),
    "metaclip_2": _vit("cls", "vision_model.", epsilon=1e-5, activation="quick_gelu"),
    "swin": _swin,
    "convnext": _convolutional(build_convnext, "convnext."),
    "convnextv2": _convolutional(build_convnext, "convnextv2."),
    "dinov3_convnext": _convolutional(build_dinov3_convnext, "dinov3_convnext."),
    "resnet": _convolutional(build_resnet, "resnet."),
    "regnet": _convolutional(build_regnet, "regnet."),
    "efficientnet": _convolutional(build_efficientnet, "efficientnet."),
    "mobilenet_v1": _convolutional(build_mobilenet_v1, "mobilenet_v1."),
    "mobilenet_v2": _convolutional(build_mobilenet_v2, "mobilenet_v2."),
}
TIMM_BUILDERS: dict[str, Callable[..., Network]] = {
    "convnext": build_timm_convnext,
    "resnet": build_timm_resnet,
    "regnet": build_timm_regnet,
    "efficientnet": build_timm_efficientnet,
}


@cache
def timm_facts() -> dict[str, tuple[str, Config]]:
    """timm's architectures: each one's family and facts (`benchmarks/parity/networks` makes the tables)."""
    known: dict[str, tuple[str, Config]] = {}
    for table in TABLES:
        place = files("topwork.backbones.weights") / table
        for line in place.read_text(encoding="utf-8").splitlines()[2:]:
            name, family, facts = line.split("\t")
            known[name] = (family, json.loads(facts))
    return known


def _timm(config: Config, shown: str) -> Plan:
    name = str(config.get("architecture", "")).split(".")[0]
    if name not in timm_facts():
        near = one_of(name, timm_facts(), what="architecture of timm").split(" Known:")[0]
        raise InputError(f"{shown}: {near} Its ONNX file can be read, if there is one")
    family, facts = timm_facts()[name]
    told = config.get("pretrained_cfg")
    stated = Reader(told, CONFIG).sides("input_size", 3) if isinstance(told, Mapping) else None
    side = stated[-1] if stated else None
    facts = dict(facts)
    if family == "vit":
        rope = facts.pop("rope", None)
        pool = config.get("global_pool")
        facts["pool"] = {"token": "cls", "avg": "mean", "map": "pooler"}.get(str(pool), facts["pool"])

        def build_timm_vit(weights: Weights, size_px: int, chosen: Pool) -> Network:
            kernel = weights.shape("patch_embed.proj.weight")
            made = rope and Rope(next(iter(kernel), 0) // facts["heads"], **rope)
            vit = Vit(
                **({"activation": "gelu", "resampling": "bicubic_antialiased"} | facts),
                rope=made,
            )
            return build_vit(vit, weights, size_px=size_px, pool=chosen)

        return Plan(name, build_timm_vit, side or 224, ("", "timm_model."))
    if family == "swin":
        swin = Swin(tuple(facts["heads"]), facts["epsilon"], facts["activation"])
        return _plan(
            name, lambda weights, size_px: build_swin(swin, weights, size_px=size_px), side, "timm_model."
        )
    build = TIMM_BUILDERS[family]
    return _plan(name, lambda weights, size_px: build(facts, weights, size_px=size_px), side, "timm_model.")
