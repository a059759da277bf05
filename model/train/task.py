"""What one run minimises, what it reads, and the student that it starts from."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor

from model.cli.problems import problems
from model.errors import TrainingError
from model.nets.checkpoint import load_checkpoint
from model.nets.presets import PRESETS, EmbedderConfig, PublishedConfig
from model.train.config import TrainConfig
from model.train.copies import wave_student
from model.train.copies.wave_student import WaveStudent
from model.train.sll_student import SllStudent, initial_weights
from model.train.student import Student


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

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """This process's share of a step's global batch.

        May run in a worker process; touches no accelerator.
        """
        ...

    def loss(
        self, student: Student, batch: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """A scalar whose mean over processes is the loss of the global batch, and what to log."""
        ...

    def validate(self, student: Student) -> dict[str, float]:
        """Measurements on held-out data; `score` is among them, higher is better."""
        ...


@dataclass(frozen=True)
class Sources:
    """Where a run finds what it reads; paths are no part of a config, what is there is."""

    data: Path  # pictures, or judged triplets
    work: Path  # folder for what can be made again
    start: Path | None = None  # checkpoint whose weights the student starts from
    teacher_weights: Path | None = None  # for teachers whose package carries none
    embeddings: Path | None = None  # a teacher's, computed before
    device: str = "cpu"  # for the teacher


def fresh_student(config: TrainConfig, embedding_dim: int | None = None) -> Student:
    """A student with its initial draws.

    Sizes are the config's, where they are set; else the given length of an embedding, the preset's.
    """
    shape = PRESETS[config.preset]
    wanted = {
        "embedding_dim": config.embedding_dim or embedding_dim or shape.embedding_dim,
        "input_size": config.input_size or shape.input_size,
    }
    try:
        shape = dataclasses.replace(shape, **wanted)
    except ValidationError as exc:
        said = f"preset {config.preset} with {wanted}: {problems(exc)}"
        raise TrainingError(said) from exc
    if isinstance(shape, PublishedConfig):
        return student_of(shape, initial_weights(shape, config.seed))
    return student_of(shape, wave_student.initial_weights(shape))


def stored_student(path: Path) -> tuple[Student, str]:
    """The student that a checkpoint file holds, and the file's fingerprint."""
    checkpoint = load_checkpoint(path)
    return student_of(checkpoint.config, checkpoint.weights), checkpoint.fingerprint


def student_of(config: EmbedderConfig, weights: Mapping[str, Float[np.ndarray, "..."]]) -> Student:
    """A student of either architecture with given weights."""
    if isinstance(config, PublishedConfig):
        return SllStudent(config, weights)
    return WaveStudent(config, weights)
