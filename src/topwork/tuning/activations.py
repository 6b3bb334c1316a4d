"""What a prefix gives for each image and each of its views, on disk: computed once, then read at random."""

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
from topwork.parallel import core_count, stream
from topwork.recipe import AugmentRecipe, Fit, Precision

if TYPE_CHECKING:
    import openvino as ov

Array = np.ndarray[Any, Any]
ABOUT, DONE = "about.json", "done"
FORMAT = 1
SYNC_S = 5.0  # between two writings to disk: what a kill can cost
LARGEST = 65504.0  # in half precision
SPARE_BYTES = 64_000_000  # left on the disk for others


@dataclass(frozen=True, slots=True, eq=False)
class Activations:
    """Activations of `images` images in `views` views each, and their early features, memory-mapped.

    `activation` float16 (images, views, C, H, W); `early` float32 (images, views, E).
    """

    activation: Array
    early: Array

    @property
    def views(self) -> int:
        return int(self.activation.shape[1])

    def batch(self, rows: Array, views: Array) -> tuple[Array, Array]:
        """Of image `rows[i]` the view `views[i]`: float16 (B, C, H, W) and float32 (B, E), copied."""
        return self.activation[rows, views], self.early[rows, views]


def store_activations(
    dataset: Dataset,
    prefix: ov.Model,
    *,
    size_px: int,
    fit: Fit,
    precision: Precision,
    recipe: AugmentRecipe,
    views: int,
    seed: int,
    folder: Path,
    budget_bytes: int,
    progress: Callable[[int], None],
) -> Activations:
    """See to it that `folder` holds what `prefix` gives for all views of all images.

    What was computed before, with the same prefix, images and settings, is not computed again: killed at any
    moment, it goes on from a few seconds before. All disk space is taken before the work begins.

    Args:
        dataset: images that can be read.
        prefix: `image` uint8 (1, S, S, 3) → `activation` (1, …) and, if any are early, `early` (1, E).
        size_px, fit, precision: as of the backbone.
        recipe: how views differ (`augment.view`).
        views: how many there are of each image; the first is the image as it is.
        seed: of the random changes.
        folder: for the files.
        budget_bytes: what they may take.
        progress: told how many more images are done.

    Raises:
        InputError: they would take more than the budget.
        TopworkError: the disk has no room, an image can't be read any more, or a value doesn't fit half precision.
    """
    shape = (len(dataset), views, *(int(n) for n in prefix.output(ACTIVATION).shape[1:]))
    early_outputs = [output for output in prefix.outputs if EARLY in output.names]
    width = int(early_outputs[0].shape[1]) if early_outputs else 0
    need = 2 * math.prod(shape) + 4 * shape[0] * views * width
    if need > budget_bytes:
        raise InputError(
            f"activations of {shape[0]} images in {views} views take {need / 1e9:.1f} GB; "
            f"{budget_bytes / 1e9:g} GB are allowed: take fewer views, a later cut, or allow more (finetune.disk_gb)"
        )
    about = {
        "format": FORMAT,
        "shape": list(shape),
        "early": width,
        "of": _digest(dataset, prefix, (size_px, fit, precision, DECODER, seed), recipe),
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
                f"{example.image}: can't be read any more ({error}); mend it, or train again"
            ) from error
        key = int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
        for number in range(views):
            look(row, number, view(pixels, recipe, number, (seed, key)))
        return row

    waiting: list[int] = []
    since = time.monotonic()

    def mark() -> None:
        """The data first: what is marked is there."""
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
    """Runs the prefix on one picture and writes what it gives into its place; from any thread."""

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
                "activations at this cut are too large for half precision, or no numbers: choose another cut, or "
                "tune the whole network (the mode full)"
            )
        self._activation[row, number] = activation
        if self._early.shape[2]:
            self._early[row, number] = given[EARLY][0]


def _digest(dataset: Dataset, prefix: ov.Model, facts: tuple[Any, ...], recipe: AugmentRecipe) -> str:
    """Images are known by their ids here: their bytes were read by whoever took their features."""
    ids = [example.id for example in dataset]
    plain = json.dumps([facts, asdict(recipe), ids, graphs.digest(prefix)])
    return hashlib.sha256(plain.encode()).hexdigest()


def _prepare(folder: Path, about: dict[str, Any], sizes: dict[str, int]) -> None:
    """Files of these sizes, as an earlier call left them if that was about the same; else new."""
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
            f"{folder}: no room for the activations ({error.strerror}): free some space, take fewer views or a later "
            "cut, or tune the whole network (the mode full). The frozen classifier is as it was"
        ) from error


def _take_space(file: int, size: int) -> None:
    """Really: a file with holes would be found too large only when a worker writes into one, by a crash."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    block = bytes(1 << 20)
    for start in range(0, size, len(block)):
        os.write(file, block[: size - start])
