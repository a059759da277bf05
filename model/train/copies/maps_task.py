# pyright: basic
"""The task `maps`: every weight of the default model, on the loss of the task `copies`.

It starts from a network whose head was fitted, and the head is fitted again after it: features that
a head reads best are what this task is for.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from model.errors import TrainingError
from model.train.config import TrainConfig
from model.train.copies.banks import input_bank
from model.train.copies.material import gathered, validation_inputs, wave_student
from model.train.copies.task import EditedCopiesTask
from model.train.student import Student
from model.train.task import Sources

_PER_PASS = 64
"""Pictures, and as many copies, that go through the network at once: they stay in a core's cache,
and a step is 1.7 times as fast as with all of them in one pass."""


def build(config: TrainConfig, sources: Sources) -> tuple[Student, "MapsTask"]:
    """The student, as a checkpoint has it, and the task."""
    if sources.start is None:
        raise TrainingError("the task maps starts from a network with a fitted head: give --from")
    student, start = wave_student(config, sources)
    settings, size = config.maps, student.config.input_size
    material = gathered(config, settings, sources, start)
    bank = input_bank(material, settings, size, config.seed)
    plain, queries, originals = validation_inputs(config.seed, material.validation, size)
    validation = (torch.from_numpy(plain), torch.from_numpy(queries), originals)

    def embed() -> Float64[np.ndarray, "P D"]:
        parts = np.array_split(np.arange(len(bank)), range(32, len(bank), 32))
        inputs = (_floats(torch.from_numpy(bank[part, 0])) for part in parts)
        return np.concatenate([_embedded(student.eval(), part) for part in inputs])

    task = MapsTask(config, settings, material, bank, validation=validation, embed=embed)
    student.training_copies = settings.training_copies
    return student, task


class MapsTask(EditedCopiesTask):
    """Every weight of the network, over its inputs in 8 bits."""

    def pairs(self, student: Student, plain: Tensor, edited: Tensor) -> tuple[Tensor, Tensor]:
        keys: list[Tensor] = []
        queries: list[Tensor] = []
        for some, copies in zip(plain.split(_PER_PASS), edited.split(_PER_PASS), strict=True):
            embeddings = student(_floats(torch.cat([some, copies])))
            keys.append(embeddings[: len(some)])
            queries.append(embeddings[len(some) :])
        return torch.cat(keys), torch.cat(queries)

    def embedded(self, student: Student, rows: Tensor) -> Float64[np.ndarray, "B D"]:
        return np.concatenate([_embedded(student, part) for part in rows.split(32)])


def _embedded(student: Student, inputs: Float[Tensor, "B 3 S S"]) -> Float64[np.ndarray, "B D"]:
    """Raw embeddings, without gradients."""
    device = next(student.parameters()).device
    with torch.no_grad():
        return student(inputs.to(device)).double().cpu().numpy()


def _floats(inputs: UInt8[Tensor, "B 3 S S"]) -> Float[Tensor, "B 3 S S"]:
    """Values in [0, 1]."""
    return inputs.float() / 255.0
