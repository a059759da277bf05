# pyright: basic
"""Step 1: a student learns a teacher's embeddings, on two views of each picture."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from model.data.pictures import PictureSet, evenly
from model.errors import TrainingError
from model.pixels.resize import resize_operator
from model.teachers.load import load_teacher
from model.teachers.precomputed import PrecomputedEmbeddings
from model.teachers.teacher import Teacher
from model.train.config import TrainConfig
from model.train.distributed import current, share_of
from model.train.losses import distillation
from model.train.sampling import (
    Part,
    check_decodes,
    example_at,
    ids_digest,
    training_and_validation,
    view_generator,
)
from model.train.student import Student
from model.train.task import Sources, fresh_student, stored_student
from model.train.views import framed, two_views


def build(config: TrainConfig, sources: Sources) -> tuple[Student, "DistillTask"]:
    """The student and the task of a distillation."""
    targets = targets_of(config, sources)
    training, validation = training_and_validation(config, sources.data)
    start = None
    if sources.start is None:
        student = fresh_student(config, targets.dim)
    else:
        student, start = stored_student(sources.start)
    if student.config.embedding_dim != targets.dim:
        raise TrainingError(
            f"the student's embeddings must be as long as the teacher's, {targets.dim}, "
            f"got {student.config.embedding_dim}"
        )
    # Last, since it takes long: what else is wrong is said at once.
    for what, pictures in (("training", training), ("validation", validation)):
        world = current()
        places = evenly(len(pictures), config.checked_examples)[world.rank :: world.size]
        check_decodes(Part(pictures, places), what, config.workers)
        for chunk in _chunks(len(places), config.batch_size):
            targets.stored([pictures.ids[places[place]] for place in chunk])
    size = student.config.input_size
    return student, DistillTask(config, training, validation, targets, input_size=size, start=start)


class OnlineTargets:
    """A teacher that looks at view 1 in every step.

    Targets have `dim`, the length of an embedding; `view_size`, the side of the views that the
    teacher looks at, in pixels, None where it looks at none; and `record`, for a checkpoint.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.dim, self.view_size = teacher.dim, teacher.input_size
        self.record = {"teacher": teacher.name, **teacher.record}

    def stored(self, ids: list[str]) -> None:
        """None: views are wanted."""

    def of(self, views: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """The teacher's answer; nothing of it is trained."""
        with torch.no_grad():
            return self._teacher.embed(views)


class StoredTargets:
    """Embeddings computed before, of the pictures as they are."""

    def __init__(self, embeddings: PrecomputedEmbeddings) -> None:
        self._embeddings = embeddings
        self.dim, self.view_size = embeddings.dim, None
        self.record = {**embeddings.record, "embeddings": "computed before"}

    def stored(self, ids: list[str]) -> Float[Tensor, "B D"]:
        """The rows of these pictures."""
        return torch.from_numpy(self._embeddings.rows(ids))

    def of(self, views: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Never asked: the rows are there."""
        raise NotImplementedError


Targets = OnlineTargets | StoredTargets


def targets_of(config: TrainConfig, sources: Sources) -> Targets:
    """The stored embeddings, if any are given, or else the teacher that the config names."""
    if sources.embeddings is not None:
        embeddings = PrecomputedEmbeddings(sources.embeddings)
        framing = embeddings.record.get("framing", config.framing)
        if framing != config.framing:
            raise TrainingError(
                f"the embeddings are of pictures framed by {framing}, the student would see them "
                f"framed by {config.framing}; run with --set framing={framing}, or ask again"
            )
        return StoredTargets(embeddings)
    return OnlineTargets(
        load_teacher(config.distill.teacher, weights=sources.teacher_weights, device=sources.device)
    )


class DistillTask:
    """The published first step: the mean of two root mean square errors.

    Where the teacher's input is larger than the student's, views are made at the teacher's size,
    and the student sees them through the resize that serving uses.

    Attributes:
        examples: training pictures.
    """

    def __init__(
        self,
        config: TrainConfig,
        training: PictureSet,
        validation: PictureSet,
        targets: Targets,
        *,
        input_size: int,
        start: str | None = None,
    ) -> None:
        """A student's input is `input_size` pixels a side; it starts from fingerprint `start`."""
        self.examples = len(training)
        self._config, self._training, self._validation = config, training, validation
        self._targets, self._start = targets, start
        self._view_size = targets.view_size or input_size
        self._shrink: tuple[Tensor, Tensor] | None = None
        if self._view_size != input_size:
            resize = resize_operator(self._view_size, self._view_size, input_size)
            rows, columns = map(torch.from_numpy, (resize.rows, resize.columns))
            self._shrink = (rows.float(), columns.float())
        self._known: dict[range, Tensor] = {}

    def identity(self) -> dict[str, Any]:
        """Pictures by number and digest of their ids; the teacher; where the student started."""
        return {
            "training_pictures": len(self._training),
            "training_ids_sha256": ids_digest(self._training.ids),
            "validation_pictures": len(self._validation),
            "validation_ids_sha256": ids_digest(self._validation.ids),
            "targets": dict(self._targets.record),
            "start": self._start,
        }

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """Both views of this process's pictures, and their stored targets if there are any."""
        config = self._config
        first = step * config.batch_size
        places = [first + place for place in share_of(config.batch_size, rank, world)]
        pictures = [self._training[example_at(config.seed, self.examples, at)] for at in places]
        views = [
            two_views(
                one.pixels(), self._view_size, config.framing, view_generator(config.seed, place)
            )
            for one, place in zip(pictures, places, strict=True)
        ]
        plain, edited = (torch.from_numpy(np.stack(side)) for side in zip(*views, strict=True))
        batch = {"plain": plain, "edited": edited}
        rows = self._targets.stored([picture.id for picture in pictures])
        return batch if rows is None else {**batch, "targets": rows}

    def loss(
        self, student: Student, batch: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Mean of the two views' root mean square errors; logged beside it, the student's norm."""
        targets = batch.get("targets")
        if targets is None:
            views = batch["plain"]
            # On an accelerator a teacher in float32 takes longer than the student's whole step.
            is_short = views.is_cuda and self._config.precision == "bfloat16"
            with torch.autocast(views.device.type, torch.bfloat16, enabled=is_short):
                targets = self._targets.of(views)
        targets = targets * self._config.distill.target_scale
        # One pass over both views: T is computed once.
        both = student(self._shrunk(torch.cat([batch["plain"], batch["edited"]])))
        plain, edited = both.chunk(2)
        norm = plain.detach().norm(dim=1).mean()
        return distillation(plain, edited, targets), {"embedding_norm": norm}

    def validate(self, student: Student) -> dict[str, float]:
        """Root mean square error on pictures as they are, their cosine with the teacher, norm.

        `score` is the error, negated.
        """
        device = next(student.parameters()).device
        squares, cosines, norms = [], [], []
        for places in _chunks(len(self._validation), self._config.batch_size):
            pictures = [self._validation[place] for place in places]
            views = torch.stack([self._plain(picture.pixels()) for picture in pictures]).to(device)
            if places not in self._known:
                rows = self._targets.stored([picture.id for picture in pictures])
                self._known[places] = self._targets.of(views) if rows is None else rows
            targets = self._known[places].to(device) * self._config.distill.target_scale
            found = student(self._shrunk(views))
            squares += (found - targets).square().mean(dim=1).tolist()
            cosines += functional.cosine_similarity(found, targets, dim=1).tolist()
            norms += found.norm(dim=1).tolist()
        error = (sum(squares) / len(squares)) ** 0.5
        return {
            "score": -error,
            "rmse": error,
            "cosine": sum(cosines) / len(cosines),
            "embedding_norm": sum(norms) / len(norms),
        }

    def _plain(self, pixels: Any) -> Tensor:
        return torch.from_numpy(framed(pixels, self._view_size, self._config.framing).copy())

    def _shrunk(self, views: Float[Tensor, "B 3 V V"]) -> Float[Tensor, "B 3 S S"]:
        """Views at the student's size."""
        if self._shrink is None:
            return views
        rows, columns = (matrix.to(views.device) for matrix in self._shrink)
        return rows @ views @ columns.T


def _chunks(count: int, size: int) -> list[range]:
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
