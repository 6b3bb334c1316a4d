"""Figures for Prometheus, of one server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from topwork.serving.intake import Intake
from topwork.serving.work import Desk

BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)  # seconds


class Figures:
    """Counted since the server began."""

    def __init__(self, desk: Desk, intake: Intake) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter(
            "topwork_requests", "Requests by route and status.", ["route", "status"], registry=own
        )
        self.seconds = Histogram(
            "topwork_request_seconds",
            "From the first byte to the answer.",
            ["route"],
            buckets=BUCKETS,
            registry=own,
        )
        self.pictures = Counter(
            "topwork_pictures", "Pictures by what came of them.", ["model", "outcome"], registry=own
        )
        self.reloads = Counter("topwork_reloads", "Runs loaded anew.", ["model", "outcome"], registry=own)
        inside = Gauge("topwork_pictures_inside", "Pictures waiting or worked on.", registry=own)
        inside.set_function(lambda: desk.inside)
        held = Gauge("topwork_bytes_held", "Of the bodies that are read or worked on.", registry=own)
        held.set_function(lambda: intake.held)

    def picture(self, model: str, *, rejected: bool | None) -> None:
        """Count a picture that was looked at; `rejected` is None for one that can't be read."""
        outcome = "unreadable" if rejected is None else "none_of_these" if rejected else "classified"
        self.pictures.labels(model, outcome).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
