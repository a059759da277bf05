"""What the service counts, in its own registry: one of each per application, nothing global.

Labels take values from fixed sets, from the routes' patterns and from names on our own disk; never
from what a client sent, who could otherwise make us keep a series for each text that it invents.
"""

from collections import Counter as Counts
from collections.abc import Mapping, Sequence
from typing import get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from service.errors import RefusalReason
from service.schemas.common import Stage
from service.schemas.search import SearchResult

MEDIA_TYPE = CONTENT_TYPE_LATEST

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER_METHOD = "(other)"

_REQUEST_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STAGE_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 10, 30)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
# In 8-bit levels per value; the bucket of 0 holds the answers about which nothing is proved.
_RADIUS_BUCKETS = (0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """Counters and histograms; safe for many threads, a few microseconds a request.

    What can be read off when somebody asks (requests in hand, indexes in service) is not kept here:
    `service.routes.gauges` has it. Another part's numbers join by registering with `registry`.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._requests = self._counter(
            "requests", "Requests that reached a route, or none.", "method", "route", "status"
        )
        self.problems = self._counter("problems", "Problem documents sent, by code.", "code")
        self.refusals = self._counter("refusals", "Requests told to come back later.", "reason")
        self.failed_looks = self._counter(
            "index_look_failures", "Looks for new index versions that failed as a whole."
        )
        self.decode_timeouts = self._counter("decode_timeouts", "Images that took too long.")
        self.decode_deaths = self._counter(
            "decode_process_deaths", "Decode processes that ended or answered nonsense."
        )
        self._results = self._counter(
            "results", "Results of searches, by what is proved about them.", "index", "radius"
        )
        self._request_seconds = self._histogram(
            "request_seconds",
            "From the headers to the end of the answer.",
            _REQUEST_BUCKETS_S,
            "route",
        )
        self._stage_seconds = self._histogram(
            "stage_seconds", "Time of a request in each stage.", _STAGE_BUCKETS_S, "stage"
        )
        self.batch_size = self._histogram(
            "batch_size", "Requests that shared one pass through the network.", _BATCH_BUCKETS
        )
        self._radius = self._histogram(
            "top1_certified_rms_8bit",
            "certified_rms_8bit of first results; those without bound (null) are not in it.",
            _RADIUS_BUCKETS,
            "index",
        )
        # Looking a child up costs as much as counting: those of the busiest families are kept.
        self._requests_by: dict[tuple[str, str, int], Counter] = {}
        self._seconds_by: dict[str, Histogram] = {}
        self._stages = {stage: self._stage_seconds.labels(stage) for stage in get_args(Stage)}
        # Present from the start: an alert on a rate misses the step from no series to 1.
        for reason in get_args(RefusalReason):
            self.refusals.labels(reason)

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request that was answered.

        Args:
            method: as sent; one that no route has counts as "(other)".
            route: pattern of the route, or "(none)".
            status: of the answer; 0 if none was begun.
            seconds: from the headers to the end of the answer.
        """
        method = method if method in _METHODS else _OTHER_METHOD
        key = (method, route, status)
        if key not in self._requests_by:
            self._requests_by[key] = self._requests.labels(method, route, str(status))
            self._seconds_by[route] = self._request_seconds.labels(route)
        self._requests_by[key].inc()
        self._seconds_by[route].observe(seconds)

    def observe_stages(self, seconds: Mapping[Stage, float]) -> None:
        """Count the stages that one request went through, in seconds by stage."""
        for stage, value in seconds.items():
            self._stages[stage].observe(value)

    def observe_results(self, index: str, results: Sequence[SearchResult]) -> None:
        """Count the results of one search, best first, by the index's name on disk."""
        for kind, count in Counts(map(_proved, results)).items():
            self._results.labels(index, kind).inc(count)
        if results and results[0].certified_rms_8bit is not None:
            self._radius.labels(index).observe(results[0].certified_rms_8bit)

    def render(self) -> bytes:
        """Everything in the registry, in Prometheus' text format (`MEDIA_TYPE`)."""
        return generate_latest(self.registry)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"lipsim_{name}", meaning, labels, registry=self.registry)

    def _histogram(
        self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(f"lipsim_{name}", meaning, labels, buckets=buckets, registry=self.registry)


def _proved(result: SearchResult) -> str:
    """What is proved about a result: a radius, none, or that nothing can displace it."""
    radius = result.certified_radius
    return "unlimited" if radius is None else "certified" if radius > 0 else "zero"
