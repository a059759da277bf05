"""Threads that take what waits: no timer, the batch is whatever came while they were at work."""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import structlog

from service.errors import DeadlineError, OverloadedError

JobT = TypeVar("JobT")
AnswerT = TypeVar("AnswerT")

log = structlog.stdlib.get_logger()

# An answer waits so long for others of its batch: each wake of the event loop interrupts the work.
HOLD_S = 0.02


class Outbox:
    """What one thread has for the event loop, handed over together."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._steps: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due = math.inf

    def add(self, loop: asyncio.AbstractEventLoop, step: Callable[[], None]) -> None:
        """Have a step run on the loop, within HOLD_S if somebody asks `flush_if_due`."""
        if not self._steps:
            self._loop, self._due = loop, self._clock() + HOLD_S
        self._steps.append(step)

    def flush_if_due(self) -> None:
        if self._clock() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Hand over, unless the loop has ended and nobody waits any more."""
        steps, self._steps, self._due = self._steps, [], math.inf
        if steps and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_run_all, steps)


def _run_all(steps: Sequence[Callable[[], None]]) -> None:
    for step in steps:
        step()


class Task(Generic[JobT, AnswerT]):
    """A job, who waits for its answer, and until when.

    Attributes:
        job: what is to be done.
        is_postponed: it was begun before and put back.
    """

    def __init__(
        self, job: JobT, clock: Callable[[], float], work_timeout_s: float, patience_s: float
    ) -> None:
        self.job, self.is_postponed = job, False
        self._clock, self._work_timeout_s = clock, work_timeout_s
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[AnswerT] = self._loop.create_future()
        self._has_begun, self._ends = False, clock() + patience_s
        self._look_later(patience_s)
        self._outbox = Outbox(clock)
        self.is_answered = False

    def check_deadline(self) -> None:
        """Called by a worker between pieces of work: whether to go on.

        Raises:
            DeadlineError: the time is up, or whoever waited has gone.
        """
        self._outbox.flush_if_due()
        if self.future.done() or self._clock() >= self._ends:
            raise self._too_long()

    def answer(self, answer: AnswerT | Exception) -> None:
        """Hand over the answer, or the error in its place; the first call counts."""
        if not self.is_answered:
            self.is_answered = True
            self._outbox.add(self._loop, lambda: self._finish(answer))
            self._outbox.flush_if_due()

    def begin(self, outbox: Outbox) -> None:
        """Called by a worker that takes it: the wait is over, the work's own time runs."""
        self._outbox = outbox
        if not self._has_begun:
            self._ends = self._clock() + self._work_timeout_s
            self._has_begun = True  # After its end: the event loop looks in between.

    def end(self) -> None:
        """On the event loop: nobody waits any more."""
        self._timer.cancel()

    def _look_later(self, seconds: float) -> None:
        # Not after work that begins in the meantime can be late: waking the event loop to say that
        # it begins would cost more than looking twice.
        self._timer = self._loop.call_later(min(seconds, self._work_timeout_s), self._look)

    def _look(self) -> None:
        """On the event loop: whether the wait, or the work, has taken too long."""
        has_begun = self._has_begun
        left = self._ends - self._clock()
        if left > 0.0:
            self._look_later(left)
        elif has_begun:
            self._finish(self._too_long())
        else:
            self._finish(OverloadedError("no worker was free in time", reason="queue_timeout"))

    def _too_long(self) -> DeadlineError:
        return DeadlineError(f"the work took longer than {self._work_timeout_s:g} s")

    def _finish(self, answer: AnswerT | Exception) -> None:
        if self.future.done():
            return
        if isinstance(answer, Exception):
            self.future.set_exception(answer)
        else:
            self.future.set_result(answer)


class Batcher(Generic[JobT, AnswerT]):
    """Runs jobs in `threads` threads, up to `max_batch` of them in one call of `work`.

    A free thread takes its share of what waits: all of it, or a part if others are free too; and
    one job that was put back, if there is one, so that long work takes turns with short work. A
    job whose caller has gone is passed over. A thread cannot be interrupted: `work` has to ask
    `Task.check_deadline` between pieces of work that are short.

    Args:
        work: answers the tasks of a batch, each as soon as it can; it returns those to be put
            back, which come again, one a batch, with `is_postponed`. If `work` itself raises, each
            task that has no answer yet is tried alone.
        prepare_thread: what each thread does first.
        clock: seconds, never backwards; looked at by the threads.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Task[JobT, AnswerT]]], Sequence[Task[JobT, AnswerT]]],
        *,
        threads: int,
        max_batch: int,
        work_timeout_s: float,
        prepare_thread: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work = work
        self._max_batch = max_batch
        self._work_timeout_s = work_timeout_s
        self._prepare_thread = prepare_thread
        self._clock = clock
        self._waiting: deque[Task[JobT, AnswerT]] = deque()
        self._postponed: deque[Task[JobT, AnswerT]] = deque()
        self._changed = threading.Condition()
        self._free = 0
        self._is_closed = False
        # What ended a thread that should live as long as the batcher. It is not replaced: readiness
        # should say so, and a supervisor restart a service that is no longer what it was.
        self.failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, name=f"batcher-{number}", daemon=True)
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
        task = Task[JobT, AnswerT](job, self._clock, self._work_timeout_s, patience_s)
        with self._changed:
            self._waiting.append(task)
            self._changed.notify()
        try:
            return await task.future
        finally:
            task.end()

    def close(self) -> None:
        """Wait for the work in hand; what no thread has taken yet is never run."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        try:
            self._prepare_thread()
            outbox = Outbox(self._clock)
            while batch := self._take():
                for task in batch:
                    task.begin(outbox)
                again = [*self._answer([task for task in batch if not task.is_postponed])]
                outbox.flush()
                again += self._answer([task for task in batch if task.is_postponed])
                outbox.flush()
                self._postpone(again)
        except BaseException as error:
            self.failure = error
            log.critical("worker_died", exc_info=error)
            raise

    def _take(self) -> list[Task[JobT, AnswerT]]:
        """A share of what waits and one task that was put back; nothing once closed."""
        with self._changed:
            self._free += 1
            batch: list[Task[JobT, AnswerT]] = []
            while not batch:
                if not self._is_closed:
                    batch = self._next(
                        self._waiting,
                        min(self._max_batch, math.ceil(len(self._waiting) / self._free)),
                    )
                batch += self._next(self._postponed, 1)
                if not batch:
                    if self._is_closed:
                        break
                    self._changed.wait()
            self._free -= 1
        return batch

    def _next(self, tasks: deque[Task[JobT, AnswerT]], count: int) -> list[Task[JobT, AnswerT]]:
        """Up to so many of a queue, without those that nobody waits for."""
        chosen: list[Task[JobT, AnswerT]] = []
        while tasks and len(chosen) < count:
            task = tasks.popleft()
            if not task.future.done():
                chosen.append(task)
        return chosen

    def _answer(self, batch: Sequence[Task[JobT, AnswerT]]) -> Sequence[Task[JobT, AnswerT]]:
        """Answer a batch; gives those to be put back."""
        if not batch:
            return ()
        try:
            return self._work(batch)
        except Exception as error:  # Whatever it is, it is the callers' to hear.
            if len(batch) == 1:
                batch[0].answer(error)
                return ()
            alone = [task for task in batch if not task.is_answered]
            return [again for task in alone for again in self._answer([task])]

    def _postpone(self, tasks: Sequence[Task[JobT, AnswerT]]) -> None:
        if tasks:
            with self._changed:
                for task in tasks:
                    task.is_postponed = True
                self._postponed.extend(tasks)
                self._changed.notify(len(tasks))
