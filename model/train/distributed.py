# pyright: basic
# torch.distributed has no types to speak of.
"""One run over several processes: ranks, gathered rows, and means that all agree on.

Started by torchrun, gloo on processors and nccl on accelerators. A run of N processes takes the
same steps as one process: every loss is that of the global batch, and gradients are averaged.
"""

import contextlib
import itertools
import os
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather

from model.cli.devices import check_device
from model.cli.progress import Progress
from model.errors import TrainingError

_PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others: validation and saving are the longest pauses."""

_LOST = ("gloo", "nccl", "connection closed", "connection reset", "timed out", "broken pipe")


T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among those of its run; rank 0 writes files and shows progress."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0


def current() -> World:
    """This process's place; alone where no group was joined."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return World()
    return World(distributed.get_rank(), distributed.get_world_size())


@contextlib.contextmanager
def joined(device: str) -> Generator[str]:
    """Takes the place that torchrun gives, if it started us; gives the device to run on.

    "cuda" becomes this process's own card.
    """
    kind = device.split(":", maxsplit=1)[0]
    is_alone = "RANK" not in os.environ or "WORLD_SIZE" not in os.environ
    if kind == "cuda" and not is_alone:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    check_device(device, TrainingError)
    if is_alone:
        yield device
        return
    if kind == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if kind == "cuda" else "gloo"
    with lost_company():
        distributed.init_process_group(backend, timeout=_PATIENCE)
    # Not destroyed after an error: with a process gone, that may wait for ever.
    yield device
    distributed.destroy_process_group()


@contextlib.contextmanager
def lost_company() -> Generator[None]:
    """Turns what a library says when another process is gone into one clear error."""
    try:
        yield
    except RuntimeError as exc:
        if current().size > 1 and any(word in str(exc).lower() for word in _LOST):
            raise TrainingError(
                "another process of this run ended or does not answer; start the same command "
                "again, and it goes on from the last saved state"
            ) from exc
        raise


def gather_rows(x: Float[Tensor, "n ..."]) -> Float[Tensor, "N ..."]:
    """The rows of all processes, by rank; every process must give as many.

    Differentiable. The gradient of a row is the sum of what all processes' losses say of it, so
    that gradients averaged over processes are those of the mean of the processes' losses, whether
    each computes its share of the global loss or the whole of it.
    """
    if current().size == 1:
        return x
    with lost_company():
        return torch.cat(list(all_gather(x)))


def global_mean(x: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The mean of a scalar over processes, differentiable; every process gets the same number."""
    return x if current().size == 1 else gather_rows(x[None]).mean()


def averaged(values: Sequence[float], device: str) -> list[float]:
    """The mean of each number over processes; every process gets the same numbers."""
    world = current()
    if world.size == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    with lost_company():
        distributed.all_reduce(total)
    return (total / world.size).tolist()


def progress() -> Progress:
    """What shows progress on standard error: of several processes, the first one's alone."""
    return Progress(sys.stderr if current().is_first else None)


def wait_for_all(device: str) -> None:
    """Returns once every process has come here."""
    averaged([0.0], device)


def own_share(places: Sequence[T]) -> Sequence[T]:
    """Those of some places, the same in every process, that are this one's to look at."""
    world = current()
    return places[world.rank :: world.size]


def gather_shares(found: Sequence[T]) -> list[T]:
    """What every process found at its own share of some places, in the order of all."""
    world = current()
    shares: list[Sequence[T]] = [()] * world.size
    shares[world.rank] = found
    if world.size > 1:
        with lost_company():
            distributed.all_gather_object(shares, found)
    every = list(itertools.chain.from_iterable(shares))
    for rank, share in enumerate(shares):
        every[rank :: world.size] = share
    return every


def places_of(step: int, batch_size: int, rank: int, world: int) -> range:
    """This process's places of a step's global batch, counted through all steps."""
    if batch_size % world:
        raise TrainingError(f"batch_size {batch_size} is not divisible by {world} processes")
    each = batch_size // world
    first = step * batch_size + rank * each
    return range(first, first + each)
