"""Work done in several processes, its results in order."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from model.errors import CorpusError

_CHUNK = 8

T = TypeVar("T")
R = TypeVar("R")


def map_in_order(function: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[R]:
    """What a function gives for each task, in the order of the tasks.

    Args:
        function: picklable, since fresh processes must find it.
        tasks: its arguments.
        workers: processes; with 1 the work is done in this one.

    Raises:
        CorpusError: a process died, most likely for want of memory.
    """
    if workers == 1:
        yield from map(function, tasks)
        return
    # Forking a process that runs threads, as numpy's does, may deadlock.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawn, _start, (function,))
    # Processes start deaf to interrupts, which go to the whole group: the parent answers.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        results = pool.map(_work, tasks, chunksize=_CHUNK)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield from results
    except BrokenProcessPool as exc:
        raise CorpusError("a process died, most likely for want of memory; use fewer") from exc
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        pool.shutdown(wait=True, cancel_futures=True)


_function: list[Callable[[Any], Any]] = []
"""Of a worker process: sent once, not with each task, since it may hold much."""


def _start(function: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _function[:] = [function]


def _work(task: Any) -> Any:
    return _function[0](task)


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
