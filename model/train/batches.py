# pyright: basic
# torch's loader has no types to speak of.
"""Batches on their way to a step: made ahead by worker processes, moved to the device."""

import itertools
from collections.abc import Generator
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.errors import RetrievalError
from model.train.distributed import World
from model.train.task import Task


def batches(
    task: Task, world: World, *, first: int, last: int, workers: int, device: str
) -> Generator[Any]:
    """This process's batches, step by step, in order.

    Args:
        task: makes them; each is a pure function of the step, so making them ahead is harmless.
        world: this process's place.
        first: step of the first batch.
        last: step before which to end; 0: never.
        workers: processes that make them; 0: this one does.
        device: where their tensors go.

    Raises:
        RetrievalError: what making a batch raised, in whichever process.
    """
    loader = DataLoader(
        _Steps(task, world),
        sampler=range(first, last) if last else itertools.count(first),
        batch_size=None,
        collate_fn=_as_is,
        num_workers=workers,
    )
    for batch in loader:
        if isinstance(batch, Exception):
            raise batch
        yield to_device(batch, device)


def to_device(batch: Any, device: str) -> Any:
    """The batch with its tensors moved; everything else as it is."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


class _Steps(Dataset[Any]):
    """Batches by step, as a data loader wants them."""

    def __init__(self, task: Task, world: World) -> None:
        self._task, self._world = task, world

    def __getitem__(self, step: int) -> Any:
        try:
            return self._task.batch(step, self._world.rank, self._world.size)
        except (RetrievalError, OSError) as exc:
            return exc  # raised in a worker, its message would arrive wrapped in a traceback


def _as_is(batch: Any) -> Any:
    return batch
