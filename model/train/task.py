"""What one run minimises, and the table of what can be asked for by name."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from model.errors import TrainingError
from model.train.config import TrainConfig
from model.train.student import Student

TASKS: Mapping[str, str] = {
    "distill": "model.train.distill:build",
    "finetune": "model.train.finetune:build",
    "copies": "model.train.copies.task:build",
    "maps": "model.train.copies.maps_task:build",
}
"""Name of a task -> the function (config, sources) -> (student, task) that builds it."""


@runtime_checkable
class Task(Protocol):
    """What one run minimises.

    Everything random is drawn from generators seeded by (seed, step, ...), so that a batch is a
    pure function of the step: that is what makes a resumed run the same run.
    """

    @property
    def examples(self) -> int:
        """Pictures or triplets of an epoch."""
        ...

    def identity(self) -> dict[str, Any]:
        """What was trained on, as JSON: names, counts, digests; no paths.

        It is part of the checkpoint's record, and a run is not taken up again with another.
        """
        ...

    def batch(self, step: int, rank: int, world: int) -> Any:
        """This process's share of a step's global batch: tensors in dicts, lists or tuples.

        May run in a worker process; touches no accelerator.
        """
        ...

    def loss(self, student: Student, batch: Any) -> tuple[Tensor, dict[str, float | Tensor]]:
        """A scalar whose mean over processes is the loss of the global batch, and what to log."""
        ...

    def validate(self, student: Student) -> dict[str, float]:
        """Measurements on held-out data; `score` is among them, higher is better."""
        ...

    def finish(self, student: Student) -> None:
        """After the last step, before the last validation: a closed-form refit, or nothing."""
        ...


@dataclass(frozen=True)
class Sources:
    """Where a run finds what it reads; paths are no part of a config, what is there is.

    Attributes:
        data: pictures, or judged triplets.
        start: checkpoint whose weights the student starts from.
        teacher_weights: file or folder for teachers whose package carries no weights.
        embeddings: a teacher's embeddings, computed before.
        device: a torch device, for the teacher.
        work: folder for what can be made again; None where nothing is to be kept.
    """

    data: Path
    start: Path | None = None
    teacher_weights: Path | None = None
    embeddings: Path | None = None
    device: str = "cpu"
    work: Path | None = None


def build(config: TrainConfig, sources: Sources) -> tuple[Student, Task]:
    """The student and the task of a config.

    Raises:
        TrainingError: the task is unknown, or what it builds refuses config or data.
    """
    where = TASKS.get(config.task)
    if where is None:
        raise TrainingError(f"task must be one of {', '.join(TASKS)}, got {config.task!r:.40}")
    module, function = where.split(":")
    return getattr(importlib.import_module(module), function)(config, sources)
