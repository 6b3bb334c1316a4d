"""From a folder with `config.json` and `model.safetensors` to a graph of the network: `build_network`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topwork.backbones.weights.configs import MOST_PX, Plan, plan_of
from topwork.backbones.weights.network import Network, Weights
from topwork.backbones.weights.safetensors import Tensors, read_tensors
from topwork.errors import InputError
from topwork.recipe import Pool

CONFIG = "config.json"
MOST_CONFIG = 10_000_000  # bytes


def build_network(
    path: Path, *, size_px: int | None = None, pool: Pool = "auto", shown: str
) -> tuple[Network, int]:
    """The network whose weights are in `path` (a `.safetensors` file or its index), and the side of its input.

    Args:
        size_px: the side; None for the size it was trained at.
        pool: how a transformer's last tokens become features.

    Raises:
        InputError: a file is missing or damaged; a kind of network that isn't built here; tensors that don't fit it.
    """
    config = read_config(path.parent / CONFIG, shown=shown)
    plan = plan_of(config, shown=shown)
    tensors = _own(read_tensors(path), plan, shown)
    weights = Weights(tensors, shown=shown)
    size = size_px or plan.size_px or 224
    if size > MOST_PX:
        raise InputError(f"{shown}: it is made for pictures of {size} px; expected at most {MOST_PX}: --size")
    try:
        made = plan.build(weights, size, pool)
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:  # settings of the wrong kind
        raise InputError(
            f"{shown}: its {CONFIG} and its tensors don't make a {plan.family} network ({str(error)[:150]})"
        ) from error
    if left := weights.left():
        told = ", ".join(sorted(left)[:3])
        raise InputError(
            f"{shown}: {len(left)} of its tensors have no place in a {plan.family} network, such as {told}"
        )
    return made, size


def read_config(path: Path, *, shown: str) -> Mapping[str, Any]:
    """A `config.json`. Raises `InputError` where there is none or it isn't a table."""
    try:
        if path.stat().st_size > MOST_CONFIG:
            raise ValueError("too large")
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(
            f"{shown}: expected {CONFIG} beside the weights, which says what network they are"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON; it can't be read ({str(error)[:100]})") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected a table of settings; got {type(config).__name__}")
    return config


def _own(tensors: Tensors, plan: Plan, shown: str) -> Tensors:
    """The network's own tensors, without what stands before their names: a text tower's are left out."""
    for prefix in sorted(plan.names, key=len, reverse=True):
        own = tensors.below(prefix)
        if own:
            return own
    raise InputError(f"{shown}: expected tensors; it has none")
