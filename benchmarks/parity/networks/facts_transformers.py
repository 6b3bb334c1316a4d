"""What a timm architecture's name says and its tensors don't: written to `timm_transformers.tsv`.

    .venv-networks/bin/python -m benchmarks.parity.networks.facts_transformers

Every vision transformer of timm is made without weights and looked at. One that has a part that the builders don't
know is left out, and told with the part.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.parity.networks.torchvision_stub import timm

TABLE = Path(__file__).parents[3] / "src/topwork/backbones/weights/timm_transformers.tsv"
ACTIVATIONS = {
    "GELU": "gelu",
    "GELUTanh": "gelu_tanh",
    "QuickGELU": "quick_gelu",
    "SiLU": "silu",
    "ReLU": "relu",
}
MODULES = ("vision_transformer", "deit", "eva", "swin_transformer")
POOLS = {"token": "cls", "avg": "mean", "map": "pooler"}


class UnknownPart(Exception):
    pass


def activation(module: nn.Module) -> str:
    kind = type(module).__name__
    if kind == "GELU" and getattr(module, "approximate", "none") == "tanh":
        return "gelu_tanh"
    if kind not in ACTIVATIONS:
        raise UnknownPart(kind)
    return ACTIVATIONS[kind]


def norm(module: nn.Module) -> dict[str, Any]:
    kind = type(module).__name__
    if kind in ("RmsNorm", "RMSNorm"):
        return {"rms": True, "epsilon": module.eps}
    if kind not in ("LayerNorm", "LayerNormFp32"):
        raise UnknownPart(kind)
    return {"epsilon": module.eps}


def vit(model: Any) -> dict[str, Any]:
    block = model.blocks[0]
    kinds = {type(b).__name__ for b in model.blocks}
    if kinds not in ({"Block"}, {"EvaBlock"}):
        raise UnknownPart(" ".join(sorted(kinds)))
    patch = model.patch_embed
    if type(patch).__name__ != "PatchEmbed" or not isinstance(patch.norm, nn.Identity):
        raise UnknownPart(type(patch).__name__ + " with a norm" * (not isinstance(patch.norm, nn.Identity)))
    kind = type(block.attn).__name__
    if kind not in ("Attention", "EvaAttention", "AttentionRope"):
        raise UnknownPart(kind)
    if getattr(block.attn, "gate", None) is not None:
        raise UnknownPart("gated attention")
    heads = {b.attn.num_heads for b in model.blocks}
    if len(heads) > 1 or getattr(block.attn, "num_kv_heads", block.attn.num_heads) != block.attn.num_heads:
        raise UnknownPart("heads that differ")
    norms = [b.norm1 for b in model.blocks] + [b.norm2 for b in model.blocks]
    norms += [n for n in (model.norm, model.fc_norm, model.norm_pre) if not isinstance(n, nn.Identity)]
    facts = {json.dumps(norm(n)) for n in norms}
    if len(facts) > 1:
        raise UnknownPart("norms that differ")
    if model.global_pool not in POOLS:
        raise UnknownPart(f"pool {model.global_pool!r}")
    told: dict[str, Any] = {"heads": heads.pop()} | json.loads(facts.pop())
    mlp = block.mlp
    gated = type(mlp).__name__ in ("SwiGLU", "GluMlp")
    if type(mlp).__name__ not in ("Mlp", "SwiGLU", "GluMlp") or (gated and getattr(mlp, "gate_last", False)):
        raise UnknownPart(type(mlp).__name__)
    told["gate" if gated else "activation"] = activation(mlp.act)
    told["pool"] = POOLS[model.global_pool]
    if type(model).__name__ == "VisionTransformerDistilled":
        told["distilled"] = True
    if getattr(model, "pool_include_prefix", False):
        told["prefix_in_mean"] = True
    pool = model.attn_pool if getattr(model, "attn_pool", None) is not None else None
    if pool is not None:
        if type(pool).__name__ != "AttentionPoolLatent" or pool.pos_embed is not None or pool.mlp is None:
            raise UnknownPart("attention pooling")
        if pool.num_heads != told["heads"] or pool.pool != "token" or pool.latent_len != 1:
            raise UnknownPart("attention pooling")
        if activation(pool.mlp.act) != told.get("activation", "gelu"):
            raise UnknownPart("attention pooling with another activation")
        if type(model).__name__ == "Eva":
            told["prefix_in_mean"] = True  # it attends to all tokens
        elif getattr(model, "pool_include_prefix", False):
            told["prefix_in_mean"] = True
    rope = getattr(model, "rope", None)
    if rope is not None:
        kind = type(rope).__name__
        if kind not in ("RotaryEmbeddingDinoV3", "RotaryEmbeddingCat"):
            raise UnknownPart(kind)
        centred = kind == "RotaryEmbeddingDinoV3"
        if centred and (rope.normalize_coords != "separate" or rope.temperature is None):
            raise UnknownPart("rotary positions of another kind")
        if not centred and (rope.in_pixels or rope.linear_bands):
            raise UnknownPart("rotary positions in pixels")
        told["rope"] = {
            "temperature": rope.temperature,
            "centred": centred,
            "halves": bool(block.attn.rotate_half),
            "offset": rope.grid_offset - (0.5 if centred else 0),
            "reference": (getattr(rope, "ref_feat_shape", None) or [0])[0],
            "columns_first": rope.grid_indexing == "xy",
        }
        if centred:
            told["rope"]["offset"] = rope.grid_offset
    return told


def swin(model: Any) -> dict[str, Any]:
    stages = model.layers
    block = stages[0].blocks[0]
    kinds = {type(b).__name__ for s in stages for b in s.blocks}
    if kinds != {"SwinTransformerBlock"} or hasattr(block.attn, "logit_scale"):
        raise UnknownPart(" ".join(sorted(kinds)))
    if model.global_pool != "avg" if hasattr(model, "global_pool") else False:
        raise UnknownPart("pool")
    return {
        "heads": [s.blocks[0].attn.num_heads for s in stages],
        "window": block.target_window_size[0]
        if hasattr(block, "target_window_size")
        else block.window_size[0],
        "activation": activation(block.mlp.act),
        "epsilon": block.norm1.eps,
    }


FAMILIES = {"VisionTransformer": vit, "VisionTransformerDistilled": vit, "Eva": vit, "SwinTransformer": swin}


def main() -> None:
    lines, left_out = [], Counter()
    names = sorted({name for module in MODULES for name in timm.list_models(module=module)})
    for name in names:
        with torch.device("meta"):
            try:
                model = timm.create_model(name)
            except Exception:
                continue
        family = FAMILIES.get(type(model).__name__)
        if family is None:
            continue
        try:
            told = family(model)
        except UnknownPart as part:
            left_out[f"{type(model).__name__}: {part}"] += 1
            continue
        except AttributeError as error:
            left_out[f"{type(model).__name__}: {error}"] += 1
            continue
        kind = "swin" if family is swin else "vit"
        lines.append(f"{name}\t{kind}\t{json.dumps(told, separators=(',', ':'))}")
    head = f"# timm {timm.__version__} (Apache-2.0), by benchmarks/parity/networks/facts_transformers.py"
    TABLE.write_text("\n".join([head, "architecture\tfamily\tfacts", *lines]) + "\n", encoding="utf-8")
    print(f"{len(lines)} architectures; left out:")
    for part, count in left_out.most_common():
        print(f"  {count}  {part}")


if __name__ == "__main__":
    main()
