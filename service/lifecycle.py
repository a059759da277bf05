"""What lives as long as the service: the model, the shelf of indexes, the workers, the watcher."""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import structlog

from index_builder.search.faiss_flat import load_faiss
from model.embedder import Embedder
from model.errors import RetrievalError
from model.pixels.decode import DecodedImage
from service.admission import Places
from service.errors import NotReadyError
from service.http.drain import Drain
from service.observability.metrics import Metrics
from service.schemas.parts import DEFAULT_INDEX
from service.work.engine import Engine
from service.work.index_registry import Shelf
from service.work.pipeline import Pipeline

T = TypeVar("T")
Arithmetic = Literal["float64", "float32"]
Reason = Literal[
    "draining", "loading_model", "model_refused", "loading_indexes", "no_index", "index_refused"
]

_ADVICE: dict[Reason, str] = {
    "draining": "the service was told to stop: send nothing more",
    "loading_model": "the model is being loaded and its bounds proved",
    "model_refused": "the checkpoint was refused; see the log",
    "loading_indexes": "the indexes are being opened and verified",
    "no_index": "there is no index: make one with `python -m index_builder build SOURCE`; "
    "/v1/embed and /v1/similarity work without",
    "index_refused": "the default index could not be opened; see `indexes` and the log",
}

# Torch's own threads inherit it from the worker that starts them.
_WORKER_NICENESS = 10

log = structlog.stdlib.get_logger()


class Runtime:
    """Loads in the background, so that probes are answered from the first moment.

    Embedding and comparing need the model alone; searching needs an index. `on_fatal` is told when
    the model is refused, as waiting cannot cure that.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        checkpoint: Path | None,
        arithmetic: Arithmetic,
        receiving: Places,
        drain: Drain,
        metrics: Metrics,
        open_pipeline: Callable[[Engine], Awaitable[Pipeline]],
        poll_interval_s: float,
        on_fatal: Callable[[Exception], None] | None = None,
    ) -> None:
        self.receiving = receiving
        self._drain = drain
        self._metrics = metrics
        self._open_pipeline = open_pipeline
        self._pipeline: Pipeline | None = None
        self._data_dir = data_dir
        self._checkpoint = checkpoint
        self._arithmetic: Arithmetic = arithmetic
        self._poll_interval_s = poll_interval_s
        self._on_fatal = on_fatal
        self._engine: Engine | None = None
        self._is_refused = False
        self._has_looked = False
        # Loading and opening are long: they have a thread of their own, never a worker's.
        self._loader = ThreadPoolExecutor(1, "loader")
        self._watcher: asyncio.Task[None] | None = None

    @property
    def engine(self) -> Engine:
        """The engine, once the model is loaded.

        Raises:
            NotReadyError: it is not, yet.
        """
        if self._engine is None:
            raise NotReadyError(_ADVICE["model_refused" if self._is_refused else "loading_model"])
        return self._engine

    @property
    def pipeline(self) -> Pipeline:
        """What images go through, once the model is loaded.

        Raises:
            NotReadyError: it is not, yet.
        """
        if self._pipeline is None:
            raise NotReadyError(_ADVICE["model_refused" if self._is_refused else "loading_model"])
        return self._pipeline

    @property
    def serving_engine(self) -> Engine:
        """The engine, once the indexes have been looked at too.

        Raises:
            NotReadyError: they have not, yet.
        """
        engine = self.engine
        if not self._has_looked:
            raise NotReadyError(_ADVICE["loading_indexes"])
        return engine

    @property
    def opened_pipeline(self) -> Pipeline | None:
        """The pipeline, once the model is loaded."""
        return self._pipeline

    @property
    def embedder(self) -> Embedder | None:
        """The model, once it is loaded."""
        return None if self._engine is None else self._engine.embedder

    @property
    def shelf(self) -> Shelf | None:
        """The indexes, once the model is loaded."""
        return None if self._engine is None else self._engine.shelf

    def unready_reason(self) -> tuple[Reason, str] | None:
        """Why no search can be answered, for machines and for people; None when one can.

        Ready means: the model is warm, the data directory has been looked through, some index
        serves, and the default one too if there is one.
        """
        reason: Reason | None = None
        if self._drain.has_begun:
            reason = "draining"
        elif self._engine is None or self._pipeline is None:
            reason = "model_refused" if self._is_refused else "loading_model"
        elif not self._has_looked:
            reason = "loading_indexes"
        else:
            entries = self._engine.shelf.entries()
            if any(e.index is None and e.name == DEFAULT_INDEX for e in entries):
                reason = "index_refused"
            elif not any(e.index for e in entries):
                reason = "index_refused" if entries else "no_index"
        return None if reason is None else (reason, _ADVICE[reason])

    def start(self) -> None:
        """Begin to load; returns at once."""
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Finish the work in hand and let everything go."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await asyncio.to_thread(self._loader.shutdown, wait=True, cancel_futures=True)
        if self._pipeline is not None:
            await self._pipeline.close()
        if self._engine is not None:
            self._engine.shelf.close()

    async def _watch(self) -> None:
        try:
            embedder = await self._load(self._load_model)
            shelf = Shelf(self._data_dir, embedder.fingerprint, embedder.decode_policy)
            engine = Engine(embedder, shelf, self._metrics)
            self._pipeline = await self._open_pipeline(engine)
        except Exception as error:  # Whatever it is, waiting cannot cure it.
            self._is_refused = True
            # Our own errors say it all; what nobody foresaw needs its traceback.
            is_ours = isinstance(error, RetrievalError)
            trace = None if is_ours else error
            log.error("model_refused", problem=str(error), exc_info=trace)  # noqa: TRY400
            if self._on_fatal is not None:
                self._on_fatal(error)
            return
        self._engine = engine
        while True:
            try:
                await self._load(shelf.refresh)
            except OSError:
                log.exception("data_dir_unreadable")
            self._has_looked = True
            await asyncio.sleep(self._poll_interval_s)

    async def _load(self, step: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._loader, step)

    def _load_model(self) -> Embedder:
        load_faiss()  # Missing, or installed twice: better said now than at the first search.
        embedder = Embedder.load(self._checkpoint, arithmetic=self._arithmetic)
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


def prepare_thread(threads: int) -> Callable[[], None]:
    """What each worker does first: bound FAISS's threads, which OpenMP counts thread by thread.

    And go last: while the network runs, a short task (a request to read, an image to decode) finds
    a core at once, and the next batch is the larger for it. Measured on one core: a fifth more
    answers a second.
    """

    def prepare() -> None:
        if sys.platform == "linux":  # Elsewhere a niceness is the whole process's.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _WORKER_NICENESS)
        load_faiss().omp_set_num_threads(threads)

    return prepare
