import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from service.errors import DeadlineError, OverloadedError
from service.work.batcher import Batcher, Task

Work = Callable[[Sequence[int]], Sequence[int | Exception]]
Story = Callable[["Batcher[int, int]"], Awaitable[None]]
Tasks = Sequence[Task[int, int]]


def run(story: Story, work: Work, **bounds: Any) -> None:
    """Tell a story with a batcher whose work answers a batch at once."""

    def answer(tasks: Tasks) -> Tasks:
        for task, answer in zip(tasks, work([task.job for task in tasks]), strict=True):
            task.answer(answer)
        return []

    run_tasks(story, answer, **bounds)


def run_tasks(story: Story, work: Callable[[Tasks], Tasks], **bounds: Any) -> None:
    """Tell a story with a batcher of one thread, and see that it closes."""
    limits: dict[str, Any] = {"threads": 1, "max_batch": 4, "work_timeout_s": 5.0, **bounds}
    batcher: Batcher[int, int] = Batcher(work, **limits, prepare_thread=lambda: None)

    async def whole() -> None:
        try:
            await story(batcher)
        finally:
            await asyncio.to_thread(batcher.close)

    asyncio.run(whole())


class Gate:
    """Work that waits for a gate, and remembers the batches that it was given."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, jobs: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(jobs))
        assert self.opened.wait(5)
        return [job + 100 for job in jobs]


def submit(batcher: "Batcher[int, int]", job: int, patience_s: float = 5.0) -> "asyncio.Task[int]":
    return asyncio.create_task(batcher.run(job, patience_s=patience_s))


def test_what_waits_while_a_thread_is_at_work_is_its_next_batch():
    gate = Gate()

    async def story(batcher: "Batcher[int, int]") -> None:
        first = submit(batcher, 0)
        await asyncio.sleep(0.05)
        others = [submit(batcher, job) for job in range(1, 7)]
        await asyncio.sleep(0.05)
        assert batcher.waiting == 6
        gate.opened.set()
        assert await asyncio.gather(first, *others) == [100, 101, 102, 103, 104, 105, 106]

    run(story, gate)
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_free_threads_share_what_waits():
    sizes: list[int] = []
    meeting = threading.Barrier(2)

    def work(jobs: Sequence[int]) -> Sequence[int]:
        sizes.append(len(jobs))
        meeting.wait(5)
        return jobs

    async def story(batcher: "Batcher[int, int]") -> None:
        await asyncio.sleep(0.05)
        # One thread alone would wait at the barrier for ever.
        await asyncio.gather(*(submit(batcher, job) for job in range(2)))

    run(story, work, threads=2)
    assert sizes == [1, 1]


def test_an_error_in_the_place_of_an_answer_is_that_callers_alone():
    def work(jobs: Sequence[int]) -> Sequence[int | Exception]:
        return [ValueError("three") if job == 3 else job for job in jobs]

    async def story(batcher: "Batcher[int, int]") -> None:
        tasks = [submit(batcher, job) for job in range(5)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [r for r in results if not isinstance(r, ValueError)] == [0, 1, 2, 4]
        assert isinstance(results[3], ValueError)

    run(story, work)


def test_a_batch_that_breaks_is_tried_one_by_one():
    calls: list[list[int]] = []

    def work(jobs: Sequence[int]) -> Sequence[int | Exception]:
        calls.append(list(jobs))
        time.sleep(0.1 if 0 in jobs else 0.0)
        if 2 in jobs:
            raise MemoryError("two is too much")
        return list(jobs)

    async def story(batcher: "Batcher[int, int]") -> None:
        tasks = [submit(batcher, 0)]
        await asyncio.sleep(0.05)
        tasks += [submit(batcher, job) for job in range(1, 4)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [results[i] for i in (0, 1, 3)] == [0, 1, 3]
        assert isinstance(results[2], MemoryError)

    run(story, work)
    assert calls == [[0], [1, 2, 3], [1], [2], [3]]


def test_a_job_that_waits_too_long_is_refused_and_never_run():
    gate = Gate()

    async def story(batcher: "Batcher[int, int]") -> None:
        first = submit(batcher, 0)
        await asyncio.sleep(0.05)
        with pytest.raises(OverloadedError, match="no worker"):
            await batcher.run(1, patience_s=0.05)
        gate.opened.set()
        assert await first == 100
        assert await batcher.run(2, patience_s=5.0) == 102

    run(story, gate)
    assert gate.batches == [[0], [2]]


def test_a_job_whose_caller_has_gone_is_passed_over():
    gate = Gate()

    async def story(batcher: "Batcher[int, int]") -> None:
        first = submit(batcher, 0)
        await asyncio.sleep(0.05)
        gone, kept = submit(batcher, 1), submit(batcher, 2)
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        gate.opened.set()
        assert await asyncio.gather(first, kept) == [100, 102]

    run(story, gate)
    assert gate.batches == [[0], [2]]


def busy_until_given_up(given_up: list[int]) -> Callable[[Tasks], Tasks]:
    """Work that never ends with job 0, but for a look at the clock between short pieces."""

    def work(tasks: Tasks) -> Tasks:
        for task in tasks:
            try:
                while task.job == 0:
                    task.check_deadline()
                    time.sleep(0.001)
                task.answer(task.job)
            except DeadlineError as error:
                given_up.append(task.job)
                task.answer(error)
        return []

    return work


def test_work_that_takes_too_long_is_answered_so_and_frees_its_thread():
    given_up: list[int] = []

    async def story(batcher: "Batcher[int, int]") -> None:
        with pytest.raises(DeadlineError, match=r"0\.1 s"):
            await batcher.run(0, patience_s=5.0)
        # The only thread is at work on 1 as soon as it has noticed: nothing else can free it.
        assert await batcher.run(1, patience_s=5.0) == 1

    run_tasks(story, busy_until_given_up(given_up), work_timeout_s=0.1)
    assert given_up == [0]


def test_work_whose_caller_hangs_up_frees_its_thread_long_before_its_time_is_up():
    given_up: list[int] = []

    async def story(batcher: "Batcher[int, int]") -> None:
        gone = submit(batcher, 0)
        await asyncio.sleep(0.05)
        gone.cancel()
        assert await batcher.run(1, patience_s=30.0) == 1

    run_tasks(story, busy_until_given_up(given_up), work_timeout_s=3600.0)
    assert given_up == [0]


def test_a_wait_may_be_longer_than_the_work_and_does_not_shorten_it():
    heard = threading.Event()

    def work(jobs: Sequence[int]) -> list[int]:
        if 0 in jobs:
            heard.wait(10.0)
        return list(jobs)

    async def story(batcher: "Batcher[int, int]") -> None:
        stuck = submit(batcher, 0)
        await asyncio.sleep(0.02)
        patient = submit(batcher, 1)
        with pytest.raises(DeadlineError):
            await stuck
        await asyncio.sleep(0.3)
        heard.set()
        assert await patient == 1

    run(story, work, work_timeout_s=0.1)


def test_a_thread_looks_at_its_own_clock_when_the_event_loop_is_late():
    given_up: list[int] = []

    async def story(batcher: "Batcher[int, int]") -> None:
        stuck = submit(batcher, 0)
        await asyncio.sleep(0.05)
        while not given_up:
            time.sleep(0.01)
        with pytest.raises(DeadlineError):
            await stuck

    run_tasks(story, busy_until_given_up(given_up), work_timeout_s=0.2)


def test_an_answer_does_not_wait_for_slow_work_in_its_batch():
    is_heard = threading.Event()

    def work(tasks: Tasks) -> Tasks:
        for task in tasks:
            while task.job == 2 and not is_heard.is_set():
                task.check_deadline()
                time.sleep(0.001)
            task.answer(task.job)
        return []

    async def story(batcher: "Batcher[int, int]") -> None:
        tasks = [submit(batcher, job) for job in range(4)]
        assert await tasks[1] == 1
        is_heard.set()
        assert await asyncio.gather(*tasks) == [0, 1, 2, 3]

    run_tasks(story, work)


def test_quick_work_wakes_the_event_loop_once_a_batch(
    monkeypatch: pytest.MonkeyPatch,
):
    wakes: list[str] = []

    async def story(batcher: "Batcher[int, int]") -> None:
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe

        def count(step: Callable[..., object], *arguments: object) -> asyncio.Handle:
            wakes.append(threading.current_thread().name)
            return wake(step, *arguments)

        monkeypatch.setattr(loop, "call_soon_threadsafe", count)
        assert await asyncio.gather(*(submit(batcher, job) for job in range(4))) == [0, 1, 2, 3]
        monkeypatch.undo()

    run(story, list, clock=lambda: 0.0)
    # One thread may take the first job before the others have come.
    assert wakes.count("batcher-0") == len(wakes) <= 2


def test_what_is_put_back_comes_again_one_a_batch_between_what_waits():
    batches: list[list[int]] = []

    def work(tasks: Tasks) -> Tasks:
        batches.append([task.job for task in tasks])
        time.sleep(0.05)
        again = [task for task in tasks if task.job < 3 and not task.is_postponed]
        for task in tasks:
            if task not in again:
                task.answer(task.job)
        return again

    async def story(batcher: "Batcher[int, int]") -> None:
        long = [submit(batcher, job) for job in range(3)]
        while not batches:
            await asyncio.sleep(0.001)
        short = [submit(batcher, job) for job in (10, 11)]
        assert await asyncio.gather(*long, *short) == [0, 1, 2, 10, 11]

    run_tasks(story, work)
    again = [batch for batch in batches if any(job < 3 for job in batch)][-3:]
    assert [[job for job in batch if job < 3] for batch in again] == [[0], [1], [2]]
    # The short ones did not wait for the long ones to end.
    assert {10, 11} <= {job for batch in batches[:-2] for job in batch}


def test_a_job_of_many_steps_comes_again_until_it_is_answered():
    steps: list[bool] = []

    def work(tasks: Tasks) -> Tasks:
        (task,) = tasks
        steps.append(task.is_postponed)
        if len(steps) < 4:
            return tasks
        task.answer(len(steps))
        return []

    async def story(batcher: "Batcher[int, int]") -> None:
        assert await asyncio.wait_for(submit(batcher, 1), 10) == 4

    run_tasks(story, work)
    assert steps == [False, True, True, True]


def test_a_thread_that_dies_is_told():
    def prepare() -> None:
        raise PermissionError("cannot be reniced")

    def ignore(_: object) -> None: ...

    old, threading.excepthook = threading.excepthook, ignore
    try:
        batcher: Batcher[int, int] = Batcher(
            lambda _: [], threads=1, max_batch=1, work_timeout_s=1.0, prepare_thread=prepare
        )
        batcher.close()
    finally:
        threading.excepthook = old
    assert isinstance(batcher.failure, PermissionError)


def test_the_wait_is_not_charged_to_the_work():
    def work(jobs: Sequence[int]) -> Sequence[int]:
        time.sleep(0.2)
        return jobs

    async def story(batcher: "Batcher[int, int]") -> None:
        tasks = [submit(batcher, job) for job in range(4)]
        assert await asyncio.gather(*tasks) == [0, 1, 2, 3]

    run(story, work, max_batch=1, work_timeout_s=0.5)


def test_closing_ends_the_threads_though_jobs_wait():
    gate = Gate()

    async def story(batcher: "Batcher[int, int]") -> None:
        first, second = submit(batcher, 0), submit(batcher, 1, patience_s=0.3)
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0.05)
        gate.opened.set()
        await closing
        assert await first in (100,)
        with pytest.raises(OverloadedError):
            await second

    run(story, gate, max_batch=1)
