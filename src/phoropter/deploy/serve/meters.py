"""What a server counts, in the format of Prometheus. No name of a file and no text of a client becomes a label."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class ServeMeters:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("phoropter_requests", "Requests by path and status", ("path", "status"), registry=self.registry)
        self._seconds = Histogram(
            "phoropter_request_seconds",
            "Seconds from the first byte to the answer",
            ("path",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._rows = Histogram("phoropter_batch_rows", "Rows computed at once", buckets=ROWS, registry=self.registry)
        self.waiting = Gauge("phoropter_waiting_requests", "Requests that are read, prepared or computed", registry=self.registry)
        ProcessCollector(registry=self.registry)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """After the answer. path: one of those that are served, or `other`"""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def count_batch(self, rows: int) -> None:
        """Before a batch is computed."""
        self._rows.observe(rows)

    def render_text(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
