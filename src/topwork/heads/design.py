"""Images as a head is solved on them: standardised features, and their coordinates along the strongest directions.

With up to `EXACT` images, or `NARROW` features, the coordinates are the features, only turned, and that is all.
With more, they are the `DIRECTIONS` strongest ones of a sample: a head is solved along them first, which is fast, and
then on the features themselves from there, which takes few steps (see `topwork.heads.choose`). The features are read
from the store once; what doesn't fit into `HELD_BYTES` is kept in a temporary file, in 16 bits a number.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import IO, Any, Protocol, TypeVar

import numpy as np

from topwork.errors import TopworkError
from topwork.parallel import core_count, one_blas_thread, stream
from topwork.storage.cache import cache_root

EXACT = 2500  # images up to which all directions are used,
NARROW = 1536  # and features, if there are not too many images to hold (see `MOST_NUMBERS`)
DIRECTIONS = 512  # with more
SAMPLE = 1024  # images that the directions are found from, with more
HELD_BYTES = 1 << 28  # of features in memory
MOST_NUMBERS = 1 << 27  # of all coordinates, half a gigabyte; with more images there are fewer directions
ROWS_AT_ONCE = 512  # images whose features are read at once, for each core
MORE, ITERATIONS, ITERATIONS_NEAR = 32, 8, 2  # of `strongest`
PARTS = 4  # that a product of weights is done in
SMALLEST_DEVIATION = 1e-6  # relative to the largest deviation; a feature that varies less is constant
SMALLEST_VARIANCE = 1e-6  # relative to the largest; less is float32 rounding
LARGEST = 32767  # of int16

Array = np.ndarray[Any, np.dtype[Any]]
T = TypeVar("T")


class Rows(Protocol):
    """Features of images: an array, float32 (N, D), or whatever can be read in parts like one."""

    def __len__(self) -> int:
        """The number of images."""

    def __getitem__(self, rows: Any, /) -> Array:
        """The features of some images, float32 (n, D), by a slice or by int64 (n,)."""


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """What is known of the covariance of features: its strongest directions, and the mean variance along the rest.

    Without `vectors`, the features are coordinates along the directions, and there is no rest.
    """

    variances: Array  # float64 (R,)
    vectors: Array | None = None  # float32 (D, R), orthonormal
    rest: float = 0.0

    @property
    def width(self) -> int:
        """The number of features, D."""
        return len(self.variances) if self.vectors is None else len(self.vectors)

    def scaled(
        self,
        u: Array,
        curvature: Array,
        strength: float,
        power: float,
        pool: ThreadPoolExecutor | None = None,
    ) -> Array:
        """Weights u (K, B, D) times (h · covariance + λ) to a power, for curvatures h (K, B).

        Shared out in the same parts with a pool as without one.
        """
        along = (curvature[:, :, None] * self.variances + strength) ** power  # (K, B, R)
        if self.vectors is None:
            return np.asarray(u * along)
        rest = ((curvature * self.rest + strength) ** power)[:, :, None].astype(np.float32)
        flat = np.asarray(u, np.float32).reshape(-1, u.shape[2])
        rest_of, along_of = rest.reshape(-1, 1), along.reshape(len(flat), -1)
        turned, vectors = np.empty_like(flat), self.vectors

        def part(rows: slice) -> None:
            inside = (flat[rows] @ vectors) * (along_of[rows] - rest_of[rows])
            turned[rows] = inside.astype(np.float32) @ vectors.T
            turned[rows] += flat[rows] * rest_of[rows]

        size = -(-len(flat) // PARTS)
        parts = [slice(start, start + size) for start in range(0, len(flat), size)]
        for _ in map(part, parts) if pool is None else pool.map(part, parts):
            pass
        return turned.reshape(u.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Directions:
    """An affine map from features to coordinates, x ↦ ((x − mean) / deviation) V.

    With fewer images than features, V = Zᵀ U s^-½ is kept as two thin products.
    """

    mean: Array  # float32 (D,)
    deviation: Array  # float32 (D,); infinity where a feature is constant
    vectors: Array  # `vectors` @ `mixture` is V, (D, R)
    mixture: Array | None = None  # None: the identity

    def coordinates(self, x: Array) -> Array:
        """Features, float32 (n, D), along the directions, float32 (n, R)."""
        return self.along(standardise(x, self.mean, self.deviation))

    def along(self, z: Array) -> Array:
        """The same for features that are standardised already."""
        inside = z @ self.vectors
        return np.asarray(inside if self.mixture is None else inside @ self.mixture)

    def lift(self, u: Array) -> Array:
        """Weights along the directions, (K, R), as weights of the standardised features, float32 (K, D)."""
        thin = np.asarray(u, np.float32)
        return np.asarray((thin if self.mixture is None else thin @ self.mixture.T) @ self.vectors.T)


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Training images, ready for solving heads on them."""

    directions: Directions
    coordinates: Array  # float32 (N, R)
    spectrum: Spectrum  # of the coordinates
    features: Rows | None  # standardised, float32 (N, D); None if the coordinates lose nothing
    features_spectrum: Spectrum | None  # of these


