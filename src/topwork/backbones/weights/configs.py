"""From a repository's `config.json` to a builder: by Transformers' settings, or the name of timm's architecture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from topwork.backbones.weights.layers import Activation
from topwork.backbones.weights.network import Network, Weights
from topwork.backbones.weights.positions import Rope
from topwork.backbones.weights.swin import Swin, build_swin
from topwork.backbones.weights.vit import Vit, build_vit
from topwork.errors import InputError, one_of
from topwork.recipe import Pool

Config = Mapping[str, Any]
TABLES = ("timm_transformers.tsv",)
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
    return int(size) if isinstance(size, (int, float)) and size > 0 else None


def _activation(config: Config) -> Activation:
    name = str(config.get("hidden_act", "gelu"))
    if name not in ACTIVATIONS:
        raise InputError(one_of(name, ACTIVATIONS, what="hidden_act in config.json"))
    return ACTIVATIONS[name]


def _vit(pool: Pool, *names: str, epsilon: float = 1e-6, **more: Any) -> Callable[[Config], Plan]:
    def plan(config: Config) -> Plan:
        heads = int(config.get("num_attention_heads", 12))
        rope = None
        if "rope_theta" in config:
            rope = Rope(int(config["hidden_size"]) // heads, float(config["rope_theta"]))
        vit = Vit(
            heads=heads,
            epsilon=float(config.get("layer_norm_eps", epsilon)),
            activation=_activation(config),
            pool=pool,
            rope=rope,
            gate=_activation(config) if config.get("use_gated_mlp") else "silu",
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
    swin = Swin(tuple(config["num_heads"]), float(config.get("layer_norm_eps", 1e-5)), _activation(config))
    return Plan(
        "swin",
        lambda weights, size, _: build_swin(swin, weights, size_px=size),
        _side(config) or 224,
        ("", "swin."),
    )


FAMILIES: dict[str, Callable[[Config], Plan]] = {
    "vit": _vit("cls", "vit.", epsilon=1e-12),
    "vit_msn": _vit("cls", "vit.", epsilon=1e-6),
    "ijepa": _vit("mean", "ijepa."),
    "deit": _vit("cls", "deit.", epsilon=1e-12),
    "dinov2": _vit("cls", "dinov2."),
    "dinov2_with_registers": _vit("cls", "dinov2_with_registers.", resampling="bicubic_antialiased"),
    "dinov3_vit": _vit("cls", "dinov3_vit.", epsilon=1e-5),
    "siglip": _vit("pooler", "vision_model."),
    "siglip2": _vit("pooler", "vision_model.", resampling="bilinear_antialiased"),
    "clip": _vit("cls", "vision_model.", epsilon=1e-5),
    "metaclip_2": _vit("cls", "vision_model.", epsilon=1e-5),
    "swin": _swin,
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
    size = told.get("input_size") if isinstance(told, Mapping) else None
    side = int(size[-1]) if isinstance(size, (list, tuple)) and len(size) == 3 else None
    facts = dict(facts)
    if family == "vit":
        rope = facts.pop("rope", None)
        pool = config.get("global_pool")
        facts["pool"] = {"token": "cls", "avg": "mean", "map": "pooler"}.get(str(pool), facts["pool"])

        def build_timm_vit(weights: Weights, size_px: int, chosen: Pool) -> Network:
            kernel = weights.shape("patch_embed.proj.weight")
            made = rope and Rope(kernel[0] // facts["heads"], **rope)
            vit = Vit(
                **({"activation": "gelu", "resampling": "bicubic_antialiased"} | facts),
                rope=made,
            )
            return build_vit(vit, weights, size_px=size_px, pool=chosen)

        return Plan(name, build_timm_vit, side or 224, ("", "timm_model."))
    if family == "swin":
        swin = Swin(tuple(facts["heads"]), facts["epsilon"], facts["activation"])
        return Plan(name, lambda weights, size_px, _: build_swin(swin, weights, size_px=size_px), side or 224)
    raise InputError(f"{shown}: {name} is not built here yet")
