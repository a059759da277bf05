"""How many cores a process may use, and how many threads one call into torch or a BLAS library."""

import os
from pathlib import Path

from threadpoolctl import threadpool_limits

_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def limit_threads(count: int) -> None:
    """Let one call use at most so many threads; call it once, when a program starts.

    Programs here run many small calls side by side. Threads inside a small call wait for each
    other more than they work: on two busy cores a certificate took 21 ms with two, 2 ms with one.
    """
    import torch  # noqa: PLC0415 - takes seconds, and counting cores does without it

    torch.set_num_threads(count)
    threadpool_limits(limits=count, user_api="blas")


def usable_cores(limit_file: Path = _CGROUP_LIMIT) -> float:
    """Cores by affinity and by the container's limit, whichever is less; never 0.

    Args:
        limit_file: a quota and a period in microseconds, or "max", as control groups say it.
    """
    count = os.cpu_count() or 1
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count)
    try:
        quota, period = limit_file.read_text().split()
        return min(cores, int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # No limit, or none that is known here.
        return cores
