import os
import threading
from concurrent.futures import ThreadPoolExecutor

from service.lifecycle import prepare_thread


def own_niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_a_worker_lets_everything_else_go_first():
    before = own_niceness()
    with ThreadPoolExecutor(1, initializer=prepare_thread(1)) as worker:
        assert worker.submit(own_niceness).result() > before
    assert own_niceness() == before
