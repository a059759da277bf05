# pyright: basic
# torch's types are loose.
"""What the tasks on edited copies read: pictures of known kinds, a teacher's embeddings of them."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from model.data.edits import edit, query_kinds
from model.data.pictures import PictureSet, check_pictures
from model.teachers.precomputed import PrecomputedEmbeddings
from model.train.config import TrainConfig
from model.train.copies.views import network_input
from model.train.held_out import training_and_validation
from model.train.sampling import Part, evenly, ids_digest
from model.train.task import Sources

_QUERY = 4
"""What the generators of validation queries are for."""


def checked_pictures(config: TrainConfig, sources: Sources) -> tuple[PictureSet, PictureSet]:
    """Training and validation pictures, as many of them decoded as the config asks for.

    Raises:
        DataError: a picture is bad; the message names its file.
        TrainingError: there are too few.
    """
    training, validation = training_and_validation(config, sources)
    for pictures in (training, validation):
        checked = Part(pictures, evenly(len(pictures), config.checked_examples))
        check_pictures(checked, workers=config.workers or 1)
    return training, validation


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


def survey(pictures: PictureSet) -> Survey:
    """Looks at every picture once; none is decoded."""
    kinds: list[str] = []
    digest = hashlib.sha256()
    for place in range(len(pictures)):
        picture = pictures[place]
        kinds.append(str(picture.fields.get("kind", "")))
        digest.update(f"{hashlib.sha256(picture.data).hexdigest()} {picture.id}\n".encode())
    return Survey(tuple(kinds), digest.hexdigest())


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


def teacher_rows(config: TrainConfig, sources: Sources, pictures: PictureSet) -> TeacherRows | None:
    """The teacher's rows, where there are stored ones and the config weighs them.

    Raises:
        MetricError: they are missing or damaged.
    """
    if sources.embeddings is None or not config.teacher_weight > 0:
        return None
    return TeacherRows(PrecomputedEmbeddings(sources.embeddings), pictures)


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
    for place in range(len(validation)):
        pixels = validation[place].pixels()
        plain.append(network_input(pixels, size))
        for number, kind in enumerate(query_kinds(place)):
            rng = np.random.default_rng([seed, _QUERY, place, number])
            queries.append(network_input(edit(pixels, kind, rng), size))
    return np.stack(plain), np.stack(queries), np.repeat(np.arange(len(validation)), 2)


def identity(
    training: PictureSet,
    validation: PictureSet,
    *,
    contents: str,
    teacher: TeacherRows | None,
    start: str | None,
) -> dict[str, Any]:
    """What a run learnt from, as JSON: counts, digests, names.

    Args:
        training: pictures that are learnt from.
        validation: pictures that it is measured on.
        contents: digest of the training pictures, from `Survey`.
        teacher: whose relations are learnt too.
        start: fingerprint of the checkpoint that it starts from.
    """
    return {
        "training_pictures": len(training),
        "training_ids_sha256": ids_digest(training.ids),
        "training_contents_sha256": contents,
        "validation_pictures": len(validation),
        "validation_ids_sha256": ids_digest(validation.ids),
        "teacher": None if teacher is None else teacher.name,
        "teacher_record": None if teacher is None else teacher.record,
        "start": start,
    }
