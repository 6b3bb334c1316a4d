"""Run a graph over a stream of images, decoding and inferring at once.

One worker a core takes an image from its bytes to its features by itself; no worker waits for another. While
one decodes, another infers, so that all cores are busy and there is no queue of decoded pictures to grow. Each
image is inferred alone, on one thread: its features can't depend on its neighbours, their order or timing.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import openvino as ov

    from topwork.backbones.backbone import Backbone
from topwork.backbones.half import rounded
from topwork.graphs.compile import compile_model
from topwork.parallel import core_count

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Vector = np.ndarray[Any, np.dtype[np.float32]]


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
        """uint8 (S, S, 3) RGB in [0, 255] → its features, float32 (width,), rounded if the facts say `half`."""
        request = getattr(self._local, "request", None)
        if request is None:
            with self._turn:
                if self._compiled is None:
                    self._compiled = compile_graph(self._backbone, threads=self.workers)
            request = self._local.request = self._compiled.create_infer_request()
        features: Vector = request.infer([pixels[None]], share_inputs=True)[0][0]
        return rounded(features) if self._backbone.facts.half else features.copy()


def compile_graph(backbone: Backbone, *, threads: int) -> ov.CompiledModel:
    """Compile a backbone for the CPU: `threads` streams of one thread each."""
    return compile_model(backbone.graph, backbone.facts.precision, threads=threads)
