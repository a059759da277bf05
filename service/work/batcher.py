"""Threads that take what waits: no timer, the batch is whatever came while they were at work."""

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.errors import DeadlineError, OverloadedError

JobT = TypeVar("JobT")
AnswerT = TypeVar("AnswerT")


@dataclass(eq=False)
class _Item(Generic[JobT, AnswerT]):
    job: JobT
    future: "asyncio.Future[AnswerT]"
    loop: asyncio.AbstractEventLoop
    timer: asyncio.TimerHandle | None = field(default=None)


class Batcher(Generic[JobT, AnswerT]):
    """Runs jobs in `threads` threads, up to `max_batch` of them in one call of `work`.

    A free thread takes its share of what waits: all of it, or a part if others are free too. A job
    whose caller has gone is passed over. A thread cannot be interrupted: a job that runs out of
    time is answered as such while its batch goes on.

    Args:
        work: answers of a batch, in its order; an exception in the place of an answer is raised to
            that caller. If `work` itself raises, each job of the batch is tried alone.
        prepare_thread: what each thread does first.
    """

    def __init__(
        self,
        work: Callable[[Sequence[JobT]], Sequence[AnswerT | Exception]],
        *,
        threads: int,
        max_batch: int,
        work_timeout_s: float,
        prepare_thread: Callable[[], None],
    ) -> None:
        self._work = work
        self._max_batch = max_batch
        self._work_timeout_s = work_timeout_s
        self._prepare_thread = prepare_thread
        self._waiting: deque[_Item[JobT, AnswerT]] = deque()
        self._changed = threading.Condition()
        self._free = 0
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"batcher-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that no thread has taken yet."""
        return len(self._waiting)

    async def run(self, job: JobT, *, patience_s: float) -> AnswerT:
        """The answer to a job.

        Args:
            job: what `work` is given.
            patience_s: longest wait for a thread.

        Raises:
            OverloadedError: no thread was free in time.
            DeadlineError: the work took too long once begun.
        """
        loop = asyncio.get_running_loop()
        item = _Item[JobT, AnswerT](job, loop.create_future(), loop)
        item.timer = loop.call_later(patience_s, self._give_up, item)
        with self._changed:
            self._waiting.append(item)
            self._changed.notify()
        try:
            return await item.future
        finally:
            item.timer.cancel()

    def close(self) -> None:
        """Wait for the batches in hand; what still waits is never run."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _give_up(self, item: _Item[JobT, AnswerT]) -> None:
        if not item.future.done():
            item.future.set_exception(
                OverloadedError("no worker was free in time", reason="queue_timeout")
            )

    def _serve(self) -> None:
        self._prepare_thread()
        while batch := self._take():
            _on_loop(batch[0].loop, self._begin, batch)
            answers = self._answers(batch)
            _on_loop(batch[0].loop, _finish, batch, answers)

    def _take(self) -> list[_Item[JobT, AnswerT]]:
        """A share of what waits, once something does; nothing once closed."""
        with self._changed:
            self._free += 1
            batch: list[_Item[JobT, AnswerT]] = []
            while not batch and not self._is_closed:
                if not self._waiting:
                    self._changed.wait()
                    continue
                share = min(self._max_batch, math.ceil(len(self._waiting) / self._free))
                while self._waiting and len(batch) < share:
                    item = self._waiting.popleft()
                    if not item.future.done():
                        batch.append(item)
            self._free -= 1
            return batch

    def _answers(self, batch: Sequence[_Item[JobT, AnswerT]]) -> Sequence[AnswerT | Exception]:
        try:
            return self._work([item.job for item in batch])
        except Exception as error:  # Whatever it is, it is the callers' to hear.
            if len(batch) == 1:
                return [error]
            return [answer for item in batch for answer in self._answers([item])]

    def _begin(self, batch: Sequence[_Item[JobT, AnswerT]]) -> None:
        """On the event loop: the wait is over, the work's own time runs."""
        for item in batch:
            if item.timer is not None and not item.future.done():
                item.timer.cancel()
                item.timer = item.loop.call_later(self._work_timeout_s, self._run_out, item)

    def _run_out(self, item: _Item[JobT, AnswerT]) -> None:
        if not item.future.done():
            item.future.set_exception(
                DeadlineError(f"the work took longer than {self._work_timeout_s:g} s")
            )


def _finish(batch: Sequence[_Item[JobT, AnswerT]], answers: Sequence[AnswerT | Exception]) -> None:
    for item, answer in zip(batch, answers, strict=True):
        if item.future.done():
            continue
        if isinstance(answer, Exception):
            item.future.set_exception(answer)
        else:
            item.future.set_result(answer)


def _on_loop(
    loop: asyncio.AbstractEventLoop, step: Callable[..., None], *arguments: object
) -> None:
    """Run a step on the event loop, unless that has ended and nobody waits any more."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(step, *arguments)
