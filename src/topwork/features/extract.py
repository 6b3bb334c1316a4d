"""Feature extraction: computed once for each image, then read from the store."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from topwork.backbones.backbone import Backbone, BackboneFacts
from topwork.backbones.engine import Engine, Vector
from topwork.data.dataset import Dataset, Example, Problem
from topwork.errors import ImageError, InputError, TopworkError
from topwork.features.store import PREFIX_BYTES, Store
from topwork.graphs.compile import precision_here
from topwork.images.decode import Picture
from topwork.parallel import stream

BATCH = 64  # images stored in one transaction: what a kill can lose
BATCH_S = 2.0  # and the longest that computed features wait for it
Key = bytes  # SHA-256 of an image file's bytes
Matrix = np.ndarray[Any, np.dtype[np.float32]]
Rows = np.ndarray[Any, np.dtype[np.int64]]
Progress = Callable[[int], None]  # told how many more images are done


@dataclass(frozen=True, slots=True)
class Features:
    """Where the features of a dataset's images are.

    `dataset` holds the images that could be read, `problems` the others with the reason; `keys[i]` is the
    image's SHA-256; `computed` counts the images whose features were not in the store.
    """

    dataset: Dataset
    keys: tuple[Key, ...]
    problems: tuple[Problem, ...]
    facts: BackboneFacts
    store: Store
    computed: int

    def part(self, dataset: Dataset) -> Features:
        """The features of some of these images, in the order of `dataset`."""
        rows = {example.id: row for row, example in enumerate(self.dataset)}
        keys = tuple(self.keys[rows[example.id]] for example in dataset)
        return replace(self, dataset=dataset, keys=keys)

    def matrix(self, blocks: tuple[str, ...] | None = None) -> Matrix:
        """The features, float32 (N, D), in the dataset's order; of the named blocks only, if given."""
        return self.rows(blocks)[:]

    def rows(self, blocks: tuple[str, ...] | None = None) -> FeatureRows:
        """The same, to be read from the store in parts, where there may be too many to hold."""
        spans: list[slice] = []
        for block in self.facts.blocks:
            if blocks is None or block.name in blocks:
                after = spans and spans[-1].stop == block.start  # one long slice is read faster than many
                start = spans.pop().start if after else block.start
                spans.append(slice(start, block.stop))
        return FeatureRows(self.keys, self.store, tuple(spans))


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """Stored features of N images. `len` and indexing by a slice or by row numbers are those of an array (N, D)."""

    keys: tuple[Key, ...]
    store: Store
    columns: tuple[slice, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice | Rows) -> Matrix:
        keys = self.keys[rows] if isinstance(rows, slice) else tuple(self.keys[row] for row in rows.tolist())
        values, absent = self.store.get(keys, self.columns)
        if absent.size:
            raise TopworkError(
                f"{self.store.path}: {absent.size} of {len(keys)} feature vectors were damaged or removed "
                "since they were computed; run the command again and they are computed anew"
            )
        return values


@dataclass(frozen=True, slots=True)
class Beside:
    """Something else that is stored for each image, made from the same decoding."""

    store: Store
    make: Callable[[Picture, bytes], Vector]  # of the decoded image and its file


@dataclass(frozen=True, slots=True)
class _Seen:
    """The result for one image: its key and what was not stored yet; or why it can't be read."""

    key: Key = b""
    vector: Vector | None = None
    beside: Vector | None = None
    reason: str | None = None


