"""How many threads one call into torch or a BLAS library may use, for the whole process."""

import torch
from threadpoolctl import threadpool_limits


def limit_threads(count: int) -> None:
    """Let one call use at most so many threads; call it once, when a program starts.

    Programs here run many small calls side by side. Threads inside a small call wait for each
    other more than they work: on two busy cores a certificate took 21 ms with two, 2 ms with one.

    Args:
        count: threads, >= 1.
    """
    torch.set_num_threads(count)
    threadpool_limits(limits=count, user_api="blas")
