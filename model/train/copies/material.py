# pyright: basic
"""What the task `copies` reads: pictures, their copies, a teacher's words, a network."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from model.data.edits import EDIT_KINDS, edit, query_kinds
from model.data.pictures import Picture, PictureSet
from model.errors import TrainingError
from model.pixels.views import VIEWS
from model.teachers.precomputed import PrecomputedEmbeddings
from model.train.config import TrainConfig
from model.train.copies.draws import kind_probabilities
from model.train.copies.wave_student import WaveStudent
from model.train.distributed import gather_shares, own_share, progress
from model.train.sampling import Part, check_decodes, identity_of, training_and_validation
from model.train.task import Sources, fresh_student, stored_student
from model.train.views import framed

# What a generator is for: two uses of one seed must not draw the same numbers.
_EDIT, _QUERY = 3, 4


@dataclass(frozen=True, eq=False)
class Material:
    """What a task learns from and is measured on."""

    config: TrainConfig
    training: PictureSet
    validation: PictureSet
    kinds: tuple[str, ...]  # of the training pictures, as their set says; "" where it does not
    # sha256 of their ids and their files' sha256: others under the same names are another run.
    contents: str
    teacher: PrecomputedEmbeddings | None  # whose relations between pictures are learnt too
    start: str | None  # fingerprint of the checkpoint that the network starts from
    folder: Path  # for what is computed of the pictures, and kept
    device: str  # where processes meet

    def identity(self) -> dict[str, Any]:
        """What a run learnt from, as JSON: counts, digests, names."""
        return {
            **identity_of(self.training, self.validation),
            "training_contents_sha256": self.contents,
            "teacher": self.teacher and self.teacher.name,
            "teacher_record": self.teacher and dict(self.teacher.record),
            "start": self.start,
        }

    def copies(
        self, place: int, views: int, gallery_views: Sequence[str] = ("whole",)
    ) -> list[UInt8[np.ndarray, "_ _ 3"]]:
        """A training picture's views, as it is if not named, then edited copies of it.

        The copies are of the kinds that evaluation asks.

        Some, with probability `stacked_share`, are edited twice.
        """
        pixels = self.training[place].pixels()
        seen = [VIEWS[name].of(pixels) for name in gallery_views]
        for view in range(views):
            rng = np.random.default_rng([self.config.seed, _EDIT, place, view])
            copy = edit(pixels, EDIT_KINDS[int(rng.integers(len(EDIT_KINDS)))], rng)
            if rng.random() < self.config.copies.stacked_share:
                copy = edit(copy, EDIT_KINDS[int(rng.integers(len(EDIT_KINDS)))], rng)
            seen.append(copy)
        return seen


def gathered(config: TrainConfig, sources: Sources, start: str | None) -> Material:
    """What a task reads, looked through once; `start` is what it starts from, a fingerprint."""
    training, validation = training_and_validation(config, sources.data)
    check_decodes(config, training, validation)
    teacher = None
    if sources.embeddings is not None and config.copies.teacher_weight > 0:
        teacher = PrecomputedEmbeddings(sources.embeddings)
        teacher.require(training.ids)
    places = own_share(range(len(training)))
    shown = progress().counting("hashing training pictures", places, len(places))
    abouts = gather_shares([_about(training[place]) for place in shown])
    weights = kind_probabilities(config.copies.kind_weights, [kind for _, kind in abouts])
    drawn = np.flatnonzero(weights).tolist()
    training = Part(training, drawn)
    lines, kinds = zip(*(abouts[place] for place in drawn), strict=True)
    contents = hashlib.sha256("".join(lines).encode()).hexdigest()
    return Material(
        config, training, validation, kinds, contents,
        teacher, start, sources.work, sources.device,
    )  # fmt: skip


def _about(picture: Picture) -> tuple[str, str]:
    """A line of its file's sha256 and its id; and its kind."""
    line = f"{hashlib.sha256(picture.data).hexdigest()} {picture.id}\n"
    return line, str(picture.fields.get("kind", ""))


def wave_student(config: TrainConfig, sources: Sources) -> tuple[WaveStudent, str | None]:
    """The network of a checkpoint, and its fingerprint; without one, a fresh scattering network."""
    if sources.start is None:
        student, fingerprint = fresh_student(config), None
    else:
        student, fingerprint = stored_student(sources.start)
    if not isinstance(student, WaveStudent):
        raise TrainingError(
            f"the task {config.task} trains wavelet networks, preset wave-96, alone"
        )
    return student, fingerprint


def network_inputs(
    pictures: Iterable[UInt8[np.ndarray, "_ _ 3"]], size: int
) -> Float32[np.ndarray, "N 3 S S"]:
    """Pictures through the resize that serving uses, in float32."""
    return np.stack([framed(pixels, size, "resize") for pixels in pictures])


def validation_inputs(
    material: Material, size: int, gallery_views: Sequence[str] = ("whole",)
) -> tuple[
    Float32[np.ndarray, "NV 3 S S"], Float32[np.ndarray, "Q 3 S S"], Int64[np.ndarray, " Q"]
]:
    """Views of validation pictures side by side, two copies of each picture, and whose they are."""
    inputs: list[np.ndarray] = []
    places = range(len(material.validation))
    for place in progress().counting("copying validation pictures", places, len(places)):
        pixels = material.validation[place].pixels()
        copies = [
            edit(pixels, kind, np.random.default_rng([material.config.seed, _QUERY, place, number]))
            for number, kind in enumerate(query_kinds(place))
        ]
        views = [VIEWS[name].of(pixels) for name in gallery_views]
        inputs.append(network_inputs([*views, *copies], size))
    views, queries = np.split(np.stack(inputs), [len(gallery_views)], axis=1)
    return (
        np.concatenate(views), np.concatenate(queries), np.repeat(np.arange(len(queries)), 2),
    )  # fmt: skip
