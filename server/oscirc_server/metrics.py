"""What a server counts while it works, for Prometheus: requests, bytes, uploads. One object for an application.

Labels are bounded, whatever is sent: `route` is a template of the API or a directory of the tree (`unmatched` for all
else), `method` one of a few. Counters are of this process and begin at 0 with it. What the database knows is another
collector's (`metrics_of_state`), in the same registry.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from oscirc_server.services.uploads import UploadFacts

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED = "unmatched"
SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What this process has answered since it started, all kinds of requests together."""

    requests: int
    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class _Series:
    requests: Counter
    seconds: Histogram
    received: Counter
    sent: Counter


class Metrics:
    """Counters and the registry that they are read from; safe for threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._requests = self._counter("requests", "Requests answered.", "route", "method", "status")
        self._seconds = Histogram(
            "oscirc_server_request_duration_seconds",
            "From a request's head to the last byte of its answer.",
            ("route", "method"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._received = self._counter("request_bytes", "Bytes of requests' bodies.", "route")
        self._sent = self._counter("response_bytes", "Bytes of answers' bodies.", "route")
        self._frames = self._counter("uploaded_frames", "Frames uploaded: new ones, and those that were here.", "kind")
        self._stored = self._counter("stored_bytes", "Bytes of frames written to the store.")
        self._under_way = Gauge(
            "oscirc_server_requests_under_way", "Requests being answered now.", registry=self.registry
        )
        for kind in ("stored", "present"):
            self._frames.labels(kind)
        self._series: dict[tuple[str, str, int], _Series] = {}  # looking them up costs more than counting

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"oscirc_server_{name}", text, labels, registry=self.registry)

    def began(self) -> None:
        """A request's head has come."""
        self._under_way.inc()

    def answered(
        self, route: str, method: str, status: int, seconds: float, received_bytes: int, sent_bytes: int
    ) -> None:
        """A request is over; `status` 0 where its client went away before an answer."""
        self._under_way.dec()
        key = (route, method if method in METHODS else "other", status)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series(
                self._requests.labels(key[0], key[1], str(status)),
                self._seconds.labels(key[0], key[1]),
                self._received.labels(route),
                self._sent.labels(route),
            )
        series.requests.inc()
        series.seconds.observe(seconds)
        if received_bytes:
            series.received.inc(received_bytes)
        if sent_bytes:
            series.sent.inc(sent_bytes)

    def traffic(self) -> Traffic:
        """The sums of requests and bytes."""
        return Traffic(_total(self._requests), _total(self._received), _total(self._sent))

    def uploaded(self, facts: UploadFacts) -> None:
        """What became of an upload's body."""
        self._frames.labels("stored").inc(facts.stored)
        self._frames.labels("present").inc(facts.present)
        self._stored.inc(facts.stored_bytes)


def _total(counter: Counter) -> int:
    samples = [sample for metric in counter.collect() for sample in metric.samples]
    return int(sum(sample.value for sample in samples if sample.name.endswith("_total")))
