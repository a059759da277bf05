# pyright: basic
# torch's errors have no types to speak of.
"""A step that finds no memory, said in terms of what can be set."""

import contextlib
from collections.abc import Generator

import torch

from model.errors import TrainingError

# numpy's, torch's on processors, and what a worker process passes on as text.
_SAYINGS = ("unable to allocate", "can't allocate memory", "not enough memory", "out of memory")


@contextlib.contextmanager
def memory_for(batch_size: int) -> Generator[None]:
    """While a batch is made and learnt from: no room for it is an error that says so.

    Raises:
        TrainingError: there is no room.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as exc:
        said = str(exc).partition("\n")[0]
        is_room = isinstance(exc, MemoryError | torch.OutOfMemoryError)
        if not is_room and not any(words in str(exc).lower() for words in _SAYINGS):
            raise
        raise TrainingError(
            f"a step of batch_size {batch_size} does not fit in memory: set a smaller one, in "
            f"another folder, or start more processes ({said:.200})"
        ) from exc
