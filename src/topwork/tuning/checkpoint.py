"""The state of a tuning, saved after each epoch: a run that was killed resumes from the last one."""

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
    """The metrics of one epoch."""

    epoch: int
    loss: float  # mean training loss, with label smoothing
    held_loss: float  # on the validation images
    held_accuracy: float
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Everything that the next epoch depends on."""

    epochs: int  # planned in all
    step: int
    weights: Sequence[Array]
    average: Sequence[Array]  # moving average of the weights
    optimizer: Sequence[Array]
    best: Sequence[Array]  # the averaged weights of the epoch with the lowest validation loss
    history: tuple[Epoch, ...]


def save_state(state: State, path: Path, *, digest: str) -> None:
    """Write `state` atomically.

    Args:
        state: what to save.
        path: an `.npz` file.
        digest: of the tuning's data and settings; `load_state` compares it.

    Raises:
        TopworkError: the disk is full or not writable.
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
            f"{path}: can't be written ({error.strerror}); free some space, then continue with --resume. The "
            "existing classifier is unchanged"
        ) from error


def load_state(path: Path, *, digest: str) -> State | None:
    """The last saved state; None if there is none, it is damaged, or it has other data or settings."""
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
