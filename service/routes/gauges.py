"""What can be read off at the moment of a scrape: requests in hand, indexes, the model."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from model.embedder import Embedder
from service.lifecycle import Lifecycle
from service.work.cache.embeddings import CacheCounts
from service.work.index_registry import IndexEntry


class Gauges(Collector):
    """Nothing is kept: each scrape asks the parts themselves, so no number can be stale."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        *,
        version: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lifecycle = lifecycle
        self._admission = lifecycle.parts.admission
        self._version = version
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        is_ready = self._lifecycle.unready_reason() is None
        yield _info("build", "What is running.", version=self._version)
        yield _gauge("ready", "1 when searches can be answered.", is_ready)
        yield from self._requests()
        loaded = self._lifecycle.loaded
        if loaded is None:
            return
        decoders = loaded.pipeline.decoders
        yield _gauge("decode_processes", "Decode processes.", decoders.size)
        yield _gauge("decode_processes_busy", "Decode processes at work.", decoders.busy)
        if loaded.pipeline.cache is not None:
            yield _cache(loaded.pipeline.cache.counts)
        yield from _model(loaded.engine.embedder)
        yield from self._indexes(loaded.engine.registry.entries())

    def _requests(self) -> Iterator[GaugeMetricFamily]:
        receiving, working = self._admission.receiving, self._admission.working
        loaded = self._lifecycle.loaded
        yield _by_stage(
            "requests_in_hand",
            "POST requests: let in (received); decoded or answered, or waiting for it (working); "
            "of those, waiting for a batch (waiting).",
            received=receiving.taken,
            working=working.taken,
            waiting=0 if loaded is None else loaded.pipeline.batcher.waiting,
        )
        yield _by_stage(
            "requests_in_hand_limit",
            "Most requests a stage may hold.",
            received=receiving.capacity,
            working=working.capacity,
        )

    def _indexes(self, entries: list[IndexEntry]) -> Iterator[GaugeMetricFamily]:
        def family(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"lipsim_index_{name}", meaning, labels=["index", *labels])

        info = family("info", "The version in service.", "version")
        size = family("entries", "Entries, after equal vectors are collapsed.")
        created = family("created_timestamp_seconds", "When the version was written, Unix time.")
        opened = family("open_seconds", "Time since the version was taken into service.")
        refused = family("refused", "1 where a version could not be opened, by reason.", "code")
        now = self._clock()
        for entry in entries:
            if entry.index is not None:
                manifest = entry.index.manifest
                info.add_metric([entry.name, entry.index.version], 1)
                size.add_metric([entry.name], entry.index.size)
                created.add_metric(
                    [entry.name], datetime.fromisoformat(manifest.created).timestamp()
                )
                opened.add_metric([entry.name], now - entry.opened_at)
            if entry.refused is not None:
                refused.add_metric([entry.name, entry.refused.code], 1)
        yield from (info, size, created, opened, refused)


def _model(embedder: Embedder) -> Iterator[GaugeMetricFamily]:
    yield _info(
        "model",
        "The model in service.",
        name=embedder.name,
        fingerprint=embedder.fingerprint,
        arithmetic=embedder.arithmetic,
        claim=embedder.claim,
        decode_policy=embedder.decode_policy,
    )
    yield _gauge(
        "model_lipschitz_bound",
        "Proved upper bound of the Lipschitz constant.",
        embedder.lipschitz_bound,
    )
    yield _gauge(
        "model_forward_error",
        "E: proved bound on the l2 error of a computed embedding, network alone.",
        embedder.forward_error,
    )


def _cache(counts: CacheCounts) -> CounterMetricFamily:
    found = CounterMetricFamily(
        "lipsim_cache_lookups",
        "Embeddings asked of the caches, by where they were: memory, redis, or nowhere (miss); "
        "rejected: of the misses, those for which Redis held something else than a record of ours.",
        labels=["found"],
    )
    found.add_metric(["memory"], counts.memory_hits)
    found.add_metric(["redis"], counts.redis_hits)
    found.add_metric(["miss"], counts.misses)
    found.add_metric(["rejected"], counts.rejected)
    return found


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"lipsim_{name}", meaning, value=float(value))


def _by_stage(name: str, meaning: str, **values: int) -> GaugeMetricFamily:
    found = GaugeMetricFamily(f"lipsim_{name}", meaning, labels=["stage"])
    for stage, value in values.items():
        found.add_metric([stage], value)
    return found


def _info(family: str, meaning: str, **labels: str) -> GaugeMetricFamily:
    """A gauge of value 1 whose labels say it all."""
    found = GaugeMetricFamily(f"lipsim_{family}_info", meaning, labels=list(labels))
    found.add_metric(list(labels.values()), 1)
    return found
