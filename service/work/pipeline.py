"""From the images of one request to its answer: decoded, put in a batch, answered or given up."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, TypeVar

from starlette.requests import Request
from starlette.types import Receive

from model.errors import RetrievalError
from service.admission import Slots
from service.decoding.pool import DecodePool
from service.decoding.query_image import QueryImage
from service.errors import ClientGoneError
from service.observability.metrics import Metrics
from service.observability.request_context import context_of
from service.observability.stopwatch import Stopwatch
from service.observability.tracing import Tracing
from service.work.batcher import Batcher
from service.work.cache.embeddings import EmbeddingCache
from service.work.jobs import Job

T = TypeVar("T")


class Wants(NamedTuple):
    """What is wanted of each image beside its embedding: more work, or the image itself."""

    pixels: bool = False
    """The hash of its decoded pixels."""
    trim: bool = False
    """It without its borders."""
    input: bool = False
    """What the network is given, which no cache has."""
    image: bool = False
    """Its decoded pixels themselves, which no cache has either."""


_NOTHING = Wants()

MakeJob = Callable[[tuple[QueryImage, ...], Stopwatch], Job]


# Hashing less than this takes less time (0.2 ms) than handing it to a thread under load does.
_SHORT_BYTES = 256 * 1024


@dataclass(frozen=True)
class Pipeline:
    """The stages that every image goes through; waiting for them has one budget, work its own.

    Attributes:
        decoders: make a file ready for the network.
        batcher: embeds and answers.
        slots: of requests at work or waiting for it.
        queue_timeout_s: longest wait of one image for decoders and workers together.
        group: images of one batch that go to the network together.
        metrics: told where the time of each request went, whatever became of it.
        tracing: likewise; None: no traces.
        cache: embeddings of files seen before; None: none is kept.
    """

    decoders: DecodePool
    batcher: Batcher[Job, bytes]
    slots: Slots
    _: KW_ONLY
    queue_timeout_s: float
    group: int
    metrics: Metrics
    tracing: Tracing | None = None
    cache: EmbeddingCache | None = None

    async def answer(
        self,
        request: Request,
        images: tuple[bytes, ...],
        make_job: MakeJob,
        wants: Wants = _NOTHING,
    ) -> bytes:
        """The answer to one request, as JSON.

        Args:
            request: its body was read; whoever sent it may hang up, and then nothing more is done.
            images: the files it holds.
            make_job: from the prepared images, the job of the worker threads.
            wants: what the job needs of each image.

        Raises:
            ImageError: an image cannot be used.
            OverloadedError: too many requests wait already, or this one waited too long.
            DeadlineError: decoding or the work after it took too long.
            ClientGoneError: nobody waits for the answer any more.
            RetrievalError: whatever else the job's own work raises.
        """
        with self.slots.take():
            watch = context_of(request.scope).watch = Stopwatch()
            work = self._answer(images, make_job, watch, wants)
            return await _unless_gone(request.receive, work)

    async def answer_each(
        self,
        request: Request,
        images: Sequence[bytes | RetrievalError],
        make_job: MakeJob,
        wants: Wants = _NOTHING,
    ) -> list[bytes | Exception]:
        """The answer to each image of a batch, as JSON, or the error that is its own.

        An error in place of an image is its answer. An image waits for its turn outside of the time
        that one may wait for decoders: only as many as keep those busy ask for them. As many as
        share a pass of the network go there together, whichever was decoded first.

        Raises:
            OverloadedError: there are no places for all of them at once.
            ClientGoneError: nobody waits for the answers any more.
        """
        decoding = asyncio.Semaphore(2 * self.decoders.size)

        async def answer(data: bytes, group: _Group) -> bytes | Exception:
            async with decoding:
                watch = Stopwatch()
                try:
                    job = await self._prepare_job((data,), make_job, watch, wants)
                except Exception as error:  # Whatever it is, the others are answered.
                    self._book(watch)
                    return error
                finally:
                    group.arrive()
            await group.wait()
            try:
                return await self._run(job)
            except Exception as error:
                return error
            finally:
                self._book(watch)

        with self.slots.take(len(images)):
            files = [data for data in images if isinstance(data, bytes)]
            groups = [
                _Group(len(files[n : n + self.group])) for n in range(0, len(files), self.group)
            ]
            works = [answer(data, groups[n // self.group]) for n, data in enumerate(files)]
            found = iter(await _unless_gone(request.receive, _all(works)))
        return [next(found) if isinstance(data, bytes) else data for data in images]

    async def close(self) -> None:
        await asyncio.to_thread(self.batcher.close)
        await self.decoders.close()

    async def _answer(
        self,
        images: tuple[bytes, ...],
        make_job: MakeJob,
        watch: Stopwatch,
        wants: Wants,
    ) -> bytes:
        try:
            return await self._run(await self._prepare_job(images, make_job, watch, wants))
        finally:
            self._book(watch)

    def _book(self, watch: Stopwatch) -> None:
        """Say where the time of one image, or of a request, went."""
        # Copies: a worker may still be at it.
        self.metrics.observe_stages(dict(watch.seconds))
        if self.tracing is not None:
            self.tracing.record_stages(tuple(watch.laps))

    async def _prepare_job(
        self,
        images: tuple[bytes, ...],
        make_job: MakeJob,
        watch: Stopwatch,
        wants: Wants,
    ) -> Job:
        if not images:
            watch.skip("cache")
            watch.skip("decode")
        # One after the other: a request of two images is no heavier on the others than two of one.
        return make_job(tuple([await self._prepare(data, watch, wants) for data in images]), watch)

    async def _run(self, job: Job) -> bytes:
        try:
            return await self.batcher.run(job, patience_s=self._patience_s(job.watch))
        finally:
            # Of a request that failed after it was embedded, too: the embedding is as good as any.
            if self.cache is not None:
                for image in job.images:
                    self.cache.keep(image)

    async def _prepare(self, data: bytes, watch: Stopwatch, wants: Wants) -> QueryImage:
        """The image of a file: from a cache, or decoded."""
        # Our own hash, never one that a decode process names: it is the key of the cache.
        sha256 = await _hash(data)
        if self.cache is not None:
            must_decode = wants.pixels or wants.input or wants.image
            found = None if must_decode else await self.cache.find(sha256, wants_trim=wants.trim)
            watch.lap("cache")
            if found is not None:
                watch.skip("decode")
                return found
        watch.skip("cache")
        image = await self.decoders.prepare(
            data,
            watch=watch,
            patience_s=self._patience_s(watch),
            wants_pixels=wants.pixels,
            wants_trim=wants.trim,
            wants_image=wants.image,
        )
        image.sha256 = sha256
        return image

    def _patience_s(self, watch: Stopwatch) -> float:
        """What is left of the time that a request may wait; the time at work is not counted."""
        return max(0.0, self.queue_timeout_s - watch.seconds.get("queue", 0.0))


class _Group:
    """Images that wait for one another, until each is decoded or has failed."""

    def __init__(self, size: int) -> None:
        self._missing = size
        self._is_complete = asyncio.Event()

    def arrive(self) -> None:
        self._missing -= 1
        if self._missing == 0:
            self._is_complete.set()

    async def wait(self) -> None:
        await self._is_complete.wait()


async def _all(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Their results in order; cancelled, it cancels all of them."""
    return list(await asyncio.gather(*works))


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work, which is cancelled when the client hangs up."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(receive))
    gone.add_done_callback(lambda _: task.cancel())
    try:
        return await task
    except asyncio.CancelledError as error:
        if not gone.done():
            raise  # It is this request that is cancelled.
        raise ClientGoneError("the connection closed before the answer was ready") from error
    finally:
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    """Wait until the client is gone; its body was read, so nothing else can come."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _hash(data: bytes) -> str:
    """SHA-256 of a file, hex; in a thread where it takes long, so that the loop goes on."""
    if len(data) <= _SHORT_BYTES:
        return hashlib.sha256(data).hexdigest()
    return await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
