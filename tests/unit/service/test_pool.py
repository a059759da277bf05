import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from service.errors import DeadlineError, OverloadedError
from service.pool import Admission, ByteBudget, WorkerPool

Story = Callable[[WorkerPool], Awaitable[None]]


def run(story: Story, **bounds: float) -> None:
    """Tell a story with a pool of one worker, and see that it closes."""
    limits = {"workers": 1, "max_queue": 1, "queue_timeout_s": 5.0, "work_timeout_s": 5.0, **bounds}
    pool = WorkerPool(**limits, prepare_thread=lambda: None)

    async def whole() -> None:
        try:
            await story(pool)
        finally:
            await asyncio.to_thread(pool.close)

    asyncio.run(whole())


def test_work_gets_its_waiting_time_and_gives_its_result():
    async def story(pool: WorkerPool) -> None:
        waited = await pool.run(lambda waited_s: waited_s)
        assert 0 <= waited < 1

    run(story)


def test_an_error_of_the_work_is_the_callers():
    def fail(_: float) -> None:
        raise TimeoutError("the work's own")

    async def story(pool: WorkerPool) -> None:
        with pytest.raises(TimeoutError, match="the work's own"):
            await pool.run(fail)

    run(story)


def test_one_more_than_fits_is_refused_and_the_rest_is_done():
    async def story(pool: WorkerPool) -> None:
        gate = threading.Event()
        waiting = [asyncio.create_task(pool.run(lambda _: gate.wait(5))) for _ in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(OverloadedError, match="2 requests"):
            await pool.run(lambda _: None)
        gate.set()
        assert await asyncio.gather(*waiting) == [True, True]
        assert await pool.run(lambda _: "again") == "again"

    run(story)


def test_work_that_waits_too_long_is_refused_and_never_run():
    async def story(pool: WorkerPool) -> None:
        gate = threading.Event()
        ran: list[int] = []
        first = asyncio.create_task(pool.run(lambda _: gate.wait(5)))
        await asyncio.sleep(0.05)
        with pytest.raises(OverloadedError, match="no worker was free"):
            await pool.run(lambda _: ran.append(1))
        gate.set()
        await first
        await pool.run(lambda _: None)
        assert ran == []

    run(story, queue_timeout_s=0.1)


def test_work_that_takes_too_long_is_counted_until_it_ends():
    async def story(pool: WorkerPool) -> None:
        gate = threading.Event()

        def fail_late(_: float) -> None:
            gate.wait(5)
            raise ValueError("nobody listens")

        with pytest.raises(DeadlineError):
            await pool.run(fail_late)
        with pytest.raises(OverloadedError):
            await pool.run(lambda _: None)
        gate.set()
        await asyncio.sleep(0.1)
        assert await pool.run(lambda _: 1) == 1

    run(story, work_timeout_s=0.1, max_queue=0)


def test_the_wait_is_not_charged_to_the_work():
    async def story(pool: WorkerPool) -> None:
        def work(_: float) -> bool:
            time.sleep(0.2)
            return True

        assert all(await asyncio.gather(*(pool.run(work) for _ in range(4))))

    run(story, max_queue=8, work_timeout_s=0.5)


def test_work_whose_caller_gives_up_in_the_queue_is_dropped():
    async def story(pool: WorkerPool) -> None:
        gate = threading.Event()
        ran: list[int] = []
        first = asyncio.create_task(pool.run(lambda _: gate.wait(5)))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(pool.run(lambda _: ran.append(1)))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        gate.set()
        await first
        await pool.run(lambda _: None)
        assert ran == []

    run(story)


def test_admission_gives_back_its_places():
    admission = Admission(1)
    for _ in range(3):
        with admission.admit(), pytest.raises(OverloadedError), admission.admit():
            pytest.fail("a second was let in")


def test_bytes_are_held_up_to_the_budget_and_not_one_more():
    budget = ByteBudget(10)
    budget.take(4)
    budget.take(6)
    with pytest.raises(OverloadedError, match="10 bytes"):
        budget.take(1)
    budget.give_back(1)
    budget.take(1)
    with pytest.raises(OverloadedError):
        budget.take(1)
