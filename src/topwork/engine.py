"""Run a graph over a stream of images, decoding and inferring at once.

One worker a core takes an image from its bytes to its features by itself; no worker waits for another. While
one decodes, another infers, so that all cores are busy and there is no queue of decoded pictures to grow. Each
image is inferred alone, on one thread: its features can't depend on its neighbours, their order or timing.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from topwork.recipe import Precision

if TYPE_CHECKING:
    import openvino as ov

    from topwork.backbone import Backbone

AHEAD = 4  # images in flight for each worker: enough to hide a slow one, few enough for memory to stay flat
_TYPES = threading.Lock()
Item = TypeVar("Item")
Result = TypeVar("Result")
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Vector = np.ndarray[Any, np.dtype[np.float32]]


def core_count() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Engine:
    """A backbone on this processor; call it with one image, from any thread. Compiled at the first call.

    Args:
        backbone: what to run.
        workers: how many images may be computed at once; None for one a core.
    """

    def __init__(self, backbone: Backbone, *, workers: int | None = None) -> None:
        self.workers = core_count() if workers is None else workers
        self._backbone = backbone
        self._turn = threading.Lock()
        self._compiled: ov.CompiledModel | None = None
        self._local = threading.local()

    def __call__(self, pixels: Pixels) -> Vector:
        """uint8 (S, S, 3) RGB in [0, 255] → its features, float32 (width,)."""
        request = getattr(self._local, "request", None)
        if request is None:
            with self._turn:
                if self._compiled is None:
                    self._compiled = compile_graph(self._backbone, threads=self.workers)
            request = self._local.request = self._compiled.create_infer_request()
        return request.infer([pixels[None]], share_inputs=True)[0][0].copy()  # type: ignore[no-any-return]


def compile_graph(backbone: Backbone, *, threads: int) -> ov.CompiledModel:
    """Compile a backbone for the CPU: `threads` streams of one thread each."""
    return compile_model(backbone.graph, backbone.facts.precision, threads=threads)


def compile_model(graph: ov.Model, precision: Precision, *, threads: int) -> ov.CompiledModel:
    """Compile for the CPU: `threads` streams of one thread each. `precision`: f32 or bf16."""
    import openvino as ov
    import openvino.properties as properties
    from openvino.properties import hint

    # The first such call, made by two threads at once, hangs for good (OpenVINO 2026.4): the two wait for each
    # other, one importing NumPy's types, one initialising OpenVINO's table of them.
    with _TYPES:
        ov.Type.u8.to_dtype()
    options = {
        properties.num_streams: threads,
        properties.inference_num_threads: threads,
        hint.inference_precision: {"f32": ov.Type.f32, "bf16": ov.Type.bf16}[precision],
    }
    return ov.Core().compile_model(graph, "CPU", options)


def stream(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Generator[Result, None, None]:
    """`work` on each of `items`, `workers` at once; the results in the order of the items, as they come.

    Reads only a little ahead of what has been taken, so that a stream of any length needs the same memory.
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="topwork")
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # also when the caller stops early: what has not begun never will
        pool.shutdown(cancel_futures=True)
