# pyright: basic
"""Step 1: a student learns a teacher's embeddings, on two views of each picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.utils.data import default_collate

from model.data.pictures import Picture, PictureSet
from model.errors import TrainingError
from model.pixels.resize import resize_operator
from model.teachers.load import load_teacher
from model.teachers.precomputed import PrecomputedEmbeddings
from model.teachers.teacher import Teacher
from model.train.config import TrainConfig
from model.train.distributed import places_of
from model.train.losses import distillation
from model.train.sampling import (
    check_decodes,
    example_at,
    identity_of,
    training_and_validation,
    view_generator,
)
from model.train.student import Student
from model.train.task import Sources, fresh_student, stored_student
from model.train.views import draws, framed, square, two_views


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
    if isinstance(targets, PrecomputedEmbeddings):
        targets.require([*training.ids, *validation.ids])
    # Last, since it takes long: what else is wrong is said at once.
    check_decodes(config, training, validation)
    size = student.config.input_size
    return student, DistillTask(config, training, validation, targets, input_size=size, start=start)


Targets = Teacher | PrecomputedEmbeddings
"""A teacher that looks at view 1 in every step, or what one said of the pictures as they are."""


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
        return embeddings
    return load_teacher(
        config.distill.teacher, weights=sources.teacher_weights, device=sources.device
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
        is_stored = isinstance(targets, PrecomputedEmbeddings)
        self._view_size = input_size if is_stored else targets.input_size
        self._shrink: tuple[Tensor, Tensor] | None = None
        if self._view_size != input_size:
            resize = resize_operator(self._view_size, self._view_size, input_size)
            rows, columns = map(torch.from_numpy, (resize.rows, resize.columns))
            self._shrink = (rows.float(), columns.float())
        self._known: dict[range, Tensor] = {}

    def identity(self) -> dict[str, Any]:
        """Pictures by number and digest of their ids; the teacher; where the student started."""
        targets = {"teacher": self._targets.name, **self._targets.record}
        if isinstance(self._targets, PrecomputedEmbeddings):
            targets["embeddings"] = "computed before"
        pictures = identity_of(self._training, self._validation)
        return {**pictures, "targets": targets, "start": self._start}

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """Squares of this process's pictures, what is drawn for each, and any stored targets."""
        config = self._config
        places = places_of(step, config.batch_size, rank, world)
        pictures = [self._training[example_at(config.seed, self.examples, at)] for at in places]
        squares = [square(one.pixels(), self._view_size, config.framing) for one in pictures]
        drawn = [draws(view_generator(config.seed, place)) for place in places]
        batch = {"square": torch.from_numpy(np.stack(squares)), **default_collate(drawn)}
        rows = self._stored(pictures)
        return batch if rows is None else {**batch, "targets": rows}

    def loss(
        self, student: Student, batch: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Mean of the two views' root mean square errors; logged beside it, the student's norm."""
        shown, changed = two_views(batch)
        targets = batch.get("targets")
        if targets is None:
            # On an accelerator a teacher in float32 takes longer than the student's whole step.
            is_short = self._config.precision == "bfloat16"
            with torch.autocast(shown.device.type, torch.bfloat16, enabled=is_short):
                targets = self._asked(shown)
        targets = targets * self._config.distill.target_scale
        # One pass over both views: T is computed once.
        both = student(self._shrunk(torch.cat([shown, changed])))
        plain, edited = both.chunk(2)
        norm = plain.detach().norm(dim=1).mean()
        return distillation(plain, edited, targets), {"embedding_norm": norm}

    def validate(self, student: Student) -> dict[str, float]:
        """Root mean square error on pictures as they are, their cosine with the teacher, norm.

        `score` is the error, negated.
        """
        device = next(student.parameters()).device
        squares, cosines, norms = [], [], []
        count, size = len(self._validation), self._config.batch_size
        for places in (range(count)[first : first + size] for first in range(0, count, size)):
            pictures = [self._validation[place] for place in places]
            views = torch.stack([self._plain(picture.pixels()) for picture in pictures]).to(device)
            if places not in self._known:
                rows = self._stored(pictures)
                self._known[places] = self._asked(views) if rows is None else rows
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

    def _stored(self, pictures: Sequence[Picture]) -> Float[Tensor, "B D"] | None:
        """What was said of these pictures before; None of a teacher that wants to see views."""
        if isinstance(self._targets, PrecomputedEmbeddings):
            return torch.from_numpy(self._targets.rows([picture.id for picture in pictures]))
        return None

    def _asked(self, views: Float[Tensor, "B 3 V V"]) -> Float[Tensor, "B D"]:
        """The teacher's answer; nothing of it is trained."""
        assert not isinstance(self._targets, PrecomputedEmbeddings)  # noqa: S101 (of a teacher)
        with torch.no_grad():
            return self._targets.embed(views)

    def _plain(self, pixels: Any) -> Tensor:
        return torch.from_numpy(framed(pixels, self._view_size, self._config.framing).copy())

    def _shrunk(self, views: Float[Tensor, "B 3 V V"]) -> Float[Tensor, "B 3 S S"]:
        """Views at the student's size."""
        if self._shrink is None:
            return views
        rows, columns = (matrix.to(views.device) for matrix in self._shrink)
        return rows @ views @ columns.T
