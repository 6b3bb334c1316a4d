"""Whether several pictures in one call of the network would be quicker than one a core: why `serve` makes no batches.

    python -m benchmarks.speed.serve_batching RUN [--seconds 4] [--repeats 3]

Random pixels through the run's network, as many threads as cores: each with one picture a call, or with several. The
network alone; decoding is the same in either case.
"""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path

import numpy as np
import openvino as ov

from benchmarks.options import shared_options
from topwork.classifiers.classifier import Classifier
from topwork.graphs.compile import compile_model
from topwork.parallel import core_count

BATCHES = (1, 2, 4, 8, 16)


def main() -> None:
    parser = shared_options(__doc__, seconds=4.0, repeats=3)
    parser.add_argument("run", type=Path, help="folder of a run")
    options = parser.parse_args()
    backbone = Classifier.load(options.run).backbone
    cores, compiled = core_count(), {}
    for batch in BATCHES:
        graph = backbone.graph.clone()
        graph.reshape([batch, *graph.input().shape[1:]])
        compiled[batch] = compile_model(graph, backbone.facts.precision, threads=cores)
    rates: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    for _ in range(options.repeats):
        for batch in BATCHES:
            rates[batch].append(rate(compiled[batch], batch, threads=cores, seconds=options.seconds))
    for batch, found in rates.items():
        middle = statistics.median(found)
        print(
            f"{batch:2} pictures a call: {middle:.0f} img/s ({min(found):.0f} to {max(found):.0f}), "
            f"{middle / statistics.median(rates[1]):.2f} of one by one"
        )


def rate(compiled: ov.CompiledModel, batch: int, *, threads: int, seconds: float) -> float:
    done = [0] * threads
    pixels = np.random.default_rng(0).integers(0, 256, compiled.input().shape, np.uint8)
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        request = compiled.create_infer_request()
        while time.perf_counter() < end:
            request.infer([pixels], share_inputs=True)
            done[number] += batch

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
