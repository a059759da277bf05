"""A bounded pool of threads for work that needs a core; waiting and working have a budget each."""

import asyncio
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from service.errors import DeadlineError, OverloadedError

T = TypeVar("T")


class WorkerPool:
    """Runs work in `workers` threads; refuses what would wait behind more than `max_queue` others.

    A thread cannot be interrupted: work that runs out of time is answered as such, goes on, and
    is counted until it ends, so that the bound stays honest.
    """

    def __init__(
        self,
        *,
        workers: int,
        max_queue: int,
        queue_timeout_s: float,
        work_timeout_s: float,
        prepare_thread: Callable[[], None],
    ) -> None:
        self._executor = ThreadPoolExecutor(workers, "worker", initializer=prepare_thread)
        self._capacity = workers + max_queue
        self._queue_timeout_s = queue_timeout_s
        self._work_timeout_s = work_timeout_s
        self._pending = 0

    async def run(self, work: Callable[[float], T]) -> T:
        """Result of `work(waited_s)`, run in a worker.

        Raises:
            OverloadedError: the queue is full, or the work waited too long for a worker.
            DeadlineError: the work took too long once begun.
        """
        if self._pending >= self._capacity:
            raise OverloadedError(f"{self._capacity} requests are in work or waiting already")
        loop = asyncio.get_running_loop()
        has_begun = asyncio.Event()
        entered = time.perf_counter()

        def begin() -> T:
            waited_s = time.perf_counter() - entered
            loop.call_soon_threadsafe(has_begun.set)
            return work(waited_s)

        self._pending += 1
        future = self._executor.submit(begin)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))
        try:
            return await self._wait(future, has_begun)
        finally:
            future.cancel()  # Still queued, and nobody waits any more: it need not run.

    async def _wait(self, future: Future[T], has_begun: asyncio.Event) -> T:
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await has_begun.wait()
        except TimeoutError as error:
            if future.cancel():
                raise OverloadedError(
                    f"no worker was free within {self._queue_timeout_s:g} s"
                ) from error
        result = asyncio.wrap_future(future)
        result.add_done_callback(_forget)
        await asyncio.wait({result}, timeout=self._work_timeout_s)
        if not result.done():
            raise DeadlineError(f"the work took longer than {self._work_timeout_s:g} s")
        return result.result()

    def _release(self) -> None:
        self._pending -= 1

    def close(self) -> None:
        """Wait for the work in hand; drop what is queued."""
        self._executor.shutdown(wait=True, cancel_futures=True)


class Admission:
    """Counts the requests whose bodies are held; refuses before a byte of one more is read."""

    def __init__(self, max_requests: int) -> None:
        self._free = max_requests
        self._max_requests = max_requests

    @contextmanager
    def admit(self) -> Generator[None]:
        """Hold one place for the time of a request.

        Raises:
            OverloadedError: every place is taken.
        """
        if self._free == 0:
            raise OverloadedError(f"{self._max_requests} requests are being received already")
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class ByteBudget:
    """Counts the bytes of every body in hand; many large ones could fill the memory otherwise."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    def take(self, count: int) -> None:
        """Hold so many bytes more.

        Raises:
            OverloadedError: together with what is held they are too many; none of them is held.
        """
        if self._held + count > self._max_bytes:
            raise OverloadedError(
                f"the requests in hand may hold {self._max_bytes} bytes of bodies together"
            )
        self._held += count

    def give_back(self, count: int) -> None:
        """Let so many bytes go."""
        self._held -= count


def _forget(result: asyncio.Future[T]) -> None:
    """Take the outcome of work that nobody waits for, lest it is reported as never retrieved."""
    if not result.cancelled():
        result.exception()
