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


def map_in_order(
    function: Callable[[T], R],
    tasks: Sequence[T],
    workers: int,
    prepare: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[R]:
    """What a function gives for each task, in the order of the tasks.

    Args:
        function: of a module, since fresh processes must find it by name.
        tasks: its arguments.
        workers: processes; with 1 the work is done in this one.
        prepare: called once in each process before the first task.
        arguments: of `prepare`.

    Raises:
        CorpusError: a process died, most likely for want of memory.
    """
    if workers == 1:
        if prepare is not None:
            prepare(*arguments)
        yield from map(function, tasks)
        return
    pool = ProcessPoolExecutor(
        workers,
        # Forking a process that runs threads, as numpy's does, may deadlock.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(prepare, arguments),
    )
    try:
        yield from _submit(pool, function, tasks)
    except BrokenProcessPool as exc:
        raise CorpusError("a process died, most likely for want of memory; use fewer") from exc
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(
    pool: ProcessPoolExecutor, function: Callable[[T], R], tasks: Sequence[T]
) -> Iterator[R]:
    """Start the processes deaf to interrupts, which go to the whole group: the parent answers."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.map(function, tasks, chunksize=_CHUNK)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start(prepare: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare(*arguments)


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
