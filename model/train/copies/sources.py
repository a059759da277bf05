# pyright: basic
# torch's types are loose.
"""What the tasks on edited copies read: pictures, a teacher's embeddings of them, a network."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from model.data.edits import edit, query_kinds
from model.data.pictures import PictureSet
from model.errors import TrainingError
from model.teachers.precomputed import PrecomputedEmbeddings
from model.train.config import TrainConfig
from model.train.copies.views import network_input
from model.train.copies.wave_student import WaveStudent
from model.train.held_out import training_and_validation
from model.train.sampling import Part, evenly, ids_digest
from model.train.students import fresh_student, stored_student
from model.train.task import Sources
from model.train.telling import check_told, telling

_QUERY = 4
"""What the generators of validation queries are for."""


@dataclass(frozen=True)
class Survey:
    """What one look at every training picture tells.

    Attributes:
        kinds: of the pictures, as their set says; "" where it does not.
        contents: sha256 of their ids and their files' sha256: other pictures under the same names
            are another run.
    """

    kinds: tuple[str, ...]
    contents: str


class TeacherRows:
    """A teacher's embeddings of the training pictures, by number.

    Attributes:
        name: the teacher's.
        record: what made the stored embeddings, and their sha256.
        rows: (P, T).
    """

    def __init__(self, stored: PrecomputedEmbeddings, pictures: PictureSet) -> None:
        self.name, self.record = stored.name, dict(stored.record)
        self.rows: Tensor = torch.from_numpy(stored.rows(list(pictures.ids)))


@dataclass(frozen=True, eq=False)
class Material:
    """What a task learns from and is measured on.

    Attributes:
        training: pictures that are learnt from.
        validation: pictures that it is measured on.
        survey: of the training pictures.
        teacher: whose relations are learnt too.
        start: fingerprint of the checkpoint that it starts from.
        folder: for what is computed of the pictures, and kept.
    """

    training: PictureSet
    validation: PictureSet
    survey: Survey
    teacher: TeacherRows | None
    start: str | None
    folder: Path

    def identity(self) -> dict[str, Any]:
        """What a run learnt from, as JSON: counts, digests, names."""
        teacher = self.teacher
        return {
            "training_pictures": len(self.training),
            "training_ids_sha256": ids_digest(self.training.ids),
            "training_contents_sha256": self.survey.contents,
            "validation_pictures": len(self.validation),
            "validation_ids_sha256": ids_digest(self.validation.ids),
            "teacher": None if teacher is None else teacher.name,
            "teacher_record": None if teacher is None else teacher.record,
            "start": self.start,
        }

    def targets(self, pictures: Int64[np.ndarray, " B"]) -> dict[str, Tensor]:
        """The teacher's embeddings of training pictures, as a batch has them; none without one."""
        if self.teacher is None:
            return {}
        return {"targets": self.teacher.rows[torch.from_numpy(pictures)]}


def gathered(config: TrainConfig, sources: Sources, start: str | None) -> Material:
    """What a task reads, looked through once.

    Args:
        config: the run.
        sources: where it reads.
        start: fingerprint of the checkpoint that it starts from.

    Raises:
        TrainingError: there are too few pictures, or there is no folder.
        DataError: a picture is bad; the message names its file.
        MetricError: a teacher's stored embeddings are missing or damaged.
    """
    if sources.work is None:
        raise TrainingError(f"the task {config.task} needs a folder to keep what it computes in")
    training, validation = _checked_pictures(config, sources)
    teacher = _teacher_rows(config, sources, training)
    return Material(training, validation, _survey(training), teacher, start, sources.work)


def wave_student(config: TrainConfig, sources: Sources) -> tuple[WaveStudent, str | None]:
    """The network of a checkpoint, and its fingerprint; without one, a fresh scattering network.

    Raises:
        TrainingError: it is no wavelet network.
        CheckpointError: the checkpoint cannot be loaded.
    """
    if sources.start is None:
        student, fingerprint = fresh_student(config), None
    else:
        student, fingerprint = stored_student(sources.start)
    if not isinstance(student, WaveStudent):
        raise TrainingError(
            f"the task {config.task} trains wavelet networks, preset wave-64, alone"
        )
    return student, fingerprint


def validation_inputs(
    seed: int, validation: PictureSet, size: int
) -> tuple[Float32[np.ndarray, "N 3 S S"], Float32[np.ndarray, "Q 3 S S"], Int64[np.ndarray, " Q"]]:
    """Validation pictures, two edited copies of each, and each copy's original.

    Args:
        seed: of the run.
        validation: the pictures.
        size: side of the network's input.
    """
    plain: list[np.ndarray] = []
    queries: list[np.ndarray] = []
    places = range(len(validation))
    for place in telling().counting("copying validation pictures", places, len(places)):
        pixels = validation[place].pixels()
        plain.append(network_input(pixels, size))
        for number, kind in enumerate(query_kinds(place)):
            rng = np.random.default_rng([seed, _QUERY, place, number])
            queries.append(network_input(edit(pixels, kind, rng), size))
    return np.stack(plain), np.stack(queries), np.repeat(np.arange(len(validation)), 2)


def _checked_pictures(config: TrainConfig, sources: Sources) -> tuple[PictureSet, PictureSet]:
    """Training and validation pictures, as many of them decoded as the config asks for.

    Raises:
        DataError: a picture is bad; the message names its file.
        TrainingError: there are too few.
    """
    training, validation = training_and_validation(config, sources)
    for what, pictures in (("training", training), ("validation", validation)):
        checked = Part(pictures, evenly(len(pictures), config.checked_examples))
        check_told(checked, what, config.workers)
    return training, validation


def _survey(pictures: PictureSet) -> Survey:
    """Looks at every picture once; none is decoded."""
    kinds: list[str] = []
    digest = hashlib.sha256()
    places = range(len(pictures))
    for place in telling().counting("hashing training pictures", places, len(places)):
        picture = pictures[place]
        kinds.append(str(picture.fields.get("kind", "")))
        digest.update(f"{hashlib.sha256(picture.data).hexdigest()} {picture.id}\n".encode())
    return Survey(tuple(kinds), digest.hexdigest())


def _teacher_rows(
    config: TrainConfig, sources: Sources, pictures: PictureSet
) -> TeacherRows | None:
    """The teacher's rows, where there are stored ones and the config weighs them.

    Raises:
        MetricError: they are missing or damaged.
    """
    if sources.embeddings is None or not config.teacher_weight > 0:
        return None
    return TeacherRows(PrecomputedEmbeddings(sources.embeddings), pictures)