def images_of(x: Rows, weights: Array) -> Images:
    """Training images' features, read once.

    Args:
        x: float32 (N, D).
        weights: float (N,), positive.
    """
    n, width = len(x), x[:1].shape[1]
    if n <= EXACT:
        every = x[:]
        mean, deviation = moments(every, weights)
        return _exact(standardise(every, mean, deviation), weights, mean, deviation)
    rows, mean, deviation = _held(x, weights, width)
    if width <= NARROW and n * width <= MOST_NUMBERS // 2:
        return _exact(rows[:], weights, mean, deviation)
    sample = rows[np.sort(np.random.default_rng(0).choice(n, SAMPLE, replace=False))]
    part = _exact(sample, np.ones(SAMPLE), mean, deviation)
    count = min(DIRECTIONS, max(1, MOST_NUMBERS // n), len(part.spectrum.variances))
    strongest = np.eye(len(part.spectrum.variances), dtype=np.float32)[-count:]
    vectors = np.ascontiguousarray(part.directions.lift(strongest).T)
    directions = Directions(mean, deviation, vectors)
    coordinates = np.empty((n, count), np.float32)
    shares = (weights / weights.sum()).astype(np.float32)
    variances = np.zeros(count)
    for block, found in in_blocks(lambda z, _: directions.along(z), rows):
        coordinates[block] = found
        variances += shares[block] @ np.square(found)
    varying = int(np.isfinite(deviation).sum())  # each with a variance of 1
    rest = max(0.0, varying - float(variances.sum())) / max(1, min(n, varying) - count)
    return Images(directions, coordinates, Spectrum(variances), rows, Spectrum(variances, vectors, rest))


def exact_images(z: Array, weights: Array) -> Images:
    """The same for features, float32 (N, D), that are left as they are, along all their directions."""
    return _exact(z, weights, np.zeros(z.shape[1], np.float32), np.ones(z.shape[1], np.float32))


def _exact(z: Array, weights: Array, mean: Array, deviation: Array) -> Images:
    root = np.sqrt(weights / weights.sum()).astype(np.float32)[:, None]
    weighted = z * root
    tall = z.shape[0] >= z.shape[1]
    variances, vectors = eigen(gram(weighted.T if tall else weighted))
    kept = variances > variances[-1] * SMALLEST_VARIANCE
    variances, vectors = variances[kept], np.ascontiguousarray(vectors[:, kept])
    if tall:
        directions, coordinates = Directions(mean, deviation, vectors), z @ vectors
    else:
        deviations = np.sqrt(variances)
        directions = Directions(mean, deviation, weighted.T, vectors / deviations)
        coordinates = vectors * deviations / root
    spectrum = Spectrum(variances.astype(np.float64))
    return Images(directions, np.ascontiguousarray(coordinates), spectrum, None, None)


class _File:
    """Rows in a temporary file, as int16 on a scale of each feature and block; it is gone with the object.

    They are written raw and, once `standardised_by` is called, read standardised, by any thread. An error is at most
    1/65534 of a feature's largest value in its block. Whole numbers become float32 in a fifth of the time that
    numbers at half precision take, which is most of what reading costs.
    """

    def __init__(self, count: int, width: int) -> None:
        self._count, self._width = count, width
        self._rows = ROWS_AT_ONCE  # in a block
        self._scales = np.ones((-(-count // self._rows), width), np.float32)
        self._deviation: Array = np.ones(width, np.float32)
        self._offset: Array = np.zeros(width, np.float32)
        self._turn = threading.Lock()
        folder = cache_root()  # the system's own folder for such files may be in memory
        with self._disk():
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = tempfile.TemporaryFile(prefix="topwork-", dir=folder)  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return self._count

    def write(self, block: slice, x: Array) -> None:
        """Write the rows of one of `blocks`."""
        largest = np.maximum(x.max(axis=0), -x.min(axis=0))
        scale = np.where(largest > 0, largest, 1).astype(np.float32) / LARGEST
        whole = np.rint(x / scale).astype(np.int16)
        self._scales[block.start // self._rows] = scale
        with self._turn, self._disk():
            self._file.seek(block.start * self._width * 2)
            self._file.write(whole.tobytes())
            self._file.flush()

    def standardised_by(self, mean: Array, deviation: Array) -> None:
        self._deviation, self._offset = deviation, mean / deviation

    def __getitem__(self, rows: Any) -> Array:
        if not isinstance(rows, slice):
            return np.concatenate([self[row : row + 1] for row in rows.tolist()])
        start, stop, _ = rows.indices(self._count)
        with self._turn, self._disk():
            self._file.seek(start * self._width * 2)
            data = self._file.read((stop - start) * self._width * 2)
        x = np.frombuffer(data, np.int16).reshape(stop - start, self._width).astype(np.float32)
        for block in range(start // self._rows, -(-stop // self._rows)):
            part = x[max(0, block * self._rows - start) : (block + 1) * self._rows - start]
            part *= self._scales[block] / self._deviation
            part -= self._offset
        return x

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TopworkError(
                f"{cache_root()}: expected room for {self._count * self._width * 2 / 1e9:.1f} GB of features while "
                f"the head is fitted ({error.strerror}); free some, or set TOPWORK_CACHE to a folder on another disk"
            ) from None


def _held(x: Rows, weights: Array, width: int) -> tuple[Rows, Array, Array]:
    """The rows, standardised, to be read again and again, and their weighted moments."""
    n = len(x)
    if n * width * 4 <= HELD_BYTES:
        every = x[:]
        mean, deviation = moments(every, weights)
        return standardise(every, mean, deviation), mean, deviation
    shares = weights / weights.sum()
    file = _File(n, width)
    total, square = np.zeros(width), np.zeros(width)
    for block, rows in in_blocks(lambda rows, _: rows, x):
        file.write(block, rows)
        total += shares[block] @ rows
        square += shares[block] @ np.square(rows, dtype=np.float64)
    mean, deviation = _moments(total, np.sqrt(np.maximum(square - total**2, 0)))
    file.standardised_by(mean, deviation)
    return file, mean, deviation


def in_blocks(work: Callable[[Array, slice], T], x: Rows) -> Iterator[tuple[slice, T]]:
    """`work` on the features of one block of images after another, and where they are, on all cores, in order."""

    def one(block: slice) -> tuple[slice, T]:
        return block, work(x[block], block)

    with one_blas_thread():
        if len(x) <= ROWS_AT_ONCE:
            yield from map(one, blocks(len(x)))
            return
        with closing(stream(one, blocks(len(x)), workers=core_count())) as results:
            yield from results


def placed(place: Callable[[Array], Array], x: Rows) -> Rows:
    """All of `x` as `place` has it, float32 (N, R), to be read again and again."""
    first = place(x[:ROWS_AT_ONCE])
    parts = in_blocks(lambda rows, _: place(rows), x)
    if len(x) * first.shape[1] * 4 <= HELD_BYTES:
        return np.concatenate([first[:0], *(part for _, part in parts)])
    file = _File(len(x), first.shape[1])
    for block, part in parts:
        file.write(block, part)
    return file


def blocks(count: int) -> Iterator[slice]:
    """Consecutive slices of `count` images."""
    return (slice(start, min(start + ROWS_AT_ONCE, count)) for start in range(0, count, ROWS_AT_ONCE))


def gram(rows: Array) -> Array:
    """`rows @ rows.T`, float32 (N, N), on all cores: the same to the bit whatever their number."""
    product = np.empty((len(rows), len(rows)), np.float32)

    def lower(block: slice) -> None:
        product[block, : block.stop] = rows[block] @ rows[: block.stop].T

    with one_blas_thread():
        if len(rows) <= ROWS_AT_ONCE:
            lower(slice(0, len(rows)))
            return product
        with closing(stream(lower, blocks(len(rows)), workers=core_count())) as done:
            for _ in done:
                pass
    for block in blocks(len(rows)):
        product[: block.start, block] = product[block, : block.start].T
    return product


def eigen(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues, ascending, and eigenvectors of a symmetric matrix; on one thread, so the same to the bit."""
    with one_blas_thread():
        values, vectors = np.linalg.eigh(matrix)
    return values, vectors


def strongest(matrix: Array, count: int, *, near: Array | None = None) -> Array:
    """The eigenvectors with the largest eigenvalues, float64 (N, count), by orthogonal iteration.

    Golub and Van Loan, "Matrix computations", 8.2.4. A few more than are wanted speed it up. Those that it hasn't
    told apart at the end have nearly the same eigenvalue, and any of them will do.

    Args:
        matrix: symmetric, positive, (N, N).
        count: how many.
        near: vectors that are close to them, (N, M), M at most `count`.
    """
    found = np.random.default_rng(0).standard_normal((len(matrix), min(len(matrix), count + MORE)))
    if near is not None:
        found[:, : near.shape[1]] = near
    single = matrix.astype(np.float32)
    for _ in range(ITERATIONS if near is None else ITERATIONS_NEAR):
        found, _ = np.linalg.qr(single @ found.astype(np.float32))
    found, _ = np.linalg.qr(found.astype(np.float64))
    _, turn = np.linalg.eigh(found.T @ matrix @ found)
    return np.asarray((found @ turn)[:, -count:])


def moments(x: Array, weights: Array) -> tuple[Array, Array]:
    """Each feature's weighted mean and standard deviation; infinity if it is constant, so that it is ignored."""
    shares = (weights / weights.sum()).astype(np.float32)
    mean = shares @ x
    return _moments(mean, np.sqrt(shares @ np.square(x - mean)))


def _moments(mean: Array, deviation: Array) -> tuple[Array, Array]:
    # A large constant appears to vary, by float32 rounding.
    constant = deviation <= SMALLEST_DEVIATION * np.maximum(deviation.max(), 10 * np.abs(mean))
    return mean.astype(np.float32), np.where(constant, np.inf, deviation).astype(np.float32)


def standardise(x: Array, mean: Array, deviation: Array) -> Array:
    """(x − mean) / deviation."""
    z = x - mean
    z /= deviation
    return z
