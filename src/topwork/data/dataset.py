"""The records that every step uses: an `ImageSource`, an `Example`, and an ordered, immutable `Dataset`."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, overload

from topwork.errors import InputError, one_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")


def readable(name: str) -> str:
    r"""`name` as text that can be printed and stored: bytes that are not valid UTF-8 become `\xNN`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def whole(value: SupportsIndex, name: str) -> int:
    """`value` as an int. Raises `InputError` if it is not an integer; booleans are not accepted."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise InputError(f"`{name}` must be a whole number; got {value!r}")


class ImageSource(Protocol):
    """Where an image's bytes are. `str()` gives the name to display: a path, or archive!member."""

    def read(self) -> bytes:
        """The encoded bytes. Thread-safe. Raises `OSError` or `ImageError` if they can't be read."""
        ...

    def __str__(self) -> str: ...


@dataclass(frozen=True, slots=True)
class FileImage:
    """An image file. The path is a str, which takes less memory than a `Path`: there may be 100,000 of them."""

    path: str

    def read(self) -> bytes:
        """The file's bytes. Raises `OSError`."""
        return Path(self.path).read_bytes()

    def __str__(self) -> str:
        return readable(self.path)


@dataclass(frozen=True, slots=True)
class Example:
    """One image with its label, group, weight and split."""

    id: str  # unique in its dataset: the path relative to the source's root, with "/"
    image: ImageSource
    label: str | None = None  # the class name
    group: str | None = None  # examples of one group stay on the same side of a split
    weight: float = 1.0  # sample weight: finite, above 0
    split: str | None = None  # one of SPLITS, if the source defines splits


