"""Prometheus metrics of one server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from topwork.serving.intake import Intake
from topwork.serving.work_queue import WorkQueue

BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)  # seconds


class Metrics:
    """Metrics since the server started."""

    def __init__(self, queue: WorkQueue, intake: Intake) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter(
            "topwork_requests", "Requests by route and status.", ["route", "status"], registry=own
        )
        self.seconds = Histogram(
            "topwork_request_seconds",
            "Time from the first byte to the response.",
            ["route"],
            buckets=BUCKETS,
            registry=own,
        )
        self.pictures = Counter(
            "topwork_pictures", "Pictures by outcome.", ["model", "outcome"], registry=own
        )
        self.reloads = Counter("topwork_reloads", "Reloads of runs.", ["model", "outcome"], registry=own)
        inside = Gauge("topwork_pictures_inside", "Pictures waiting or being processed.", registry=own)
        inside.set_function(lambda: queue.pending)
        held = Gauge("topwork_bytes_held", "Bytes of request bodies held in memory.", registry=own)
        held.set_function(lambda: intake.held)

    def picture(self, model: str, *, rejected: bool | None) -> None:
        """Count a processed picture; `rejected` is None if it couldn't be read."""
        outcome = "unreadable" if rejected is None else "none_of_these" if rejected else "classified"
        self.pictures.labels(model, outcome).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
