# pyright: basic
# torch's types are loose.
"""What the tasks on edited copies read: pictures of known kinds, a teacher's embeddings of them."""

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from model.data.edits import edit, query_kinds
from model.data.pictures import PictureSet, check_pictures
from model.teachers.precomputed import PrecomputedEmbeddings
from model.train.config import TrainConfig
from model.train.copies.draws import kind_probabilities
from model.train.copies.views import network_input
from model.train.held_out import training_and_validation
from model.train.sampling import Part, evenly
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


def picture_probabilities(config: TrainConfig, pictures: PictureSet) -> Float64[np.ndarray, " P"]:
    """How often each training picture is drawn, by its kind.

    Raises:
        TrainingError: `kind_weights` cannot be read.
    """
    kinds = [str(pictures[place].fields.get("kind", "")) for place in range(len(pictures))]
    return kind_probabilities(config.kind_weights, kinds)


class TeacherRows:
    """A teacher's embeddings of the training pictures, by number.

    Attributes:
        name: the teacher's.
        rows: (P, T).
    """

    def __init__(self, stored: PrecomputedEmbeddings, pictures: PictureSet) -> None:
        self.name = stored.name
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
