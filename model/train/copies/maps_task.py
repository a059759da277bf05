# pyright: basic
"""The task `maps`: every weight of the default model, on the loss of the task `copies`.

It starts from a network whose head was fitted, and the head is fitted again after it: features that
a head reads best are what this task is for.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped, UInt8
from torch import Tensor

from model.errors import TrainingError
from model.train.config import TrainConfig
from model.train.copies.material import (
    Material,
    gathered,
    network_inputs,
    validation_inputs,
    wave_student,
)
from model.train.copies.task import EditedCopiesTask
from model.train.part_store import PartStore, digest_of
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
    student.training_copies = config.maps.training_copies
    material, size = gathered(config, sources, start), student.config.input_size
    bank = _input_bank(material, size)
    plain, queries, originals = validation_inputs(material, size)
    validation = (torch.from_numpy(plain), torch.from_numpy(queries), originals)
    return student, MapsTask(material, student, bank, validation)


class MapsTask(EditedCopiesTask):
    """Every weight of the network, over its inputs in 8 bits."""

    def pairs(self, student: Student, plain: Tensor, edited: Tensor) -> tuple[Tensor, Tensor]:
        keys: list[Tensor] = []
        queries: list[Tensor] = []
        for some, copies in zip(plain[:, 0].split(_PER_PASS), edited.split(_PER_PASS), strict=True):
            embeddings = student(_floats(torch.cat([some, copies])))
            keys.append(embeddings[: len(some)])
            queries.append(embeddings[len(some) :])
        return torch.cat(keys)[:, None], torch.cat(queries)

    def embedded(self, student: Student, rows: Tensor) -> Float64[np.ndarray, "B D"]:
        device = next(student.parameters()).device
        with torch.no_grad():
            parts = [student(_floats(part).to(device)) for part in rows.split(32)]
            return torch.cat(parts).double().cpu().numpy()


def _floats(inputs: Shaped[Tensor, "B 3 S S"]) -> Float[Tensor, "B 3 S S"]:
    """Values in [0, 1]: of 8 bits, or as they are."""
    return inputs if inputs.is_floating_point() else inputs.float() / 255.0


def _input_bank(material: Material, size: int) -> UInt8[np.ndarray, "P V 3 S S"]:
    """Inputs of every training picture, as it is first, and of its edited copies, memory-mapped.

    In 8 bits: a training input need not be exact, and floats would take four times the room.
    """
    seed, settings = material.config.seed, material.settings

    def row(place: int) -> UInt8[np.ndarray, "V 3 S S"]:
        inputs = network_inputs(material.copies(place, settings.views), size)
        return np.rint(255.0 * np.clip(inputs, 0.0, 1.0)).astype(np.uint8)

    about = (material.contents, size, seed, settings.views, settings.stacked_share)
    name, shape = f"inputs-{digest_of(*about)}", (1 + settings.views, 3, size, size)
    store = PartStore(material.folder / "inputs", name, len(material.training), shape, "uint8")
    return store.build(row, "edited copies", material.device)
