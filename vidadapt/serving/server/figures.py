"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
CLIPS = (1, 2, 4, 8, 16, 32, 64, 128)
# How a request for a prediction may end.
OUTCOMES = ("answered", "unreadable", "refused", "turned_away", "given_up", "failed")


class Figures:
    """Counters of one server, in a registry of their own.

    Args:
        in_hand: requests that are being answered.
        replaced: decoding processes that were replaced.

    Attributes:
        requests: by outcome: `answered`; `unreadable`, the video cannot be read; `refused`, it is
            too large or not to be had, or no such adapter; `turned_away`, too many requests at
            once; `given_up` by the client; `failed` in the server.
        seconds: from a request's arrival to its answer.
        clips: of each forward pass.
    """

    def __init__(self, in_hand: Callable[[], int], replaced: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "vidadapt_requests", "Requests for predictions", ["outcome"], registry=self.registry
        )
        for outcome in OUTCOMES:
            self.requests.labels(outcome)
        self.seconds = Histogram(
            "vidadapt_request_seconds", "Arrival to answer", buckets=SECONDS, registry=self.registry
        )
        self.clips = Histogram(
            "vidadapt_pass_clips", "Clips of a forward pass", buckets=CLIPS, registry=self.registry
        )
        self._watch("vidadapt_requests_in_hand", "Requests that are being answered", in_hand)
        self._watch("vidadapt_decoders_replaced", "Decoding processes replaced", replaced)

    def _watch(self, name: str, what: str, value: Callable[[], int]) -> None:
        Gauge(name, what, registry=self.registry).set_function(lambda: float(value()))

    def counts(self) -> dict[str, int]:
        """Number of requests by outcome."""
        return {outcome: int(_value(self.requests.labels(outcome))) for outcome in OUTCOMES}

    def text(self) -> bytes:
        """All figures, in Prometheus' text format."""
        return generate_latest(self.registry)


def _value(counter: MetricWrapperBase) -> float:
    [metric] = counter.collect()
    return next(sample.value for sample in metric.samples if sample.name.endswith("_total"))