@dataclass(frozen=True, slots=True)
class Problem:
    """An image, file or folder that was left out, and the reason."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class Dataset:
    """An ordered, immutable sequence of examples. Each operation returns a new dataset; none reads an image.

    `take` and `skip` use the current order, as in `tf.data`: `d.take(a)`, `d.skip(a).take(b)` and
    `d.skip(a + b)` are disjoint and together contain all of `d`. A folder is ordered by class, so `shuffle` it
    before taking a prefix; otherwise the prefix contains only the first classes. A subset keeps all class names,
    and the list of files that were left out when the source was read.

    Raises `InputError` for repeated ids, labels that are not in `classes`, invalid weights or split names, and
    classes that are not distinct and sorted.

    >>> d = Dataset(tuple(Example(c, FileImage(c + ".jpg"), c) for c in "abc"), ("a", "b", "c"), "letters")
    >>> [e.id for e in d.skip(1).take(-1)]
    ['b', 'c']
    """

    examples: tuple[Example, ...]
    classes: tuple[str, ...]
    name: str  # the source it was loaded from
    skipped: tuple[Problem, ...] = ()

    def __post_init__(self) -> None:
        for field in ("examples", "classes", "skipped"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        _check(self)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}: {len(self)} examples, {len(self.classes)} classes)"

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Example | Dataset:
        if isinstance(index, slice):
            return self._with(self.examples[index])
        return self.examples[index]

    def _with(self, examples: tuple[Example, ...]) -> Dataset:
        # A subset of a checked dataset needs no second check, which would make each `take` O(N) in Python.
        new = object.__new__(Dataset)
        for field, value in zip(
            ("examples", "classes", "name", "skipped"),
            (examples, self.classes, self.name, self.skipped),
            strict=True,
        ):
            object.__setattr__(new, field, value)
        return new

    def take(self, n: int) -> Dataset:
        """The first `n` examples; all of them if `n` is negative or exceeds their number."""
        n = whole(n, "n")
        return self._with(self.examples if n < 0 else self.examples[:n])

    def skip(self, n: int) -> Dataset:
        """All but the first `n` examples; none if `n` is negative or exceeds their number."""
        n = whole(n, "n")
        return self._with(() if n < 0 else self.examples[n:])

    def shard(self, num_shards: int, index: int) -> Dataset:
        """Every `num_shards`-th example, starting at position `index`."""
        num_shards, index = whole(num_shards, "num_shards"), whole(index, "index")
        if num_shards < 1:
            raise InputError(f"`num_shards` must be at least 1; got {num_shards}")
        if not 0 <= index < num_shards:
            raise InputError(f"`index` must be from 0 to {num_shards - 1} (below `num_shards`); got {index}")
        return self._with(self.examples[index::num_shards])

    def shuffle(self, seed: int) -> Dataset:
        """The same examples in a random order determined by `seed` (0 or more), with NumPy's PCG64."""
        import numpy as np

        seed = whole(seed, "seed")
        if seed < 0:
            raise InputError(f"`seed` must be 0 or more; got {seed}")
        order = np.random.Generator(np.random.PCG64(seed)).permutation(len(self))
        return self._with(tuple(self.examples[i] for i in order.tolist()))

    def select(self, indices: Iterable[SupportsIndex]) -> Dataset:
        """The examples at `indices`, in that order; no index may repeat. For a mask, pass its `flatnonzero`."""
        rows = [whole(i, "indices") for i in indices]
        if rows and not (min(rows) >= 0 and max(rows) < len(self)):
            raise InputError(f"`indices` must be from 0 to {len(self) - 1}; got {min(rows)} to {max(rows)}")
        if len(set(rows)) < len(rows):
            raise InputError(f"`indices` must not repeat; got {_repeated(rows)} twice")
        return self._with(tuple(self.examples[i] for i in rows))

    def filter(self, keep: Callable[[Example], bool]) -> Dataset:
        """The examples for which `keep(example)` is true."""
        return self._with(tuple(e for e in self.examples if keep(e)))

    def concatenate(self, other: Dataset) -> Dataset:
        """The examples of both datasets, with the classes of both. Raises `InputError` if they share an id."""
        return Dataset(
            self.examples + other.examples,
            tuple(sorted({*self.classes, *other.classes})),
            self.name if self.name == other.name else f"{self.name} + {other.name}",
            tuple(dict.fromkeys(self.skipped + other.skipped)),
        )

    def with_split(self, name: str | None) -> Dataset:
        """The same examples, all marked as belonging to the split `name`; None removes the marks."""
        if name is not None and name not in SPLITS:
            raise InputError(one_of(str(name), SPLITS, what="split"))
        return self._with(
            tuple(Example(e.id, e.image, e.label, e.group, e.weight, name) for e in self.examples)
        )

    def labels(self) -> list[str | None]:
        """Each example's class name; None if it has no label."""
        return [e.label for e in self.examples]

    def targets(self) -> NDArray[np.int64]:
        """Each example's index in `classes`, int64 (N,); -1 if it has no label."""
        import numpy as np

        places: dict[str | None, int] = {name: i for i, name in enumerate(self.classes)}
        return np.fromiter((places.get(e.label, -1) for e in self.examples), np.int64, len(self))

    def weights(self) -> NDArray[np.float64]:
        """Each example's weight, float64 (N,)."""
        import numpy as np

        return np.fromiter((e.weight for e in self.examples), np.float64, len(self))

    def class_counts(self) -> dict[str, int]:
        """The number of examples of each class, in the order of `classes`."""
        counts = Counter(e.label for e in self.examples)
        return {name: counts[name] for name in self.classes}


def class_names(examples: Iterable[Example]) -> tuple[str, ...]:
    """The labels that occur, sorted."""
    return tuple(sorted({e.label for e in examples if e.label is not None}))


def _check(dataset: Dataset) -> None:
    examples, classes = dataset.examples, dataset.classes
    where = f"in {dataset.name!r}"
    if not all(isinstance(c, str) and c for c in classes) or sorted(set(classes)) != list(classes):
        raise InputError(f"`classes` must be distinct names in sorted order; got {classes!r} {where}")
    if len({e.id for e in examples}) < len(examples):
        again = _repeated([e.id for e in examples])
        raise InputError(f"example ids must be unique; got {again!r} twice {where}")
    known = {None, *classes}
    for e in examples:
        if e.label not in known:
            raise InputError(f"example {e.id!r} {where}: " + one_of(str(e.label), classes, what="class"))
        if not (0 < e.weight < math.inf):
            raise InputError(f"example {e.id!r} {where}: weight must be finite and above 0; got {e.weight!r}")
        if e.split is not None and e.split not in SPLITS:
            raise InputError(f"example {e.id!r} {where}: " + one_of(str(e.split), SPLITS, what="split"))


def _repeated(items: Sequence[Any]) -> Any:
    return next(item for item, count in Counter(items).items() if count > 1)
