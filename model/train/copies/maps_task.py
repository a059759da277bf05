# pyright: basic
# torch's types are loose.
"""The default model's maps: every weight trained on the loss of the task `copies`.

It starts from a network whose head was fitted, and the head is fitted again after it: features that
a head reads best are what this task is for. Its inputs are made once (`view_bank`).
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from model.errors import TrainingError
from model.train.config import TrainConfig
from model.train.copies.criterion import copies_loss
from model.train.copies.draws import draws_of
from model.train.copies.part_store import build_together
from model.train.copies.sources import Material, gathered, validation_inputs, wave_student
from model.train.copies.validation import validation_scores
from model.train.copies.view_bank import ViewBank
from model.train.copies.wave_student import WaveStudent
from model.train.student import Student
from model.train.task import Sources

_PER_PASS = 64
"""Pictures, and as many copies, that go through the network at once: they stay in a core's cache,
and a step is 1.7 times as fast as with all of them in one pass."""


def build(config: TrainConfig, sources: Sources) -> tuple[Student, "MapsTask"]:
    """The student, as a checkpoint has it, and the task.

    Raises:
        TrainingError: there is no checkpoint to start from, it is no wavelet network, or there is
            no folder to keep inputs in.
        CheckpointError: the checkpoint cannot be loaded.
        DataError: a picture is bad; the message names its file.
        MetricError: a teacher's stored embeddings are missing or damaged.
    """
    if sources.start is None:
        raise TrainingError("the task maps starts from a network with a fitted head: give --from")
    student, start = wave_student(config, sources)
    material = gathered(config, sources, start)
    bank = ViewBank(
        material.training,
        material.folder / "inputs",
        contents=material.survey.contents,
        size=student.config.input_size,
        seed=config.seed,
        views=config.views,
        stacked_share=config.stacked_share,
    )
    build_together(bank.build, sources.device)
    bank.open()
    task = MapsTask(config, material, student, bank)
    student.training_copies = config.training_copies
    return student, task


class MapsTask:
    """Certified radii of edited copies, by every weight of the network.

    Attributes:
        examples: training pictures.
    """

    def __init__(
        self, config: TrainConfig, material: Material, student: WaveStudent, bank: ViewBank
    ) -> None:
        """A task over a bank that was opened."""
        self.examples = len(material.training)
        self._config, self._material, self._bank = config, material, bank

        def embeddings() -> Float64[np.ndarray, "P D"]:
            return _embeddings(student.eval(), bank, self.examples)

        self._draws = draws_of(config, material.survey.kinds, embeddings)
        self._plain, self._queries, self._originals = validation_inputs(
            config.seed, material.validation, student.config.input_size
        )

    def identity(self) -> dict[str, Any]:
        """Pictures by number and digest of their ids; the teacher; the network started from."""
        return self._material.identity()

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """Inputs of this process's pictures and of one edited copy of each, in 8 bits."""
        pictures, views = self._draws.pairs(step, rank, world)
        return {
            "plain": self._bank.inputs(pictures, np.zeros_like(views)),
            "edited": self._bank.inputs(pictures, views),
            **self._material.targets(pictures),
        }

    def loss(
        self, student: Student, batch: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The loss of the batch, embedded a few pictures at a time."""
        keys: list[Tensor] = []
        queries: list[Tensor] = []
        parts = zip(batch["plain"].split(_PER_PASS), batch["edited"].split(_PER_PASS), strict=True)
        for plain, edited in parts:
            embeddings = student(_floats(torch.cat([plain, edited])))
            keys.append(embeddings[: len(plain)])
            queries.append(embeddings[len(plain) :])
        loss, details = copies_loss(
            self._config, torch.cat(queries), torch.cat(keys), batch.get("targets")
        )
        return loss, {**details}

    def validate(self, student: Student) -> dict[str, float]:
        """Recall, certified recall and copy recall on pictures that are not trained on."""
        pictures, queries = (
            np.concatenate(
                [_embedded(student, part) for part in torch.from_numpy(inputs).split(32)]
            )
            for inputs in (self._plain, self._queries)
        )
        return validation_scores(pictures, queries, self._originals)

    def finish(self, student: Student) -> None:
        """Nothing: what was trained is what is kept."""


def _embedded(student: Student, inputs: Float[Tensor, "B 3 S S"]) -> Float64[np.ndarray, "B D"]:
    """Raw embeddings, without gradients."""
    device = next(student.parameters()).device
    with torch.no_grad():
        return student(inputs.to(device)).double().cpu().numpy()


def _embeddings(student: Student, bank: ViewBank, count: int) -> Float64[np.ndarray, "P D"]:
    """Of all training pictures as they are."""
    parts = np.array_split(np.arange(count), range(32, count, 32))
    return np.concatenate(
        [_embedded(student, _floats(bank.inputs(part, np.zeros_like(part)))) for part in parts]
    )


def _floats(inputs: UInt8[Tensor, "B 3 S S"]) -> Float[Tensor, "B 3 S S"]:
    """Values in [0, 1]."""
    return inputs.float() / 255.0