def extract(
    dataset: Dataset,
    backbone: Backbone,
    *,
    store: Store,
    engine: Engine | None = None,
    strict: bool = False,
    progress: Progress | None = None,
    beside: Beside | None = None,
) -> Features:
    """Compute and store the features of every image that can be read.

    An image is identified by its bytes: features that were computed before, for whatever dataset, are reused. Each
    file is read, hashed and decoded once, for the features and for what is stored `beside` them. After a kill at any
    moment, the next call resumes from the last batch of 64 images. Memory grows only by the names of the images,
    about 400 bytes each.

    Args:
        dataset: the images; labels don't matter.
        backbone: the network.
        store: the backbone's store (see `open_store`).
        engine: a running engine of the caller's; otherwise one is compiled when the first image needs it.
        strict: raise an error for an image that can't be read, instead of leaving it out.
        progress: called with the number of images done since the last call.
        beside: what else to store for each image.

    Raises:
        InputError: no image can be read; or, with `strict`, one can't.
        TopworkError: a store can't be written.
    """
    infer = engine or Engine(backbone)
    size_px, fit = backbone.facts.size_px, backbone.facts.fit
    stored = _Stored(store)
    stored_beside = _Stored(beside.store) if beside else None

    def seen(example: Example) -> _Seen:
        try:
            data = example.image.read()
            key = hashlib.sha256(data).digest()
            absent = not stored.whole(key)
            also = None if stored_beside is None or stored_beside.whole(key) else beside
            if not absent and not also:
                return _Seen(key)
            picture = Picture(data, size_px, fit=fit)
            vector = infer(picture.pixels(size_px, fit=fit)) if absent else None
            return _Seen(key, vector, also.make(picture, data) if also else None)
        except ImageError as error:
            return _Seen(reason=str(error))
        except OSError as error:
            return _Seen(reason=error.strerror or str(error))

    keys: list[Key] = []
    good: list[Example] = []
    problems: list[Problem] = []
    computed = 0
    with (
        _Batches(store) as batches,
        _Batches(beside.store) if beside else nullcontext() as more,
        closing(stream(seen, dataset, workers=infer.workers)) as results,
    ):
        for example, result in zip(dataset, results, strict=True):
            if progress is not None:
                progress(1)
            if result.reason is not None:
                if strict:
                    raise InputError(
                        f"{example.image}: {result.reason}; mend or remove it, or run without --strict"
                    )
                problems.append(Problem(example.id, result.reason))
                continue
            keys.append(result.key)
            good.append(example)
            to_come = len(dataset) - len(good) - len(problems)
            if result.vector is not None:
                computed += 1
                batches.add(result.key, result.vector, to_come=to_come)
                stored.add(result.key)
            if more is not None and stored_beside is not None and result.beside is not None:
                more.add(result.key, result.beside, to_come=to_come)
                stored_beside.add(result.key)
    if not good:
        first = f"; the first: {problems[0].id}: {problems[0].reason}" if problems else ""
        raise InputError(f"{dataset.name}: none of {len(dataset)} images can be read{first}")
    readable = dataset if not problems else dataset.select(_positions(dataset, problems))
    return Features(readable, tuple(keys), tuple(problems), backbone.facts, store, computed)


def open_store(facts: BackboneFacts) -> Store:
    """The store of a backbone's features in the user's cache (`TOPWORK_CACHE`).

    Where a bf16 network has to run in f32, its features have a store of their own: the two are never mixed.
    """
    runs_in = precision_here(facts.precision)
    if runs_in == facts.precision:
        return Store.open(facts.fingerprint, facts.width, about=str(facts), half=facts.half)
    own = hashlib.sha256(f"{facts.fingerprint} in {runs_in}".encode()).hexdigest()
    return Store.open(own, facts.width, about=f"{facts}, run in {runs_in}", half=facts.half)


def _positions(dataset: Dataset, problems: list[Problem]) -> Iterator[int]:
    bad = {problem.id for problem in problems}
    return (i for i, example in enumerate(dataset) if example.id not in bad)


class _Stored:
    """Whether an image's row is in a store. One that can't be there is not looked for: readers wait for writers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._before = store.prefixes()
        self._since: set[Key] = set()

    def whole(self, key: Key) -> bool:
        """Reading verifies: a damaged row counts as none."""
        return self._may_have(key) and self._store.has(key)

    def add(self, key: Key) -> None:
        self._since.add(key[:PREFIX_BYTES])

    def _may_have(self, key: Key) -> bool:
        prefix = np.frombuffer(key, np.uint64, 1)[0]
        place = int(np.searchsorted(self._before, prefix))
        before = place < len(self._before) and self._before[place] == prefix
        return bool(before) or key[:PREFIX_BYTES] in self._since


class _Batches:
    """Writes rows to a store in batches; the rest is written on the way out, even after an error."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[Key, Vector]] = []
        self._since = time.monotonic()

    def add(self, key: Key, vector: Vector, *, to_come: int) -> None:
        self._waiting.append((key, vector))
        if len(self._waiting) >= BATCH or time.monotonic() - self._since > BATCH_S:
            self.flush(to_come)

    def flush(self, to_come: int = 0) -> None:
        waiting, self._waiting = self._waiting, []
        self._store.put(waiting, to_come=to_come)
        self._since = time.monotonic()

    def __enter__(self) -> _Batches:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.flush()
        else:
            with suppress(TopworkError):  # the error on its way says more
                self.flush()
