# pyright: basic
# torch's types are loose.
"""The default model's task: tell edited copies from other pictures, by certified radius.

The front is a scattering network, or that of a checkpoint; it is held. The head starts from its
closed form and is trained with large batches of features computed once.
"""

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.data.pictures import PictureSet
from model.errors import TrainingError
from model.presets import WaveConfig
from model.progress import Progress
from model.train.config import TrainConfig
from model.train.copies.closed_form import covariance_of, discriminant, fit_narrowing_maps
from model.train.copies.criterion import copies_loss
from model.train.copies.draws import Draws, kind_probabilities, nearest_pictures
from model.train.copies.feature_bank import FeatureBank, features_of
from model.train.copies.head_student import HeadStudent
from model.train.copies.sources import (
    Survey,
    TeacherRows,
    checked_pictures,
    identity,
    survey,
    teacher_rows,
    validation_inputs,
)
from model.train.copies.validation import validation_scores
from model.train.copies.views import network_input
from model.train.copies.wave_student import WaveStudent
from model.train.distributed import current, share_of, wait_for_all
from model.train.sampling import evenly, view_generator
from model.train.student import Student
from model.train.students import fresh_student, stored_student
from model.train.task import Sources

_FITTED_ON = 512
"""Pictures that the narrowing maps of a fresh front are fitted to."""


def build(config: TrainConfig, sources: Sources) -> tuple[Student, "CopyTask"]:
    """The student, its head in closed form, and the task.

    Raises:
        TrainingError: the student is no wavelet network, or there is no folder to keep features in.
        DataError: a picture is bad; the message names its file.
        MetricError: a teacher's stored embeddings are missing or damaged.
    """
    if sources.work is None:
        raise TrainingError("the task copies needs a folder to keep features in")
    training, validation = checked_pictures(config, sources)
    teacher, seen = teacher_rows(config, sources, training), survey(training)
    front, start = _front(config, sources, training)
    bank = FeatureBank(
        front,
        training,
        contents=seen.contents,
        seed=config.seed,
        views=config.views,
        stacked_share=config.stacked_share,
        dim=config.head_basis,
    )
    world, folder = current(), sources.work / "features"
    bank.build(folder, world, Progress(sys.stderr if world.leads else None).counting)
    wait_for_all(sources.device)
    rows = torch.from_numpy(bank.load(folder))
    dim = front.config.embedding_dim
    student = HeadStudent(front, bank.basis, bank.centre, *_closed_form(config, rows, dim))
    return student, CopyTask(
        config,
        training,
        validation,
        student=student,
        rows=rows,
        seen=seen,
        teacher=teacher,
        start=start,
    )


class CopyTask:
    """Certified radii of edited copies, over features that were computed before.

    Attributes:
        examples: training pictures.
    """

    def __init__(
        self,
        config: TrainConfig,
        training: PictureSet,
        validation: PictureSet,
        *,
        student: HeadStudent,
        rows: Tensor,
        seen: Survey,
        teacher: TeacherRows | None,
        start: str | None,
    ) -> None:
        """A task over a bank's rows, (pictures, 1 + views, K), float16."""
        self.examples = len(training)
        self._config, self._training, self._validation = config, training, validation
        self._rows, self._contents, self._start = rows, seen.contents, start
        neighbours = None
        if config.neighbours:
            plain = student.head(rows[:, 0].float()).detach().numpy()
            neighbours = nearest_pictures(plain, config.neighbours)
        self._draws = Draws(
            kind_probabilities(config.kind_weights, seen.kinds),
            neighbours,
            seed=config.seed,
            batch_size=config.batch_size,
        )
        self._teacher = teacher
        self._plain, self._queries, self._originals = _validation_rows(config, validation, student)

    def identity(self) -> dict[str, Any]:
        """Pictures by number and digest of their ids; the teacher; where the front came from."""
        return identity(
            self._training,
            self._validation,
            contents=self._contents,
            teacher=self._teacher,
            start=self._start,
        )

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """Features of this process's pictures and of one edited copy of each."""
        config = self._config
        share = share_of(config.batch_size, rank, world)
        chosen = torch.from_numpy(self._draws.pictures(step)[share])
        views = [
            1
            + int(
                view_generator(config.seed, step * config.batch_size + place).integers(config.views)
            )
            for place in share
        ]
        batch = {
            "plain": self._rows[chosen, 0].float(),
            "edited": self._rows[chosen, torch.tensor(views)].float(),
        }
        return batch if self._teacher is None else {**batch, "targets": self._teacher.rows[chosen]}

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


def _front(
    config: TrainConfig, sources: Sources, training: PictureSet
) -> tuple[WaveStudent, str | None]:
    """The held front: a checkpoint's, or a scattering network fitted to some pictures."""
    if sources.start is not None:
        student, fingerprint = stored_student(sources.start)
    else:
        student, fingerprint = fresh_student(config), None
    if not isinstance(student, WaveStudent) or not isinstance(student.config, WaveConfig):
        raise TrainingError("the task copies trains wavelet networks, preset wave-64, alone")
    if fingerprint is None:
        places = evenly(len(training), _FITTED_ON)
        inputs = [
            network_input(training[place].pixels(), student.config.input_size) for place in places
        ]
        fit_narrowing_maps(student, torch.from_numpy(np.stack(inputs)))
    return student, fingerprint


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
