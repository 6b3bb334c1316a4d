"""The inputs of a tuning: stored activations for a tail, freshly augmented pictures for a whole network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from topwork.data.dataset import Dataset
from topwork.errors import ImageError, TopworkError
from topwork.images.augment import view
from topwork.images.decode import decode
from topwork.images.framing import Framing
from topwork.parallel import core_count, stream
from topwork.recipe import AugmentRecipe
from topwork.tuning.activations import Activations

Array = np.ndarray[Any, Any]


class Source(Protocol):
    """Inputs of a `Learner` by image row, float32 (B, …)."""

    def changed(self, rows: Array, epoch: int, random: np.random.Generator) -> Array:
        """Augmented at random."""
        ...

    def plain(self, rows: Array) -> Array:
        """Unchanged."""
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """Stored activations: a random view of each image."""

    activations: Activations

    def changed(self, rows: Array, epoch: int, random: np.random.Generator) -> Array:
        return self._get(rows, random.integers(0, self.activations.views, len(rows)))

    def plain(self, rows: Array) -> Array:
        return self._get(rows, np.zeros(len(rows), np.int64))

    def _get(self, rows: Array, views: Array) -> Array:
        return self.activations.batch(rows, views)[0].astype(np.float32)


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures read from their files, float32 (B, S, S, 3) in [0, 255]; augmented differently in each epoch."""

    dataset: Dataset
    size_px: int
    fit: Framing
    recipe: AugmentRecipe
    seed: int

    def changed(self, rows: Array, epoch: int, random: np.random.Generator) -> Array:
        numbers = random.integers(0, 2**31, len(rows))
        return self._get(rows, [int(number) for number in numbers], epoch)

    def plain(self, rows: Array) -> Array:
        return self._get(rows, [0] * len(rows), 0)

    def _get(self, rows: Array, numbers: Sequence[int], epoch: int) -> Array:
        def look(item: tuple[int, int]) -> Array:
            row, number = item
            example = self.dataset[row]
            try:
                data = example.image.read()
                pixels = decode(data, self.size_px, fit=self.fit)
            except (ImageError, OSError) as error:
                raise TopworkError(f"{example.image}: can no longer be read ({error})") from error
            key = int.from_bytes(hashlib.sha256(data).digest()[:4], "little")
            return view(pixels, self.recipe, number, seed=(self.seed, key, epoch))

        pairs = list(zip(rows.tolist(), numbers, strict=True))
        with closing(stream(look, pairs, workers=core_count())) as results:
            return np.stack(list(results)).astype(np.float32)
