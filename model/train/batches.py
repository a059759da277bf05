# pyright: basic
# torch's loader has no types to speak of.
"""Batches on their way to a step: made ahead by worker processes, moved to the device."""

import itertools
from collections.abc import Generator
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.cli.threads import limit_threads
from model.errors import RetrievalError
from model.train.config import TrainConfig
from model.train.distributed import World
from model.train.task import Task


def batches(
    task: Task, world: World, first: int, config: TrainConfig, *, device: str
) -> Generator[dict[str, Tensor]]:
    """This process's batches from a step on, in order, their tensors on the device.

    Each is a pure function of the step, so that worker processes may make them ahead.
    """
    loader = DataLoader(
        _Steps(task, world),
        sampler=range(first, config.steps) if config.steps else itertools.count(first),
        batch_size=None,
        collate_fn=lambda batch: batch,
        num_workers=config.workers,
        # Not what Python prefers from 3.14 on: a task holds what cannot be pickled, or should not
        # be copied. Workers touch no accelerator.
        multiprocessing_context="fork" if config.workers else None,
        worker_init_fn=_one_thread,
        pin_memory=device.startswith("cuda"),  # or a copy waits for the step before
    )
    for batch in loader:
        if isinstance(batch, Exception):
            raise batch
        yield {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def _one_thread(worker: int) -> None:  # noqa: ARG001
    """There is a worker for every core that is to be used."""
    limit_threads(1)


class _Steps(Dataset[Any]):
    def __init__(self, task: Task, world: World) -> None:
        self._task, self._world = task, world

    def __getitem__(self, step: int) -> Any:
        try:
            return self._task.batch(step, self._world.rank, self._world.size)
        except (RetrievalError, OSError) as exc:
            return exc  # raised in a worker, its message would arrive wrapped in a traceback
