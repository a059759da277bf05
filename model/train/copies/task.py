# pyright: basic
# torch's types are loose.
"""The default model's task: tell edited copies from other pictures, by certified radius.

The front is a scattering network, or that of a checkpoint; it is held. The head starts from its
closed form and is trained with large batches of features computed once.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional

from model.data.pictures import PictureSet
from model.train.config import TrainConfig
from model.train.copies.closed_form import covariance_of, discriminant, fit_narrowing_maps
from model.train.copies.criterion import copies_loss
from model.train.copies.draws import draws_of
from model.train.copies.feature_bank import FeatureBank, features_of
from model.train.copies.head_student import HeadStudent
from model.train.copies.part_store import build_together
from model.train.copies.sources import Material, gathered, validation_inputs, wave_student
from model.train.copies.validation import validation_scores
from model.train.copies.views import network_input
from model.train.copies.wave_student import WaveStudent
from model.train.sampling import evenly
from model.train.student import Student
from model.train.task import Sources
from model.train.telling import telling

_FITTED_ON = 512
"""Pictures that the narrowing maps of a fresh front are fitted to."""


def build(config: TrainConfig, sources: Sources) -> tuple[Student, "CopyTask"]:
    """The student, its head in closed form, and the task.

    Raises:
        TrainingError: the student is no wavelet network, or there is no folder to keep features in.
        CheckpointError: the checkpoint cannot be loaded.
        DataError: a picture is bad; the message names its file.
        MetricError: a teacher's stored embeddings are missing or damaged.
    """
    front, start = wave_student(config, sources)
    material = gathered(config, sources, start)
    if start is None:
        _fit(front, material.training)
    bank = FeatureBank(
        front,
        material.training,
        material.folder / "features",
        contents=material.survey.contents,
        seed=config.seed,
        views=config.views,
        stacked_share=config.stacked_share,
        dim=config.head_basis,
    )
    build_together(bank.build, sources.device)
    rows = torch.from_numpy(bank.load())
    telling().step("solving for the head in closed form")
    dim = front.config.embedding_dim
    student = HeadStudent(front, bank.basis, bank.centre, *_closed_form(config, rows, dim))
    return student, CopyTask(config, material, student, rows)


class CopyTask:
    """Certified radii of edited copies, over features that were computed before.

    Attributes:
        examples: training pictures.
    """

    def __init__(
        self, config: TrainConfig, material: Material, student: HeadStudent, rows: Tensor
    ) -> None:
        """A task over a bank's rows, (pictures, 1 + views, K), float16."""
        self.examples = len(material.training)
        self._config, self._material, self._rows = config, material, rows

        def embeddings() -> Float32[np.ndarray, "P D"]:
            return student.head(rows[:, 0].float()).detach().numpy()

        self._draws = draws_of(config, material.survey.kinds, embeddings)
        self._plain, self._queries, self._originals = _validation_rows(
            config, material.validation, student
        )

    def identity(self) -> dict[str, Any]:
        """Pictures by number and digest of their ids; the teacher; where the front came from."""
        return self._material.identity()

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """Features of this process's pictures and of one edited copy of each."""
        pictures, views = self._draws.pairs(step, rank, world)
        return {
            "plain": self._rows[pictures, 0].float(),
            "edited": self._rows[pictures, views].float(),
            **self._material.targets(pictures),
        }

    def loss(
        self, student: Student, batch: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The loss of the batch, from features."""
        head = _trained(student).head
        loss, details = copies_loss(
            self._config, head(batch["edited"]), head(batch["plain"]), batch.get("targets")
        )
        return loss, {**details}

    def validate(self, student: Student) -> dict[str, float]:
        """Recall, certified recall and copy recall on pictures that are not trained on."""
        head = _trained(student).head
        pictures, queries = (
            head(rows).detach().double().cpu().numpy() for rows in (self._plain, self._queries)
        )
        return validation_scores(pictures, queries, self._originals)

    def finish(self, student: Student) -> None:
        """Nothing: what was trained is what is kept."""


def _trained(student: Student) -> HeadStudent:
    """The student as the one that this task built."""
    assert isinstance(student, HeadStudent)  # noqa: S101 (the task and its student come together)
    return student


def _fit(front: WaveStudent, training: PictureSet) -> None:
    """Fits a scattering network's narrowing maps to some pictures."""
    places = evenly(len(training), _FITTED_ON)
    inputs = [
        network_input(training[place].pixels(), front.config.input_size)
        for place in telling().counting("fitting the channel maps", places, len(places))
    ]
    fit_narrowing_maps(front, torch.from_numpy(np.stack(inputs)))


def _closed_form(config: TrainConfig, rows: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Head and offset from the bank's first rows of each picture, and their edited copies.

    Where so few pictures have fewer directions than an embedding has numbers, the rest are 0.
    """
    some = rows[evenly(len(rows), 4096)].float()
    edits = (some[:, 1:] - some[:, :1]).flatten(0, 1).double()
    mix = discriminant(
        edits.T @ edits / len(edits),
        covariance_of(some[:, 0]),
        min(dim, rows.shape[2]),
        config.within_scale,
        config.total_scale,
    )
    mix = functional.pad(mix, (0, 0, 0, dim - len(mix)))
    return mix, mix @ some[:, 0].double().mean(dim=0)


def _validation_rows(
    config: TrainConfig, validation: PictureSet, student: HeadStudent
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Features of validation pictures and of two queries of each, in the student's basis."""
    *inputs, originals = validation_inputs(config.seed, validation, student.config.input_size)
    plain, queries = (
        (features_of(student.front, some) - student.centre) @ student.basis for some in inputs
    )
    return plain, queries, originals
