"""The outputs of a prefix for every view of every image: computed once, stored on disk, read in any order."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topwork.data.dataset import Dataset
from topwork.errors import ImageError, InputError, TopworkError
from topwork.graphs import features as graphs
from topwork.graphs.cuts import ACTIVATION, EARLY
from topwork.images.augment import view
from topwork.images.decode import DECODER, decode
from topwork.images.framing import Framing
from topwork.parallel import core_count, stream
from topwork.recipe import AugmentRecipe, Precision

if TYPE_CHECKING:
    import openvino as ov

Array = np.ndarray[Any, Any]
ABOUT, DONE = "about.json", "done"
FORMAT = 1
SYNC_S = 5.0  # between two flushes to disk: the most work that a kill can lose
LARGEST = 65504.0  # the largest float16
SPARE_BYTES = 64_000_000  # left free on the disk


@dataclass(frozen=True, slots=True, eq=False)
class Activations:
    """Memory-mapped activations and early features of some images, in several views each."""

    activation: Array  # float16 (images, views, C, H, W)
    early: Array  # float32 (images, views, E)

    @property
    def views(self) -> int:
        return int(self.activation.shape[1])

    def batch(self, rows: Array, views: Array) -> tuple[Array, Array]:
        """Copies of view `views[i]` of image `rows[i]`: float16 (B, C, H, W) and float32 (B, E)."""
        return self.activation[rows, views], self.early[rows, views]


def store_activations(
    dataset: Dataset,
    prefix: ov.Model,
    *,
    size_px: int,
    fit: Framing,
    precision: Precision,
    recipe: AugmentRecipe,
    views: int,
    seed: int,
    folder: Path,
    budget_bytes: int,
    progress: Callable[[int], None],
) -> Activations:
    """Compute the outputs of `prefix` for all views of all images and store them in `folder`.

    Results from an earlier call with the same prefix, images and settings are reused: if the process is killed, the
    next call loses only a few seconds of work. All disk space is reserved before the work begins.

    Args:
        dataset: readable images.
        prefix: `image` uint8 (1, S, S, 3) → `activation` (1, …) and, if there are early features, `early` (1, E).
        size_px, fit, precision: as for the backbone.
        recipe: how views differ (`augment.view`).
        views: number of views per image; the first is the unchanged image.
        seed: of the random changes.
        folder: where to store the files.
        budget_bytes: the most disk space to use.
        progress: called with the number of newly finished images.

    Raises:
        InputError: the files would exceed the budget.
        TopworkError: the disk is full, an image can no longer be read, or a value overflows half precision.
    """
    shape = (len(dataset), views, *(int(n) for n in prefix.output(ACTIVATION).shape[1:]))
    early_outputs = [output for output in prefix.outputs if EARLY in output.names]
    width = int(early_outputs[0].shape[1]) if early_outputs else 0
    need = 2 * math.prod(shape) + 4 * shape[0] * views * width
    if need > budget_bytes:
        raise InputError(
            f"activations of {shape[0]} images in {views} views take {need / 1e9:.1f} GB; "
            f"{budget_bytes / 1e9:g} GB are allowed: use fewer views, a later cut, or allow more (finetune.disk_gb)"
        )
    about = {
        "format": FORMAT,
        "shape": list(shape),
        "early": width,
        "of": _digest(dataset, prefix, (size_px, fit.to_plain(), precision, DECODER, seed), recipe),
    }
    _prepare(
        folder,
        about,
        {"activations": 2 * math.prod(shape), "early": need - 2 * math.prod(shape), DONE: shape[0]},
    )
    activation = np.memmap(folder / "activations", np.float16, "r+", shape=shape)
    early = (
        np.memmap(folder / "early", np.float32, "r+", shape=(*shape[:2], width))
        if width
        else np.empty((*shape[:2], 0), np.float32)
    )
    done = np.memmap(folder / DONE, np.uint8, "r+", shape=shape[:1])
    missing = np.flatnonzero(done == 0)
    progress(len(dataset) - len(missing))
    look = _Worker(prefix, precision, activation, early)

    def work(row: int) -> int:
        example = dataset[row]
        try:
            data = example.image.read()
            pixels = decode(data, size_px, fit=fit)
        except (ImageError, OSError) as error:
            raise TopworkError(
                f"{example.image}: can no longer be read ({error}); repair it, or train again"
            ) from error
        key = int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
        for number in range(views):
            look(row, number, view(pixels, recipe, number, (seed, key)))
        return row

    waiting: list[int] = []
    since = time.monotonic()

    def mark() -> None:
        """Flush the data before the marks, so that every marked image is on disk."""
        activation.flush()
        if isinstance(early, np.memmap):
            early.flush()
        done[waiting] = 1
        done.flush()
        waiting.clear()

    with closing(stream(work, missing.tolist(), workers=core_count())) as results:
        for row in results:
            waiting.append(row)
            progress(1)
            if time.monotonic() - since > SYNC_S:
                mark()
                since = time.monotonic()
    mark()
    return Activations(activation, early)


class _Worker:
    """Runs the prefix on one picture and stores its outputs; callable from any thread."""

    def __init__(self, prefix: ov.Model, precision: Precision, activation: Array, early: Array) -> None:
        from topwork.graphs.compile import compile_model

        self._compiled = compile_model(prefix, precision, threads=core_count())
        self._local = threading.local()
        self._activation, self._early = activation, early

    def __call__(self, row: int, number: int, pixels: Array) -> None:
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        given = request.infer([pixels[None]], share_inputs=True)
        activation = given[ACTIVATION][0]
        if not np.abs(activation).max() <= LARGEST:
            raise TopworkError(
                "activations at this cut are not finite or too large for half precision: choose another cut, or "
                "tune the whole network (mode full)"
            )
        self._activation[row, number] = activation
        if self._early.shape[2]:
            self._early[row, number] = given[EARLY][0]


def _digest(dataset: Dataset, prefix: ov.Model, facts: tuple[Any, ...], recipe: AugmentRecipe) -> str:
    """Images are identified by their ids: their bytes were checked when the features were extracted."""
    ids = [example.id for example in dataset]
    plain = json.dumps([facts, asdict(recipe), ids, graphs.digest(prefix)])
    return hashlib.sha256(plain.encode()).hexdigest()


def _prepare(folder: Path, about: dict[str, Any], sizes: dict[str, int]) -> None:
    """Keep the files of an earlier call if it had the same `about`; otherwise create new files of these sizes."""
    try:
        same = json.loads((folder / ABOUT).read_text(encoding="utf-8")) == about
        if same and all((folder / name).stat().st_size == max(size, 1) for name, size in sizes.items()):
            return
    except (OSError, ValueError):
        pass
    need = sum(sizes.values())
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        free = shutil.disk_usage(folder).free
        if need + SPARE_BYTES > free:
            raise OSError(28, f"{need / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free")
        for name, size in sizes.items():
            with (folder / name).open("wb") as file:
                _take_space(file.fileno(), max(size, 1))
        (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise TopworkError(
            f"{folder}: no room for the activations ({error.strerror}): free some space, use fewer views or a later "
            "cut, or tune the whole network (mode full). The frozen classifier is unchanged"
        ) from error


def _take_space(file: int, size: int) -> None:
    """Allocate real blocks: with a sparse file, a full disk would show only as a crash while writing."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    block = bytes(1 << 20)
    for start in range(0, size, len(block)):
        os.write(file, block[: size - start])
