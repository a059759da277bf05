# pyright: basic
"""What the tasks on edited copies read: pictures, their copies, a teacher's words, a network."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from model.data.edits import EDIT_KINDS, edit, query_kinds
from model.data.pictures import PictureSet, evenly
from model.errors import TrainingError
from model.pixels.resize import resize_operator
from model.teachers.precomputed import PrecomputedEmbeddings
from model.train.config import EditedCopiesSettings, TrainConfig
from model.train.copies.wave_student import WaveStudent
from model.train.distributed import progress
from model.train.sampling import Part, check_decodes, ids_digest, training_and_validation
from model.train.task import Sources, fresh_student, stored_student

# What a generator is for: two uses of one seed must not draw the same numbers.
_EDIT, _QUERY = 3, 4


@dataclass(frozen=True, eq=False)
class Material:
    """What a task learns from and is measured on."""

    training: PictureSet
    validation: PictureSet
    kinds: tuple[str, ...]  # of the training pictures, as their set says; "" where it does not
    # sha256 of their ids and their files' sha256: others under the same names are another run.
    contents: str
    # Whose relations are learnt too: its name, what made its stored embeddings, their rows (P, T).
    teacher: tuple[str, dict[str, str], Tensor] | None
    start: str | None  # fingerprint of the checkpoint that the network starts from
    folder: Path  # for what is computed of the pictures, and kept
    device: str  # where processes meet

    def identity(self) -> dict[str, Any]:
        """What a run learnt from, as JSON: counts, digests, names."""
        teacher, record, _ = self.teacher or (None, None, None)
        return {
            "training_pictures": len(self.training),
            "training_ids_sha256": ids_digest(self.training.ids),
            "training_contents_sha256": self.contents,
            "validation_pictures": len(self.validation),
            "validation_ids_sha256": ids_digest(self.validation.ids),
            "teacher": teacher,
            "teacher_record": record,
            "start": self.start,
        }

    def targets(self, pictures: Int64[np.ndarray, " B"]) -> dict[str, Tensor]:
        """The teacher's embeddings of training pictures, as a batch has them; none without one."""
        if self.teacher is None:
            return {}
        return {"targets": self.teacher[2][torch.from_numpy(pictures)]}


def gathered(
    config: TrainConfig, settings: EditedCopiesSettings, sources: Sources, start: str | None
) -> Material:
    """What a task reads, looked through once; `start` is what it starts from, a fingerprint."""
    training, validation = training_and_validation(config, sources.data)
    for what, pictures in (("training", training), ("validation", validation)):
        checked = Part(pictures, evenly(len(pictures), config.checked_examples))
        check_decodes(checked, what, config.workers)
    teacher = None
    if sources.embeddings is not None and settings.teacher_weight > 0:
        stored = PrecomputedEmbeddings(sources.embeddings)
        rows = torch.from_numpy(stored.rows(list(training.ids)))
        teacher = (stored.name, dict(stored.record), rows)
    kinds: list[str] = []
    digest = hashlib.sha256()
    places = range(len(training))
    for place in progress().counting("hashing training pictures", places, len(places)):
        picture = training[place]
        kinds.append(str(picture.fields.get("kind", "")))
        digest.update(f"{hashlib.sha256(picture.data).hexdigest()} {picture.id}\n".encode())
    return Material(
        training, validation, tuple(kinds), digest.hexdigest(), teacher, start,
        sources.work, sources.device,
    )  # fmt: skip


def wave_student(config: TrainConfig, sources: Sources) -> tuple[WaveStudent, str | None]:
    """The network of a checkpoint, and its fingerprint; without one, a fresh scattering network."""
    if sources.start is None:
        student, fingerprint = fresh_student(config), None
    else:
        student, fingerprint = stored_student(sources.start)
    if not isinstance(student, WaveStudent):
        raise TrainingError(
            f"the task {config.task} trains wavelet networks, preset wave-64, alone"
        )
    return student, fingerprint


def network_inputs(
    pictures: Iterable[UInt8[np.ndarray, "_ _ 3"]], size: int
) -> Float32[np.ndarray, "N 3 S S"]:
    """Pictures through the resize that serving uses, in float32."""
    return np.stack(
        [
            resize_operator(pixels.shape[0], pixels.shape[1], size).apply(pixels).astype(np.float32)
            for pixels in pictures
        ]
    )


def with_copies(
    pixels: UInt8[np.ndarray, "H W 3"], seed: int, picture: int, views: int, stacked_share: float
) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """A training picture as it is, then edited copies of it, of the kinds that evaluation asks.

    With probability `stacked_share` another edit follows the first.
    """
    seen = [pixels]
    for view in range(views):
        rng = np.random.default_rng([seed, _EDIT, picture, view])
        copy = edit(pixels, EDIT_KINDS[int(rng.integers(len(EDIT_KINDS)))], rng)
        if rng.random() < stacked_share:
            copy = edit(copy, EDIT_KINDS[int(rng.integers(len(EDIT_KINDS)))], rng)
        seen.append(copy)
    return seen


def validation_inputs(
    seed: int, validation: PictureSet, size: int
) -> tuple[Float32[np.ndarray, "N 3 S S"], Float32[np.ndarray, "Q 3 S S"], Int64[np.ndarray, " Q"]]:
    """Validation pictures, two edited copies of each, and each copy's original."""
    inputs: list[np.ndarray] = []
    places = range(len(validation))
    for place in progress().counting("copying validation pictures", places, len(places)):
        pixels = validation[place].pixels()
        copies = [
            edit(pixels, kind, np.random.default_rng([seed, _QUERY, place, number]))
            for number, kind in enumerate(query_kinds(place))
        ]
        inputs.append(network_inputs([pixels, *copies], size))
    every = np.stack(inputs)
    return every[:, 0], np.concatenate(every[:, 1:]), np.repeat(np.arange(len(every)), 2)
