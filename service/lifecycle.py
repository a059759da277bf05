"""From start to stop: the model is loaded, the indexes are opened, watched, and closed.

Loading happens in the background, so that probes are answered from the first moment.
"""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import structlog

from index_builder.filters.evaluate import FilterCache
from index_builder.search.faiss_flat import load_faiss
from model.embedder import Embedder
from model.errors import RetrievalError
from model.pixels.decode import DecodedImage
from service.admission import Admission
from service.decoding.pool import DecodePool
from service.errors import NotReadyError
from service.observability.metrics import Metrics
from service.observability.tracing import Tracing
from service.redis.link import RedisLink
from service.schemas.common import DEFAULT_INDEX
from service.schemas.status import Reason
from service.settings import Settings
from service.work.batcher import Batcher
from service.work.cache.embeddings import make_cache
from service.work.engine import Engine
from service.work.index_registry import IndexRegistry
from service.work.pipeline import Pipeline

T = TypeVar("T")

ADVICE: dict[Reason, str] = {
    "draining": "the service was told to stop: send nothing more",
    "loading_model": "the model is being loaded and its bounds proved",
    "model_refused": "the checkpoint was refused; see the log",
    "loading_indexes": "the indexes are being opened and verified",
    "no_index": "there is no index: make one with `python -m index_builder build SOURCE`; "
    "/v1/embed and /v1/similarity work without",
    "index_refused": "the default index could not be opened; see `indexes` and the log",
    "worker_died": "a thread that embeds and searches has ended; see the log, and restart",
}

# More starves the worker beside any other program: at 10 it gets a tenth of a busy core.
_WORKER_NICENESS = 3
_HIGHEST_NICENESS = 19

log = structlog.stdlib.get_logger()


def prepare_worker(threads: int) -> None:
    """What each worker thread does first: it bounds FAISS's threads, and steps back a little.

    While it embeds, requests are to be read and images decoded: these find a core a little sooner,
    so they interrupt the network less often, and the next batch is the larger (ADR 0012).
    """
    if sys.platform == "linux":  # Elsewhere a niceness is the whole process's.
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):  # A sandbox may forbid it, and no answer needs it.
            niceness = os.getpriority(os.PRIO_PROCESS, thread) + _WORKER_NICENESS
            os.setpriority(os.PRIO_PROCESS, thread, min(niceness, _HIGHEST_NICENESS))
    # OpenMP counts the threads of FAISS for each thread that calls it.
    load_faiss().omp_set_num_threads(threads)


@dataclass(frozen=True)
class Parts:
    """What an application is made of before its model is loaded."""

    settings: Settings
    admission: Admission
    metrics: Metrics
    redis: RedisLink | None
    tracing: Tracing | None
    has_keys: bool


@dataclass(frozen=True)
class Loaded:
    """What there is once the model is loaded: embedding and comparing need no more."""

    engine: Engine
    pipeline: Pipeline


