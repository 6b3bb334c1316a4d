"""What a tuning has come to, on disk after each epoch: killed at any moment, it goes on from the last one."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topwork.errors import TopworkError

Array = np.ndarray[Any, Any]
CHECKPOINT = "checkpoint.npz"
GROUPS = ("weights", "average", "optimizer", "best")


@dataclass(frozen=True, slots=True)
class Epoch:
    """How one epoch went. `loss`: of the steps, with what they add to it; `held_*`: on validation images."""

    epoch: int
    loss: float
    held_loss: float
    held_accuracy: float
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """All that the next epoch depends on. `best`: the averaged weights of the epoch of least validation loss."""

    epochs: int
    step: int
    weights: Sequence[Array]
    average: Sequence[Array]
    optimizer: Sequence[Array]
    best: Sequence[Array]
    history: tuple[Epoch, ...]


def save_state(state: State, path: Path, *, digest: str) -> None:
    """Write it beside `path` and put it in its place when whole.

    Args:
        state: what to keep.
        path: an `.npz`.
        digest: of all that the tuning was begun with; `load_state` asks for it again.

    Raises:
        TopworkError: the disk is full, or can't be written.
    """
    arrays = {f"{group}.{i}": array for group in GROUPS for i, array in enumerate(getattr(state, group))}
    facts = {
        "digest": digest,
        "epochs": state.epochs,
        "step": state.step,
        "history": [asdict(epoch) for epoch in state.history],
    }
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise TopworkError(
            f"{path}: can't be written ({error.strerror}); free some space, then go on with --resume. The "
            "classifier that was there is as it was"
        ) from error


def load_state(path: Path, *, digest: str) -> State | None:
    """What `save_state` wrote last; None where there is nothing, or it was begun with other data or settings."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            facts: Mapping[str, Any] = json.loads(file["facts"].tobytes())
            if facts["digest"] != digest:
                return None
            groups = {
                group: [file[f"{group}.{i}"] for i in range(_count(file.files, group))] for group in GROUPS
            }
    except FileNotFoundError:
        return None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, EOFError):
        return None  # damaged
    history = tuple(Epoch(**epoch) for epoch in facts["history"])
    return State(epochs=facts["epochs"], step=facts["step"], history=history, **groups)


def _count(names: Sequence[str], group: str) -> int:
    return sum(name.startswith(f"{group}.") for name in names)
