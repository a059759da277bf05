import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.lifecycle import prepare_worker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="niceness is a process's there")


def own_niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_a_worker_steps_back_a_little_and_nobody_else():
    before = own_niceness()
    if before > 16:
        pytest.skip("started with hardly a niceness left to take")
    with ThreadPoolExecutor(1, initializer=prepare_worker, initargs=(1,)) as worker:
        assert worker.submit(own_niceness).result() == before + 3
    assert own_niceness() == before


@pytest.mark.parametrize("started_with", [17, 19])
def test_a_service_that_was_started_to_stand_back_keeps_its_workers(started_with: int):
    def start() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), started_with)
        prepare_worker(1)

    with ThreadPoolExecutor(1, initializer=start) as worker:
        assert worker.submit(own_niceness).result() == 19


def test_a_worker_that_may_not_step_back_works_all_the_same(monkeypatch: pytest.MonkeyPatch):
    def forbid(*_: int) -> None:
        raise PermissionError("as a sandbox says")

    monkeypatch.setattr(os, "setpriority", forbid)
    with ThreadPoolExecutor(1, initializer=prepare_worker, initargs=(1,)) as worker:
        assert worker.submit(own_niceness).result() == own_niceness()
