"""From the images of one request to its answer: decoded, put in a batch, answered or given up."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.types import Receive

from service.admission import Places
from service.cache.embeddings import CacheCounts, EmbeddingCache, hash_file
from service.decoding.pool import DecodePool
from service.decoding.query_image import QueryImage
from service.errors import ClientGoneError
from service.observability.request_context import context_of
from service.observability.stopwatch import Stopwatch
from service.work.batcher import Batcher
from service.work.jobs import Job

T = TypeVar("T")

MakeJob = Callable[[list[QueryImage], Stopwatch], Job]


class Pipeline:
    """The stages that every image goes through; waiting for them has one budget, work its own.

    `on_end` is told where the time of each request went, whatever became of it.
    """

    def __init__(
        self,
        decoders: DecodePool,
        batcher: Batcher[Job, bytes],
        places: Places,
        *,
        queue_timeout_s: float,
        on_end: Callable[[Stopwatch], None],
        cache: EmbeddingCache | None = None,
    ) -> None:
        self._decoders = decoders
        self._batcher = batcher
        self._places = places
        self._queue_timeout_s = queue_timeout_s
        self._on_end = on_end
        self._cache = cache

    async def answer(
        self,
        request: Request,
        images: tuple[bytes, ...],
        make_job: MakeJob,
        *,
        wants_pixels: bool = False,
    ) -> bytes:
        """The answer to one request, as JSON.

        Args:
            request: its body was read; whoever sent it may hang up, and then nothing more is done.
            images: the files it holds.
            make_job: from the prepared images, the job of the worker threads.
            wants_pixels: hash the decoded pixels of each image too.

        Raises:
            ImageError: an image cannot be used.
            OverloadedError: too many requests wait already, or this one waited too long.
            DeadlineError: decoding or the work after it took too long.
            ClientGoneError: nobody waits for the answer any more.
            RetrievalError: whatever else the job's own work raises.
        """
        with self._places.take():
            work = self._measured(request, images, make_job, wants_pixels=wants_pixels)
            return await _unless_gone(request.receive, work)

    @property
    def waiting(self) -> int:
        """Requests that no worker has taken yet."""
        return self._batcher.waiting

    @property
    def cache_counts(self) -> CacheCounts | None:
        """What the caches were asked and had; None without one."""
        return None if self._cache is None else self._cache.counts

    @property
    def decoders(self) -> int:
        """Number of decode processes."""
        return self._decoders.size

    @property
    def decoding(self) -> int:
        """Decode processes at work."""
        return self._decoders.busy

    async def close(self) -> None:
        """Finish the batches in hand, end the decode processes."""
        await asyncio.to_thread(self._batcher.close)
        await self._decoders.close()

    async def _measured(
        self,
        request: Request,
        images: tuple[bytes, ...],
        make_job: MakeJob,
        *,
        wants_pixels: bool,
    ) -> bytes:
        watch = context_of(request.scope).watch = Stopwatch()
        try:
            return await self._answer(images, make_job, watch, wants_pixels=wants_pixels)
        finally:
            self._on_end(watch)

    async def _answer(
        self,
        images: tuple[bytes, ...],
        make_job: MakeJob,
        watch: Stopwatch,
        *,
        wants_pixels: bool,
    ) -> bytes:
        # One after the other: a request of two images is no heavier on the others than two of one.
        prepared = [await self._prepare(data, watch, wants_pixels=wants_pixels) for data in images]
        job = make_job(prepared, watch)
        try:
            return await self._batcher.run(job, patience_s=self._patience_s(watch))
        finally:
            # Of a request that failed after it was embedded, too: the embedding is as good as any.
            if self._cache is not None:
                for image in prepared:
                    self._cache.keep(image)

    async def _prepare(self, data: bytes, watch: Stopwatch, *, wants_pixels: bool) -> QueryImage:
        """The image of a file: from a cache, or decoded, which its pixels' hash takes."""
        sha256 = await hash_file(data)
        if self._cache is not None:
            found = None if wants_pixels else await self._cache.find(sha256)
            watch.lap("cache")
            if found is not None:
                watch.skip("decode")
                return found
        watch.skip("cache")
        made = await self._decoders.prepare(
            data, watch=watch, patience_s=self._patience_s(watch), wants_pixels=wants_pixels
        )
        return QueryImage(
            sha256,
            made.format,
            made.input,
            pixels_sha256=made.pixels_sha256,
            is_truncated=made.is_truncated,
        )

    def _patience_s(self, watch: Stopwatch) -> float:
        """What is left of the time that a request may wait; the time at work is not counted."""
        return max(0.0, self._queue_timeout_s - watch.seconds.get("queue", 0.0))


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work, which is cancelled when the client hangs up."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError("the connection closed before the answer was ready")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    """Wait until the client is gone; its body was read, so nothing else can come."""
    while (await receive())["type"] != "http.disconnect":
        pass