class Lifecycle:
    """Loads, watches, lets go. Used on the event loop alone.

    Args:
        parts: what the application is made of.
        on_fatal: told when the model is refused, as waiting cannot cure that.

    Attributes:
        loaded: the model and its workers, once they are there.
    """

    def __init__(
        self, parts: Parts, *, on_fatal: Callable[[Exception], None] | None = None
    ) -> None:
        self.parts = parts
        self.loaded: Loaded | None = None
        self._on_fatal = on_fatal
        # None once the data directory has been looked through.
        self._waits_for: Reason | None = "loading_model"
        # Loading and opening are long: they have a thread of their own, never a worker's.
        self._loader = ThreadPoolExecutor(1, "loader")
        self._watcher: asyncio.Task[None] | None = None

    def need_model(self) -> Loaded:
        """What embeds and compares.

        Raises:
            NotReadyError: the model is not loaded, yet.
        """
        if self.loaded is None:
            raise NotReadyError(ADVICE[self._waits_for or "loading_model"])
        return self.loaded

    def need_indexes(self) -> Loaded:
        """What searches, too.

        Raises:
            NotReadyError: the indexes have not been looked at, yet.
        """
        loaded = self.need_model()
        if self._waits_for is not None:
            raise NotReadyError(ADVICE[self._waits_for])
        return loaded

    def unready_reason(self) -> Reason | None:
        """Why no search can be answered; None when one can.

        Ready means: the model is warm, every worker lives, the data directory has been looked
        through, some index serves, and the default one too if there is one.
        """
        if self.parts.admission.is_draining:
            return "draining"
        if self._waits_for is not None or self.loaded is None:
            return self._waits_for
        if self.loaded.pipeline.batcher.failure is not None:
            return "worker_died"
        entries = self.loaded.engine.registry.entries()
        if any(e.index is None and e.name == DEFAULT_INDEX for e in entries):
            return "index_refused"
        if not any(e.index for e in entries):
            return "index_refused" if entries else "no_index"
        return None

    def start(self) -> None:
        self._watcher = asyncio.create_task(self._load_and_watch())

    async def stop(self) -> None:
        """Finish the work in hand and let everything go."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await asyncio.to_thread(self._loader.shutdown, wait=True, cancel_futures=True)
        if self.loaded is not None:
            await self.loaded.pipeline.close()
            self.loaded.engine.registry.close()

    async def _load_and_watch(self) -> None:
        try:
            self.loaded = await self._load()
        except Exception as error:  # Whatever it is, waiting cannot cure it.
            self._waits_for = "model_refused"
            # Our own errors say it all; what nobody foresaw needs its traceback.
            is_ours = isinstance(error, RetrievalError)
            trace = None if is_ours else error
            log.error("model_refused", problem=str(error), exc_info=trace)  # noqa: TRY400
            if self._on_fatal is not None:
                self._on_fatal(error)
            return
        self._waits_for = "loading_indexes"
        while True:
            try:
                await self._in_loader(self.loaded.engine.registry.refresh)
            except Exception:  # Whatever it is: the next version must not go unseen for it.
                self.parts.metrics.failed_looks.inc()
                log.exception("index_look_failed")
            self._waits_for = None
            await asyncio.sleep(self.parts.settings.index_poll_interval_s)

    async def _in_loader(self, step: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._loader, step)

    async def _load(self) -> Loaded:
        settings, metrics = self.parts.settings, self.parts.metrics
        embedder = await self._in_loader(self._load_model)
        registry = IndexRegistry(settings.data_dir, embedder.fingerprint, embedder.decode_policy)
        engine = Engine(embedder, registry, metrics, FilterCache(settings.filter_cache_bytes))
        limits = settings.decode_limits
        secret = settings.cache_secret
        cache = make_cache(
            embedder,
            limits,
            memory_bytes=settings.cache_bytes,
            link=self.parts.redis,
            secret=None if secret is None else secret.get_secret_value(),
            ttl_s=settings.cache_ttl_s,
        )
        decoders = DecodePool(
            limits,
            size=embedder.input_size,
            processes=settings.workers,
            timeout_s=settings.decode_timeout_s,
            metrics=metrics,
        )
        await decoders.start()
        batcher = Batcher(
            engine.answer,
            threads=settings.workers,
            max_batch=settings.max_batch,
            work_timeout_s=settings.request_timeout_s,
            prepare_thread=lambda: prepare_worker(settings.threads_per_worker),
        )
        pipeline = Pipeline(
            decoders,
            batcher,
            self.parts.admission.working,
            queue_timeout_s=settings.queue_timeout_s,
            group=settings.max_batch,
            metrics=metrics,
            tracing=self.parts.tracing,
            cache=cache,
        )
        return Loaded(engine, pipeline)

    def _load_model(self) -> Embedder:
        load_faiss()  # Missing, or installed twice: better said now than at the first search.
        settings = self.parts.settings
        embedder = Embedder.load(settings.checkpoint, arithmetic=settings.arithmetic)
        grey = np.full((embedder.input_size, embedder.input_size, 3), 128, np.uint8)
        embedder.embed_image(DecodedImage(grey, "PNG"))
        log.info(
            "model_serving",
            model=embedder.name,
            fingerprint=embedder.fingerprint,
            lipschitz_bound=embedder.lipschitz_bound,
            arithmetic=embedder.arithmetic,
        )
        return embedder
